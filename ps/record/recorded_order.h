#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/transport/counted_workers.h"
#include "ps/record/record_files.h"

namespace varscope {

// The order in which a server of a recorded run did what it did, unit by unit. Reads ahead as far as one unit
// is ahead of another. One thread.
class RecordedOrder {
 public:
  struct Options {
    Clock from;
    std::set<std::int64_t> compared = {};  // cuts that all servers have recorded: RecordedRun
    ServerId server{0};
  };
  // Throws Error(data, io) when the first segment cannot be read.
  RecordedOrder(Fs& fs, const std::string& run_dir, Options options);
  const RecordHeader& header() const { return chain_.header(); }

  // What comes next of a unit; nothing when the record is over: then the order is free. Throws Error(io).
  std::optional<RecordEvent> next(int unit);
  // The next event is an answer: whether it is the one that the worker's next push was computed with. Others
  // were too old, or came before all came together; how many there are depends on when tickets were known.
  bool is_used(int unit);
  // Whether all come together before the worker's next ticket, as seen from here.
  bool ends_with_drain(int unit, WorkerId worker);
  // It has been done. REQUIRES: not a cut.
  void advance(int unit);
  // A cut has been reached, and the unit's values have this hash. Returns the cut's step, and, where the cut
  // can be compared and the hash is another one, what differs; else "". `what` names the unit.
  struct Cut {
    Clock step;
    std::string difference;
  };
  Cut pass_cut(int unit, std::uint64_t hash, std::string_view what);
  // Why the record ends before the end of its file; "" where it does not, or is not read so far.
  const std::string& why_ended() const { return chain_.why_ended(); }

 private:
  enum class SkipAnswers : std::uint8_t { no, yes };
  struct Unit {
    std::deque<std::uint16_t> events;
    std::int64_t n_done = 0;
    std::size_t n_cuts = 0;
  };
  struct CutRecord {
    Clock step;
    std::vector<std::uint64_t> hashes;
  };
  bool read();
  std::optional<RecordEvent::What> find(int unit, std::size_t begin, WorkerId worker, SkipAnswers skip);
  void read_events(std::string_view record);
  void read_cut(std::string_view record);

  Options options_;
  SegmentChain chain_;
  std::vector<Unit> units_;
  std::vector<CutRecord> cuts_;
};

// Who was dealt which ticket in a recorded run, and where the workers came together; with backup workers,
// whose gradients made which step. All of it is in memory.
// A value type.
class RecordedTickets {
 public:
  RecordedTickets() = default;
  // Throws Error(data, io) when the first segment cannot be read.
  RecordedTickets(Fs& fs, const std::string& run_dir, Clock from);

  const RecordHeader& header() const { return header_; }
  Clock last() const { return last_; }  // that was opened; `from` where none was
  bool is_drained(Clock step) const { return drained_.contains(step.value); }
  // The numbers of each worker's tickets, in their order; none where workers have tickets in place.
  const std::map<int, std::deque<std::int64_t>>& of_workers() const { return of_workers_; }
  std::int64_t n_dealt() const { return n_dealt_; }  // the first ones after `from`
  // With backup workers: whose gradients made the step; null where the record has none of it.
  const CountedWorkers* counted(Clock step) const;
  const std::string& why_ended() const { return why_ended_; }

 private:
  bool take(std::string_view record);
  bool take_counted(std::string_view record);

  RecordHeader header_;
  Clock last_{0};
  std::set<std::int64_t> drained_;
  std::map<int, std::deque<std::int64_t>> of_workers_;
  std::int64_t n_dealt_ = 0;
  std::map<std::int64_t, CountedWorkers> counted_;
  std::string why_ended_;
};

// What rank 0 finds out of a recorded run before it is replayed; the same on every rank. A value type.
struct RecordedRun {
  std::string dir;
  RecordHeader header;
  Clock from{0}, last{0};
  std::set<std::int64_t> compared;    // cuts that all servers have, after `from`
  std::vector<std::string> warnings;  // what is damaged

  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& dir& header& from.value& last.value;
    std::vector<std::int64_t> steps(compared.begin(), compared.end());
    ar& steps& warnings;
    compared = {steps.begin(), steps.end()};
  }
};
// The steps from which the run can be replayed, as far as its record goes: those that all its servers have
// segments of one start from, and that others follow. Throws Error(checkpoint) when there is no record.
std::vector<Clock> replayable_steps(Fs& fs, const std::string& run_dir);
// `from`: one of these.
RecordedRun recorded_run(Fs& fs, const std::string& run_dir, Clock from);

}  // namespace varscope
