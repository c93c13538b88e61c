#include "ps/stream/stream_control.h"

#include <algorithm>
#include <utility>

#include "common/base/clock.h"
#include "common/base/error.h"

namespace varscope {
namespace {

constexpr std::size_t kFedAhead = 4;  // files: small ones are learnt faster than the next message comes

}  // namespace

StreamControl::StreamControl(const Options& options, StreamPosition position, Clock first)
    : options_(options), position_(std::move(position)), fed_up_to_(first.value) {}

std::optional<FedFile> StreamControl::poll() {
  while (queue_.size() < kFedAhead) {
    std::optional<StreamFeed::File> file = options_.feed.take();
    if (!file) return std::nullopt;
    FedFile fed{file->name,  file->n_bytes,  file->digest,  file->records,
                file->begin, fed_up_to_ + 1, options_.batch};
    const bool has_steps = fed.n_steps() > 0;
    fed_up_to_ = fed.last();
    queue_.push_back({std::move(*file), fed});
    if (has_steps) return fed;
    pass_empty_files();
  }
  return std::nullopt;
}

// On a file that was begun in an earlier start it has all this already.
void StreamControl::begin_file(const StreamFeed::File& file) {
  if (file.begin == 0) {
    ++position_.files;
    position_.left_out += file.left_out;
  }
  position_.file = file.name;
  position_.n_bytes = file.n_bytes;
  position_.digest = file.digest;
  position_.file_records = file.records;
  position_.learnt = file.begin;
}

std::int64_t StreamControl::records_after(Clock clock) const {
  for (const Queued& q : queue_) {
    if (q.fed.has(clock)) return position_.records + q.fed.end_of(clock) - q.fed.begin_of(clock);
  }
  return position_.records;
}

void StreamControl::complete(Clock clock, const BatchSums& sums) {
  if (queue_.empty() || !queue_.front().fed.has(clock))
    fail(ErrorKind::protocol, "step {} has ended, which is of no file", clock.value);
  Queued& now = queue_.front();
  if (!std::exchange(now.is_begun, true)) begin_file(now.file);
  position_.learnt = now.fed.end_of(clock);
  position_.records += now.fed.end_of(clock) - now.fed.begin_of(clock);
  position_.progressive.add(sums, options_.window);
  if (clock.value < now.fed.last()) return;
  position_.event_time = std::max(position_.event_time, now.file.event_time);
  queue_.pop_front();
  pass_empty_files();
}

// Those without samples, which have no step, once all before them is learnt.
void StreamControl::pass_empty_files() {
  while (!queue_.empty() && queue_.front().fed.n_steps() == 0) {
    begin_file(queue_.front().file);
    queue_.pop_front();
  }
}

StreamPosition StreamControl::cut() {
  StreamPosition position = position_;
  position_.progressive.since_save = {};
  return position;
}

StreamSummary StreamControl::summary() const {
  const StreamFeed::Backlog backlog = options_.feed.backlog();
  StreamSummary s;
  s.file = position_.file;
  s.learnt = position_.learnt;
  s.file_records = position_.file_records;
  s.files = position_.files;
  s.records = position_.records;
  s.left_out = position_.left_out;
  s.event_time = position_.event_time;
  s.total = position_.progressive.total;
  s.since_save = position_.progressive.since_save;
  s.window = position_.progressive.window();
  s.late = backlog.late;
  s.files_waiting = backlog.files + static_cast<std::int64_t>(queue_.size());
  s.bytes_waiting = backlog.bytes;
  for (const Queued& q : queue_) s.bytes_waiting += q.is_begun ? 0 : q.fed.n_bytes;
  if (!queue_.empty() && queue_.front().is_begun) --s.files_waiting;
  return s;
}

std::optional<StreamSummary> StreamControl::due_summary(Clock clock) {
  const bool is_told = options_.told_every > 0 && clock.value % options_.told_every == 0;
  const std::int64_t now = now_ns();
  // Long silence may follow: what is told last is of all that came.
  const bool is_caught_up = queue_.empty() && options_.feed.backlog().files == 0;
  if (!is_told && !is_caught_up && now - told_ns_ < 100'000'000) return std::nullopt;
  told_ns_ = now;
  return summary();
}

std::map<std::string, double> StreamControl::metrics(bool has_accuracy) const {
  std::map<std::string, double> all{{"records", static_cast<double>(position_.records)}};
  const auto add = [&](const std::string& suffix, const BatchSums& sums) {
    if (sums.samples == 0) return;
    all["progressive_loss" + suffix] = sums.loss / sums.total();
    if (has_accuracy) all["progressive_accuracy" + suffix] = sums.correct / sums.total();
  };
  add("", position_.progressive.total);
  add("_since_save", position_.progressive.since_save);
  add("_window", position_.progressive.window());
  if (position_.event_time > 0) all["event_time"] = position_.event_time;
  return all;
}

}  // namespace varscope
