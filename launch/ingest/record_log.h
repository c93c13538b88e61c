#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "checkpoint/storage/fs.h"
#include "launch/ingest/ingest_state.h"

namespace varscope {

inline constexpr const char* kIngestStateName = ".ingest";
inline constexpr const char* kIngestLockName = ".ingest-lock";
inline constexpr const char* kStreamEndName = "END";  // no file comes any more

// The directory that a stream is written to, as files with running numbers: 000000000001.csv, ... Records are
// gathered in memory, and commit() makes one file of them, so that after a crash at any point, of the program
// or of the host, either all of them count, or none:
//
//   1. .tmp-NAME is written and fsynced, and the directory too.
//   2. The state (IngestState), which names the file and has the counts of records with it, replaces the one
//      before; the directory is fsynced. From here on the records count.
//   3. .tmp-NAME is renamed to NAME, and the directory fsynced. Where a crash comes before, the next start
//      does it: it finds .tmp-NAME as the state has it. Where there is none, the file had its name; a
//      reader may have removed it since.
//
// The number after that of the newest file is the next one, whether it is still there or not. Holds the lock
// of the directory. Errors: Error(checkpoint) where another ingest has it or the state is damaged, Error(io).
// Not thread-safe.
class RecordLog {
 public:
  static constexpr std::size_t kMostFileBytes = std::size_t{1} << 26;  // but for the last record
  static constexpr std::size_t kMostStreams = 4096;

  // Makes the directory if need be, locks it, and ends what a crash has left half done. `suffix` is of names,
  // ".csv". Throws Error(config) where the directory has END.
  RecordLog(Fs& fs, std::string dir, std::string suffix);

  // The line that files begin with, or nothing. That of files there must be the same: false where it is not.
  // Comparisons leave out how lines end. `line` ends with a line feed.
  const std::string& header() const { return next_.header; }
  bool take_header(std::string_view line);
  // Throws Error(config) where there are files, and they have a header or not, unlike what is wanted.
  void expect_header(bool is_wanted) const;

  // Adds a record, which ends with a line feed, to the next file; of a stream of this name, or none ("").
  // REQUIRES: knows(stream) or has_room_for_stream().
  void add(std::string_view stream, std::string_view record);
  bool knows(std::string_view stream) const;
  bool has_room_for_stream() const { return next_.streams.size() < kMostStreams; }
  // Records of the stream that were added, in all runs. After commit() they are durable.
  std::uint64_t count(std::string_view stream) const;

  bool is_empty() const { return n_records_ == 0; }  // nothing has been added since commit()
  std::uint64_t n_records() const { return n_records_; }
  std::uint64_t n_bytes() const { return text_.size(); }  // of these records

  // Makes the next file of what was added; nothing where that is nothing. After an Error(io) everything is
  // kept: call it again, without add(), until it succeeds. Returns the bytes of the file.
  std::uint64_t commit();
  // Writes END. After an Error(io): call it again.
  void write_end();

  const std::string& dir() const { return dir_; }
  std::string next_name() const;  // of the next file
  // Of all runs.
  std::uint64_t total_records() const { return state_.records; }
  std::uint64_t n_files() const { return n_files_; }  // of this one

 private:
  // How far the commit of what was added has come. From `written` on the temporary file is never touched: a
  // state that failed to be replaced may be there all the same.
  enum class Stage : std::uint8_t { gathering, written, counted };
  void lock();
  void recover();
  void finish_rename();
  void sweep() const;
  std::uint64_t highest_number() const;
  std::string path(std::string_view name) const { return join_path(dir_, name); }
  std::string tmp_path(std::string_view name) const { return path(kTmpPrefix + std::string(name)); }
  void write_tmp();

  Fs& fs_;
  std::string dir_, suffix_;
  std::unique_ptr<FileLock> lock_;
  IngestState state_;  // of what is durable
  IngestState next_;   // with what was added; number, file, size and digest only from Stage::written on
  Stage stage_ = Stage::gathering;
  std::uint64_t next_number_ = 1;
  std::string text_;  // what was added
  std::uint64_t n_records_ = 0, n_files_ = 0;
};

// A name of a stream: 1 to 128 letters, digits, '.', '_', '-', ':'.
bool is_stream_name(std::string_view name);

}  // namespace varscope
