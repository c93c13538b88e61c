#include "ps/record/recorded_order.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/files/little_endian.h"

namespace varscope {
namespace {

constexpr std::uint16_t kCut = RecordEvent{RecordEvent::What::cut, WorkerId(0)}.encoded();

[[noreturn]] void fail_senseless(const char* what) {
  fail(ErrorKind::data, "a record of the run has {} that makes no sense", what);
}

// As far as a header may be believed before memory is taken for it.
std::size_t checked_units(const RecordHeader& header) {
  constexpr std::int64_t kMost = 1 << 24;
  if (header.n_units < 0 || header.n_units > kMost) fail_senseless("a number of units");
  return static_cast<std::size_t>(header.n_units);
}

}  // namespace

RecordedOrder::RecordedOrder(Fs& fs, const std::string& run_dir, Options options)
    : options_(std::move(options)),
      chain_(fs, events_dir(run_dir, options_.server), options_.from),
      units_(checked_units(chain_.header())) {}

std::optional<RecordEvent> RecordedOrder::next(int unit) {
  const Unit& u = units_.at(static_cast<std::size_t>(unit));
  while (u.events.empty()) {
    if (!read()) return std::nullopt;
  }
  RecordEvent event = RecordEvent::decoded(u.events.front());
  if (event.what == RecordEvent::What::redrained) event.what = RecordEvent::What::drained;
  return event;
}

// What the worker's next event is, from a place in the queue on; nothing where there is none.
std::optional<RecordEvent::What> RecordedOrder::find(int unit, std::size_t begin, WorkerId worker,
                                                     SkipAnswers skip) {
  const Unit& u = units_[static_cast<std::size_t>(unit)];
  for (std::size_t i = begin;; ++i) {
    while (i >= u.events.size()) {
      if (!read()) return std::nullopt;
    }
    const RecordEvent event = RecordEvent::decoded(u.events[i]);
    if (event.what == RecordEvent::What::cut || event.worker != worker) continue;
    if (event.what == RecordEvent::What::flushed) continue;  // nothing was computed for it
    if (skip == SkipAnswers::yes && event.what == RecordEvent::What::answered) continue;
    return event.what;
  }
}

bool RecordedOrder::is_used(int unit) {
  const WorkerId worker = next(unit)->worker;
  return find(unit, 1, worker, SkipAnswers::no).value_or(RecordEvent::What::applied) ==
         RecordEvent::What::applied;
}

bool RecordedOrder::ends_with_drain(int unit, WorkerId worker) {
  return find(unit, 0, worker, SkipAnswers::yes).value_or(RecordEvent::What::applied) !=
         RecordEvent::What::applied;
}

void RecordedOrder::advance(int unit) {
  Unit& u = units_[static_cast<std::size_t>(unit)];
  u.events.pop_front();
  ++u.n_done;
}

RecordedOrder::Cut RecordedOrder::pass_cut(int unit, std::uint64_t hash, std::string_view what) {
  Unit& u = units_[static_cast<std::size_t>(unit)];
  const CutRecord& cut = cuts_[u.n_cuts++];
  advance(unit);
  const bool is_same = cut.hashes[static_cast<std::size_t>(unit)] == hash;
  if (is_same || !options_.compared.contains(cut.step.value)) return {cut.step, ""};
  return {cut.step, fmt::format("server {}, {}, event {}: the values differ from the recorded run's after "
                                "step {}",
                                options_.server.value, what, u.n_done, cut.step.value)};
}

// One record more; false at the end.
bool RecordedOrder::read() {
  std::string record;
  if (!chain_.next(record)) return false;
  try {
    if (record.starts_with('E')) {
      read_events(std::string_view(record).substr(1));
    } else if (record.starts_with('C')) {
      read_cut(std::string_view(record).substr(1));
    } else {
      fail_senseless("a first byte");
    }
    return true;
  } catch (const Error& e) {
    chain_.end(e.what());
    return false;
  }
}

void RecordedOrder::read_events(std::string_view record) {
  const bool is_first = chain_.from() == options_.from;
  while (!record.empty()) {
    if (record.size() < 8) fail_senseless("a length");
    const auto unit = take_le<std::uint32_t>(record), n = take_le<std::uint32_t>(record);
    if (unit >= units_.size() || n > record.size() / 2) fail_senseless("a unit or a number of events");
    for (std::uint32_t i = 0; i < n; ++i) {
      const auto bits = take_le<std::uint16_t>(record);
      const RecordEvent event = RecordEvent::decoded(bits);
      if (event.worker.value >= chain_.header().workers || event.what >= RecordEvent::What::cut)
        fail_senseless("an event");
      // What was read before the cut has been replayed, unless the replay begins with the cut.
      if (event.what == RecordEvent::What::redrained && !is_first) continue;
      units_[unit].events.push_back(bits);
    }
  }
}

void RecordedOrder::read_cut(std::string_view record) {
  if (record.size() != 8 + 8 * units_.size()) fail_senseless("the length of a cut");
  CutRecord cut{Clock(take_le<std::int64_t>(record)), {}};
  for (Unit& unit : units_) {
    cut.hashes.push_back(take_le<std::uint64_t>(record));
    unit.events.push_back(kCut);
  }
  cuts_.push_back(std::move(cut));
}

RecordedTickets::RecordedTickets(Fs& fs, const std::string& run_dir, Clock from) : last_(from) {
  SegmentChain chain(fs, tickets_dir(run_dir), from);
  header_ = chain.header();
  std::string record;
  while (chain.next(record)) {
    if (!take(record)) chain.end("a record of who was dealt what makes no sense");
  }
  why_ended_ = chain.why_ended();
}

// False where it makes no sense.
bool RecordedTickets::take(std::string_view record) {
  const char kind = record.empty() ? '\0' : record.front();
  record.remove_prefix(std::min<std::size_t>(record.size(), 1));
  if (kind == 'O' && record.size() == 9) {
    const auto step = take_le<std::int64_t>(record);
    if (step != last_.value + 1) return false;
    last_ = Clock(step);
    if (record.front() != 0) drained_.insert(step);
    return true;
  }
  if (kind == 'M' && record.size() > 8) return take_counted(record);
  if (kind != 'D' || record.size() != 12) return false;
  const std::int64_t ticket = take_le<std::int64_t>(record);
  const auto worker = take_le<std::uint32_t>(record);
  const std::int64_t per_step = std::max(1, header_.logical_workers);
  if (ticket != header_.from * per_step + n_dealt_ || ticket / per_step + 1 > last_.value ||
      worker >= static_cast<std::uint32_t>(std::max(0, header_.workers)))
    return false;
  of_workers_[static_cast<int>(worker)].push_back(ticket);
  ++n_dealt_;
  return true;
}

bool RecordedTickets::take_counted(std::string_view record) {
  const auto step = take_le<std::int64_t>(record);
  if (step != last_.value + 1) return false;
  try {
    counted_[step] = CountedWorkers::from_bytes(record, header_.workers);
  } catch (const Error&) {
    return false;
  }
  last_ = Clock(step);
  return true;
}

const CountedWorkers* RecordedTickets::counted(Clock step) const {
  const auto found = counted_.find(step.value);
  return found == counted_.end() ? nullptr : &found->second;
}

namespace {

// Segments of this step that all servers have, of one start.
bool all_have(Fs& fs, const std::string& run_dir, const RecordHeader& tickets, Clock from) {
  if (tickets.rule.is_bsp()) return true;  // whose gradients made a step is all that there is
  for (ServerId s : IdRange<ServerId>(tickets.servers)) {
    const std::string dir = events_dir(run_dir, s);
    if (!fs.exists(segment_path(dir, from))) return false;
    try {
      if (read_header(fs, segment_path(dir, from)).start_id != tickets.start_id) return false;
    } catch (const Error&) {
      return false;
    }
  }
  return true;
}

}  // namespace

std::vector<Clock> replayable_steps(Fs& fs, const std::string& run_dir) {
  const std::vector<Clock> all = list_segments(fs, tickets_dir(run_dir));
  if (all.empty()) {
    fail(ErrorKind::checkpoint,
         "{} holds no record of a run to replay: only runs with cluster.record: true have one", run_dir);
  }
  std::vector<Clock> steps;
  for (const Clock from : all) {
    try {
      const RecordedTickets tickets(fs, run_dir, from);
      if (tickets.last() > from && all_have(fs, run_dir, tickets.header(), from)) steps.push_back(from);
    } catch (const Error&) {
      continue;  // it was being made when the run ended
    }
  }
  return steps;
}

RecordedRun recorded_run(Fs& fs, const std::string& run_dir, Clock from) {
  const RecordedTickets tickets(fs, run_dir, from);
  RecordedRun run{run_dir, tickets.header(), from, tickets.last(), {}, {}};
  if (!tickets.why_ended().empty()) run.warnings.push_back(tickets.why_ended());
  if (run.header.rule.is_bsp()) return run;
  for (ServerId s : IdRange<ServerId>(run.header.servers)) {
    SegmentChain chain(fs, events_dir(run_dir, s), from);
    for (std::string record; chain.next(record);) continue;
    if (!chain.why_ended().empty()) run.warnings.push_back(chain.why_ended());
  }
  for (const Clock step : list_segments(fs, events_dir(run_dir, ServerId(0)))) {
    if (step > from && all_have(fs, run_dir, run.header, step)) run.compared.insert(step.value);
  }
  return run;
}

}  // namespace varscope
