#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "checkpoint/storage/fs.h"

namespace varscope::testing {

// The named points of the commit protocol (docs/checkpoint_format.md), and what a rank does when it comes to
// one. A point is a file operation of a checkpoint, seen from one side:
//
//   before|after  mkdir    tmp              the directory of a save; of .trash: "trash"
//                 create   shard|rows|worker-state|manifest|json|latest
//   within        write    the same         half of the bytes are written
//                 fsync    the same
//                 close    the same
//                 sync-dir tmp              fsync of the save's own directory
//                 sync    tmp|step|latest|trash|aside    fsync of the parent, after this was made or renamed
//                 rename   step|trash|aside the commit; into .trash; to superseded-...
//                 exchange step
//                 replace  latest|lineage
//                 link     rows             a row file of an older save; "rows" is also created, written, ...
//                 remove   tmp|trash|latest
//
// as in "before rename step".
//
// Rules are lines in the file <dir>/rules; <dir> is the environment variable VARSCOPE_POINTS_DIR:
//
//   rule   = rank "|" save "|" point "|" action   in this save of the process (from 1), once; 0: always
//   action = "kill" rank | "kill all"   SIGKILL (of all: and of mpirun), waits until it is gone, and stays at
//   the point for ever
//          | "stop" rank                SIGSTOP, and goes on
//          | "wait"                     until there is a file <dir>/go-<rank>-<k>
//   "no-fsync"                          a line of its own: every fsync does nothing
//
// The k-th time a rank acts (from 1) it writes <dir>/hit-<rank>-<k>: the point, the step that is being saved,
// the step of the newest save that is known to have been announced (rank 0 only; 0: none). Each rank writes
// its process id to <dir>/pid-<rank> when it starts.
inline constexpr const char* kPointsDirVariable = "VARSCOPE_POINTS_DIR";

// The real file system with these rules. As thread-safe as PosixFs.
class CommitPointsFs : public PosixFs {
 public:
  // Reads the rules for `rank` and writes its process id.
  CommitPointsFs(std::string dir, int rank);

  std::unique_ptr<File> create_exclusive(const std::string& path) override;
  std::unique_ptr<File> create_like(const std::string& path, const std::string& like) override;
  void make_dir(const std::string& path) override;
  void make_dirs(const std::string& path) override;
  void rename(const std::string& from, const std::string& to) override;
  bool exchange(const std::string& a, const std::string& b) override;
  void replace_file(const std::string& from, const std::string& to) override;
  bool link(const std::string& from, const std::string& to) override;
  void remove_all(const std::string& path) override;
  void sync_dir(const std::string& path) override;

 private:
  class PointFile;
  struct Rule {
    int save = 0;
    std::string point;
    std::string action;
    bool is_over = false;
  };
  void reach(const std::string& point);
  std::unique_ptr<File> create(const std::string& path, const std::function<std::unique_ptr<File>()>& make);
  void act(const std::string& point, const std::string& action);
  void kill_all();
  int pid_of(const std::string& rank) const;
  void report(int k, const std::string& point);
  void note_save(const std::string& tmp);
  void changed(const std::string& object);

  const std::string dir_;
  const int rank_;
  bool syncs_ = true;
  std::mutex mutex_;  // of all below
  std::vector<Rule> rules_;
  std::string changed_ = "nothing";  // in the directory of the checkpoints, since its last fsync
  int n_acts_ = 0, n_saves_ = 0;
  long saving_ = 0, committed_ = 0, announced_ = 0;  // steps
};

}  // namespace varscope::testing
