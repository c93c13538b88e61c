#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/format/stream_position.h"
#include "checkpoint/storage/fs.h"
#include "common/config/job_config.h"
#include "ps/observe/run_observer.h"
#include "ps/stream/stream_feed.h"
#include "worker/data/dataset.h"

namespace varscope {

// The files of a directory that data.train follows (docs/online.md), for server 0. A thread of its own lists
// the directory each second and reads each new file once, in the order of their names: how many records it
// has, what its bytes are, and that it did not grow meanwhile. Where files that are learnt are to be deleted,
// it does so once the oldest kept checkpoint has them behind it; for that it observes the run's checkpoints.
// take() and the observer's calls are for one thread.
class DirectoryFeed final : public StreamFeed, public RunObserver {
 public:
  struct Parts {
    const JobConfig& job;
    std::string directory;
    std::string schema;       // of the training data
    StreamPosition position;  // files up to this one are behind; the one within which it is must be there
    Fs& fs;                   // of the checkpoints
    RunObserver& warnings;    // gets on_warning(), from take()
  };
  // Looks at the file within which the position is. Throws Error(checkpoint) where it is gone or has other
  // bytes than when the checkpoint was made, Error(data).
  explicit DirectoryFeed(Parts parts);
  ~DirectoryFeed() override;

  std::optional<File> take() override;
  bool has_ended() const override;
  Backlog backlog() const override;
  std::string name() const override;
  void on_checkpoint(const CheckpointSummary&) override;

 private:
  void run();
  bool step();
  void look();
  void take_late(const std::string& name);
  void read_next();
  File read(const std::string& name);
  void check_share(const File& file);
  void keep_bad(const LeftOut& left_out);
  double newest_event(const std::string& path);
  void tell_of_time(const std::string& path, const std::string& cell);
  void delete_consumed();
  void delete_file(const std::string& name);
  void warn(std::string text);

  Parts parts_;
  // Of the thread alone.
  std::string last_;              // the name that was read last
  std::set<std::string> listed_;  // by the last listing
  bool is_first_listing_ = true;
  std::int64_t changed_ns_ = 0, looked_ns_ = 0;  // the directory's time of change at the last listing
  std::int64_t read_records_ = 0, bad_records_ = 0;
  std::vector<std::string> bad_lines_;
  // What a file was when it was read. A name may be used again: what has it then is not learnt, and stays.
  struct Seen {
    std::int64_t n_bytes = -1, changed_ns = -1;
    bool operator==(const Seen&) const = default;
  };
  static Seen seen(const std::string& path);
  std::map<std::string, Seen> read_here_;  // and not deleted since; where files are deleted
  bool has_told_of_times_ = false;
  // Shared.
  mutable std::mutex mutex_;
  std::condition_variable wakes_;
  std::deque<File> ready_;
  std::deque<std::pair<std::string, std::int64_t>> waiting_;  // names and sizes that are to be read
  std::int64_t waiting_bytes_ = 0;                            // the sum of these
  std::vector<std::string> warnings_;
  std::exception_ptr error_;
  std::int64_t late_ = 0;
  bool sees_end_ = false;
  bool has_new_checkpoint_ = false;
  bool is_over_ = false;
  std::thread thread_;
};

}  // namespace varscope
