#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/directory/retention.h"
#include "checkpoint/directory/scan.h"
#include "checkpoint/format/evaluation.h"
#include "checkpoint/format/manifest.h"
#include "checkpoint/storage/fs.h"

namespace varscope {

// The coordinator's side of the commit protocol (docs/checkpoint_format.md) for one directory of checkpoints.
// All but the constructor and scan() REQUIRE lock(). Errors: Error(io) of the operation that failed,
// Error(checkpoint) for reports that do not make a whole. Not thread-safe; borrows the Fs.
class CheckpointDirectory {
 public:
  CheckpointDirectory(Fs& fs, std::string dir) : fs_(fs), dir_(std::move(dir)) {}

  const std::string& dir() const { return dir_; }

  // Makes the directory if need be and takes its LOCK until this object or the process ends. Throws
  // Error(checkpoint) that names the holder when another job has it.
  void lock(const std::string& run_id);

  // Removes what earlier runs left behind: .tmp-* and .trash; makes the names of the others durable first.
  // What cannot be removed (another user's) is a warning.
  void sweep();

  // Makes <dir>/.tmp-<id> for the shards and returns its path. The id is a file name: letters, digits, '.',
  // '_', '-'.
  std::string begin(const std::string& id);

  // Checks the manifest (one report per server, boxes that cover every variable) and the sizes of the files
  // in .tmp-<id>, writes the manifest, and renames to step-<step>: the commit point. Fills in the manifest's
  // id, time, and hash of the values. A checkpoint that has the name already is set aside as
  // superseded-step-<step>-<unix time>. Returns the new path. Throws only when the checkpoint is not
  // committed, or not known to be durable (then it is there, whole, but a crash may still undo it); what
  // fails after the commit point is in warnings().
  std::string commit(const std::string& id, Manifest manifest);
  // Of the last commit() or retain(), and of sweep() and record() since; for the log.
  const std::vector<std::string>& warnings() const { return warnings_; }

  // Gives up the checkpoint: removes .tmp-<id>, unless an older checkpoint has that name now. Never throws;
  // what cannot be removed is left to the next sweep().
  void abandon(const std::string& id) noexcept;

  // What retention would remove, newest first.
  std::vector<CheckpointEntry> surplus(const RetentionPolicy& policy) const;
  // Removes the surplus. Returns the names of what was removed; throws nothing for a tree that cannot be
  // removed once it is in .trash.
  std::vector<std::string> retain(const RetentionPolicy& policy);
  // The same with the newest `keep` alone.
  std::vector<CheckpointEntry> surplus(int keep) const { return surplus(RetentionPolicy{.keep = keep}); }
  std::vector<std::string> retain(int keep) { return retain(RetentionPolicy{.keep = keep}); }

  // Records an evaluation with every committed checkpoint that it is the newest known one of: those of its
  // step or later ones, unless they have a newer one. Throws Error(io).
  void record_evaluation(const EvaluationRecord& record);

  // Sets every checkpoint of a step after `step` aside, whole or damaged, as superseded-step-<step>-<unix
  // time>: for a run that goes on from an older one. LINEAGE says so: {"event": event, "to": step's name,
  // "set_aside": [...], "unix_time": s}. The record comes first: a crash in between leaves a step back that
  // is known and can be repeated. Nothing is recorded where nothing is newer. Returns their names. Throws
  // Error(io).
  std::vector<std::string> go_back_to(std::int64_t step, const char* event);
  // For a run that goes on from a checkpoint elsewhere, at `path`, which is none of this directory's: sets
  // aside those of its step and later ones and those of other runs, which a resume would take for its own.
  // LINEAGE says so in any case, with the path as "to". Throws Error(io).
  std::vector<std::string> go_on_from(const std::string& path, std::int64_t step, const std::string& run_id);

  // Makes LATEST name the newest checkpoint whose manifest can be read. Throws Error(io).
  void renew_latest();

  // Appends a line to LINEAGE, the record of what was done to the directory by hand. One that cannot be read
  // is set aside, with a warning. Throws Error(io).
  void record(const std::string& line);

  // Newest first.
  std::vector<CheckpointEntry> scan() const { return scan_checkpoints(fs_, dir_); }

 private:
  std::string tmp_path(const std::string& id) const;
  void require_lock() const;
  void put_in_place(const std::string& tmp, const std::string& name, std::int64_t unix_time);
  std::vector<std::string> set_aside_all(const std::vector<CheckpointName>& checkpoints, const char* event,
                                         const std::string& to);
  void set_aside(const std::string& path, const std::string& name, std::int64_t unix_time);
  std::string superseded_path(const std::string& name, std::int64_t unix_time) const;
  std::string free_name(const std::string& path) const;  // it, or it with a number

  Fs& fs_;
  std::string dir_;
  std::unique_ptr<FileLock> lock_;
  std::vector<std::string> warnings_;
  std::string exchanged_;  // the temporary name that an older checkpoint has got by an exchange, or ""
};

}  // namespace varscope
