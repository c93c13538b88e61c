#include "launch/ingest/record_sink.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/text.h"

namespace varscope {
namespace {

constexpr std::int64_t kSecondNs = 1'000'000'000;
constexpr int kSecondMs = 1000;

// Rounded up, so that it is over when poll() returns.
int ms_until(std::int64_t ns) {
  constexpr std::int64_t kMsNs = 1'000'000;
  return static_cast<int>(std::clamp<std::int64_t>((ns - now_ns() + kMsNs - 1) / kMsNs, 0, 60 * kSecondMs));
}

}  // namespace

RecordSink::RecordSink(Fs& fs, RecordLog& log, SinkLimits limits, std::uint64_t max_backlog_bytes,
                       int stop_fd, Say say)
    : fs_(fs),
      log_(log),
      limits_(limits),
      backlog_(fs, log.dir(), max_backlog_bytes),
      stop_fd_(stop_fd),
      say_(std::move(say)) {}

bool RecordSink::waits_for_stop(int ms) const {
  pollfd stop{stop_fd_, POLLIN, 0};
  return ::poll(&stop, 1, ms) > 0;
}

void RecordSink::add(std::string_view stream, std::string_view record) {
  if (log_.is_empty()) due_ns_ = now_ns() + limits_.max_ns;
  log_.add(stream, record);
  if (log_.n_records() >= limits_.max_records || log_.n_bytes() >= RecordLog::kMostFileBytes) commit();
}

void RecordSink::until_done(const std::function<void()>& work) {
  bool has_failed = false;
  while (true) {
    try {
      work();
      if (has_failed) say_(fmt::format("{} can be written to again; nothing was lost", log_.dir()));
      return;
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::io || !fs_.is_directory(log_.dir())) throw;
      if (!has_failed)
        say_(fmt::format("warning: {}; reading stops, and it is tried again each second", e.what()));
      has_failed = true;
      if (!waits_for_stop(kSecondMs)) continue;
      fail(ErrorKind::io, "{}; {} records are in no file", e.what(),
           with_commas(static_cast<std::int64_t>(log_.n_records())));
    }
  }
}

void RecordSink::commit() {
  if (log_.is_empty()) return;
  until_done([this] { backlog_.wrote(log_.commit()); });
  if (on_durable) on_durable();
}

void RecordSink::commit_if_due() {
  if (!log_.is_empty() && now_ns() >= due_ns_) commit();
}

void RecordSink::write_end() {
  until_done([this] { log_.write_end(); });
}

bool RecordSink::may_read() {
  if (is_full_ && now_ns() < listed_ns_ + kSecondNs) return false;
  const bool was_full = is_full_;
  is_full_ = backlog_.is_full(log_.n_bytes());
  listed_ns_ = now_ns();
  const auto bytes = [this] {
    return bytes_text(static_cast<std::int64_t>(backlog_.bytes() + log_.n_bytes()));
  };
  if (is_full_ && !was_full) {
    say_(fmt::format(
        "{} holds {} that nobody has read and removed, and the limit is {} (--max-backlog-mib): reading stops until "
        "it is less",
        log_.dir(), bytes(), bytes_text(static_cast<std::int64_t>(backlog_.limit()))));
  } else if (was_full && !is_full_) {
    say_(fmt::format("{} holds {}: reading goes on", log_.dir(), bytes()));
  }
  return !is_full_;
}

int RecordSink::wait_ms() const {
  int ms = is_full_ ? ms_until(listed_ns_ + kSecondNs) : -1;
  if (!log_.is_empty()) {
    const int due = ms_until(due_ns_);
    ms = ms < 0 ? due : std::min(ms, due);
  }
  return ms;
}

}  // namespace varscope
