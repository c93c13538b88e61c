#include "launch/ingest/ingest_loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/text.h"

namespace varscope {
namespace {

constexpr std::size_t kBlockBytes = std::size_t{1} << 16;
constexpr std::int64_t kGoodbyeNs = 5'000'000'000;  // that a refused producer has to read why
constexpr std::uint64_t kMib = std::uint64_t{1} << 20;
constexpr std::string_view kTcp = "tcp:", kFifo = "fifo:";

std::optional<TcpListener> listener_of(const std::string& from) {
  if (!from.starts_with(kTcp)) return std::nullopt;
  return TcpListener(from.substr(kTcp.size()));
}

std::optional<PipeSource> pipe_of(const std::string& from) {
  if (from.starts_with(kTcp)) {
    TcpListener::check(from.substr(kTcp.size()));
    return std::nullopt;
  }
  if (from == "-") return PipeSource();
  if (from.starts_with(kFifo) && from.size() > kFifo.size()) return PipeSource(from.substr(kFifo.size()));
  fail(ErrorKind::config, "--from {}: expected - (standard input), fifo:PATH or tcp:ADDRESS:PORT", from);
}

SinkLimits limits_of(const IngestOptions& options) {
  return {static_cast<std::uint64_t>(options.max_records), ns_of(options.max_seconds)};
}

// A socket or a pipe that nothing is wanted from is not watched: its end would wake poll() again and again.
pollfd watched(int fd, bool reads, bool writes = false) {
  const int events = (reads ? POLLIN : 0) | (writes ? POLLOUT : 0);
  return {events == 0 ? -1 : fd, static_cast<short>(events), 0};
}

}  // namespace

struct IngestLoop::Producer {
  TcpConnection tcp;
  std::optional<StreamReader> reader;
  std::uint64_t told = 0;          // records that it knows to be durable
  bool has_ended = false;          // it sends no more
  std::int64_t refused_until = 0;  // not 0: what it sends is thrown away until then

  std::string who() const {
    const bool has_name = reader && !reader->name().empty();
    return has_name ? fmt::format("stream {} of {}", reader->name(), tcp.peer()) : tcp.peer();
  }
};

IngestLoop::IngestLoop(Fs& fs, const IngestOptions& options, int stop_fd, RecordSink::Say say)
    : options_(options),
      say_(std::move(say)),
      pipe_(pipe_of(options.from)),
      log_(fs, options.to, options.suffix),
      sink_(fs, log_, limits_of(options), static_cast<std::uint64_t>(options.max_backlog_mib) * kMib, stop_fd,
            say_),
      listener_(listener_of(options.from)),
      stop_fd_(stop_fd),
      block_(kBlockBytes) {
  log_.expect_header(options.has_header);
  sink_.on_durable = [this] { tell_producers(); };
  const RecordCutter cutter(options.records, options.delimiter);
  if (pipe_)
    pipe_reader_.emplace(log_, sink_, StreamReader::Rules{cutter, options.has_header, pipe_->is_fifo()},
                         nullptr);
  if (listener_ && !listener_->is_loopback()) {
    say_(fmt::format("warning: {} is open to the network, unencrypted and without a password",
                     listener_->address()));
  }
}

IngestLoop::~IngestLoop() = default;

IngestEnd IngestLoop::run() {
  while (!has_ended_) {
    if (sink_.is_stopped()) {
      stop();
      return IngestEnd::stopped;
    }
    sink_.commit_if_due();
    wait(sink_.may_read());
    forget_producers();
  }
  sink_.commit();
  if (options_.writes_end) sink_.write_end();
  return IngestEnd::ended;
}

int IngestLoop::wait_ms() const {
  constexpr int kLookMs = 1000;
  const bool refuses = std::ranges::any_of(producers_, [](const Producer& p) { return p.refused_until > 0; });
  const int ms = sink_.wait_ms();
  return refuses && (ms < 0 || ms > kLookMs) ? kLookMs : ms;
}

void IngestLoop::watch_producers(bool may_read, std::vector<pollfd>& polled) const {
  for (const Producer& p : producers_) {
    const bool reads = !p.has_ended && (may_read || p.refused_until > 0);
    polled.push_back(watched(p.tcp.fd(), reads, p.tcp.has_unsent()));
  }
}

// Until something happens, and does it.
void IngestLoop::wait(bool may_read) {
  std::vector<pollfd> polled = {watched(stop_fd_, true),
                                watched(listener_ ? listener_->fd() : pipe_->fd(), may_read)};
  const std::size_t n_before = polled.size();
  watch_producers(may_read, polled);
  if (::poll(polled.data(), polled.size(), wait_ms()) < 0) {
    if (errno != EINTR) fail(ErrorKind::io, "cannot wait for {}: {}", source(), std::strerror(errno));
    return;
  }
  std::size_t at = n_before;
  for (Producer& p : producers_) {
    if (polled[at].revents != 0) serve(p, polled[at].revents);
    ++at;
  }
  if (polled[1].revents == 0) return;
  if (listener_) {
    take_connection();
  } else {
    read_pipe();
  }
}

// --- a pipe

void IngestLoop::read_pipe() {
  const std::optional<std::size_t> n = pipe_->read(block_);
  if (!n) return;
  if (*n == 0) return end_of_pipe();
  const std::string problem = pipe_reader_->feed({block_.data(), *n});
  if (problem.empty()) return;
  sink_.commit();
  fail(ErrorKind::data, "{}: {}", pipe_->name(), problem);
}

void IngestLoop::end_of_pipe() {
  const std::string problem = pipe_reader_->finish();
  if (!problem.empty()) {
    sink_.commit();
    fail(ErrorKind::data, "{}: {}", pipe_->name(), problem);
  }
  has_ended_ = !pipe_->is_fifo() || options_.writes_end;
  if (has_ended_) return;
  pipe_reader_->restart();
  pipe_->open_again();
}

// --- connections

void IngestLoop::take_connection() {
  std::optional<TcpConnection> tcp = listener_->accept();
  if (!tcp) return;
  const auto n = static_cast<std::size_t>(
      std::ranges::count_if(producers_, [](const Producer& p) { return p.refused_until == 0; }));
  if (producers_.size() >= 2 * kMostProducers) return;  // even for words
  Producer& producer = producers_.emplace_back(Producer{std::move(*tcp), {}, 0, false, 0});
  const StreamReader::Rules rules{RecordCutter(options_.records, options_.delimiter), options_.has_header,
                                  false};
  producer.reader.emplace(log_, sink_, rules,
                          [this, &producer](const std::string& name) { return on_name(producer, name); });
  if (n >= kMostProducers)
    refuse(producer, fmt::format("{} producers are connected, and no more may be", kMostProducers));
}

void IngestLoop::serve(Producer& producer, short events) {
  if ((events & POLLOUT) != 0) producer.tcp.flush();
  if ((events & (POLLIN | POLLHUP | POLLERR)) != 0 && !producer.has_ended) read(producer);
}

void IngestLoop::read(Producer& producer) {
  const std::optional<std::size_t> n = producer.tcp.read(block_);
  if (!n) return;
  if (*n == 0) return end_of(producer);
  if (producer.refused_until > 0) return;
  const std::string problem = producer.reader->feed({block_.data(), *n});
  if (!problem.empty()) refuse(producer, problem);
}

// What it sent without a line feed may be half a record of a producer that died.
void IngestLoop::end_of(Producer& producer) {
  producer.has_ended = true;
  const std::size_t n = producer.reader->n_rest();
  if (n == 0 || producer.refused_until > 0) return;
  say_(fmt::format("warning: {} has ended within record {}: its {} bytes without a line feed are left out",
                   producer.who(), with_commas(static_cast<std::int64_t>(producer.reader->n_records() + 1)),
                   n));
}

// A producer that was lost may still look connected: the new connection takes its place. What it had sent
// becomes durable first, so that the answer counts it.
StreamReader::Answer IngestLoop::on_name(Producer& producer, const std::string& name) {
  if (!log_.knows(name) && !log_.has_room_for_stream()) {
    return {
        fmt::format("{} has {} streams, as many as it may; use a name again, or write to another directory",
                    log_.dir(), RecordLog::kMostStreams),
        0};
  }
  sink_.commit();
  for (Producer& other : producers_) {
    if (&other != &producer && other.refused_until == 0 && !other.has_ended && other.reader->name() == name)
      refuse(other, fmt::format("stream {} goes on in another connection, of {}", name, producer.tcp.peer()));
  }
  producer.told = log_.count(name);
  producer.tcp.send_line(fmt::format("{}", producer.told));
  return {"", producer.told};
}

void IngestLoop::refuse(Producer& producer, const std::string& why) {
  say_(fmt::format("warning: {} is disconnected: {}", producer.who(), why));
  producer.refused_until = now_ns() + kGoodbyeNs;
  producer.tcp.send_line("ERROR " + why);
  producer.tcp.end_sending();
}

void IngestLoop::tell_producers() {
  for (Producer& p : producers_) {
    const std::uint64_t n = p.reader->n_records();
    if (p.refused_until > 0 || n == p.told) continue;
    p.told = n;
    p.tcp.send_number(n);
  }
}

void IngestLoop::forget_producers() {
  const std::int64_t now = now_ns();
  std::erase_if(producers_, [now](const Producer& p) {
    if (p.tcp.is_gone()) return true;
    if (p.refused_until > 0) return p.has_ended || now > p.refused_until;
    return p.has_ended && p.told == p.reader->n_records() && !p.tcp.has_unsent();
  });
}

// --- the end

// What was written before the end is not lost, though it may be as much as a pipe holds.
void IngestLoop::drain_pipe() {
  constexpr std::size_t kMostBytes = std::size_t{1} << 20;  // fs.pipe-max-size, by default
  for (std::size_t n = 0; n < kMostBytes && !has_ended_; n += kBlockBytes) {
    pollfd pipe = watched(pipe_->fd(), true);
    if (::poll(&pipe, 1, 0) <= 0) return;
    read_pipe();
  }
}

void IngestLoop::stop() {
  if (pipe_) drain_pipe();
  const std::size_t n = pipe_reader_ ? pipe_reader_->n_rest() : 0;
  if (n > 0) say_(fmt::format("warning: {} bytes of a record that was not read to its end are left out", n));
  sink_.commit();
}

}  // namespace varscope
