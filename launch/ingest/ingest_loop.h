#pragma once

#include <poll.h>

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/storage/fs.h"
#include "launch/ingest/pipe_source.h"
#include "launch/ingest/record_log.h"
#include "launch/ingest/record_sink.h"
#include "launch/ingest/sockets.h"
#include "launch/ingest/stream_reader.h"

namespace varscope {

struct IngestOptions {
  std::string from;  // "-", "fifo:PATH" or "tcp:ADDRESS:PORT"
  std::string to;    // a directory
  std::int64_t max_records = 4096;
  double max_seconds = 2;
  std::int64_t max_backlog_mib = 1024;  // 0: no limit
  bool has_header = false;
  std::string suffix = ".csv";
  RecordRules records = RecordRules::lines;
  char delimiter = ',';
  bool writes_end = false;  // END, when the input ends
};

enum class IngestEnd : std::uint8_t { ended, stopped };  // the input has ended; stop_fd was readable

// Turns a stream of records into the files of a directory (RecordLog): standard input, a FIFO, or any number
// of TCP connections. One thread reads and writes; it waits in poll() alone, but for the file system. Memory:
// a file's records, and one record of each connection at most. Protocol of TCP: docs/ingest.md. Not
// thread-safe.
class IngestLoop {
 public:
  static constexpr std::size_t kMostProducers = 32;  // that are connected

  // Opens source and directory. Throws Error(config, checkpoint, io). `say` gets lines for people; readable
  // from `stop_fd` means: end.
  IngestLoop(Fs& fs, const IngestOptions& options, int stop_fd, RecordSink::Say say);

  ~IngestLoop();
  IngestLoop(const IngestLoop&) = delete;
  IngestLoop& operator=(const IngestLoop&) = delete;

  // "standard input", a path, or "127.0.0.1:9000" with the port that it has.
  const std::string& source() const { return listener_ ? listener_->address() : pipe_->name(); }
  const RecordLog& log() const { return log_; }
  // Until the input ends or it is to stop; all records that were read are in files then. A FIFO ends with its
  // last writer where `writes_end`, and never otherwise; connections never end. Throws Error(data) for what
  // is no stream of records (of a connection: closes it, with words), Error(io).
  IngestEnd run();

 private:
  struct Producer;
  void wait(bool may_read);
  void watch_producers(bool may_read, std::vector<pollfd>& polled) const;
  int wait_ms() const;
  void read_pipe();
  void drain_pipe();
  void end_of_pipe();
  void take_connection();
  void serve(Producer& producer, short events);
  void read(Producer& producer);
  void end_of(Producer& producer);
  StreamReader::Answer on_name(Producer& producer, const std::string& name);
  void refuse(Producer& producer, const std::string& why);
  void tell_producers();
  void forget_producers();
  void stop();

  IngestOptions options_;
  RecordSink::Say say_;
  std::optional<PipeSource> pipe_;  // this, or listener_
  RecordLog log_;                   // locks the directory before the port is asked for
  RecordSink sink_;
  std::optional<StreamReader> pipe_reader_;
  std::optional<TcpListener> listener_;
  int stop_fd_;
  std::list<Producer> producers_;
  std::vector<char> block_;  // that is read into
  bool has_ended_ = false;
};

}  // namespace varscope
