#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "launch/ingest/backlog.h"
#include "launch/ingest/record_log.h"

namespace varscope {

// When a file ends, and when reading stops.
struct SinkLimits {
  std::uint64_t max_records = 4096;     // of a file
  std::int64_t max_ns = 2'000'000'000;  // from a file's first record to its end
};

// Decides when the records of a RecordLog become a file, and tries again while the disk is full. Borrows the
// log. Not thread-safe.
class RecordSink {
 public:
  using Say = std::function<void(const std::string&)>;  // a line for people

  // Readable from `stop_fd` means: end. It is only polled.
  RecordSink(Fs& fs, RecordLog& log, SinkLimits limits, std::uint64_t max_backlog_bytes, int stop_fd,
             Say say);

  // Called each time when all records that were added have become durable.
  std::function<void()> on_durable;

  // Adds a record as RecordLog::add; may make a file of it and those before.
  void add(std::string_view stream, std::string_view record);
  // Makes a file of what there is. While the directory takes none it tries again each second, with one line
  // at the beginning and one at the end. Throws Error(io) when it is to stop meanwhile, and where the
  // directory is gone.
  void commit();
  // commit() where the time of the records that there are is over. They have none where there are none.
  void commit_if_due();
  void write_end();  // tries as commit() does

  // False while the directory's files reach the backlog's limit; a line tells when it begins and ends. While
  // it does, the directory is listed once a second at most.
  bool may_read();
  bool is_waiting() const { return is_full_; }  // may_read() was false
  // Milliseconds until commit_if_due() or may_read() has something to do; -1: nothing.
  int wait_ms() const;
  bool is_stopped() const { return waits_for_stop(0); }

 private:
  bool waits_for_stop(int ms) const;
  void until_done(const std::function<void()>& work);

  Fs& fs_;
  RecordLog& log_;
  SinkLimits limits_;
  Backlog backlog_;
  int stop_fd_;
  Say say_;
  std::int64_t due_ns_ = 0;     // of the records there are
  std::int64_t listed_ns_ = 0;  // the last time that the backlog was full
  bool is_full_ = false;
};

}  // namespace varscope
