#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/transport/counted_workers.h"
#include "ps/record/segment_writer.h"

namespace varscope {

// Records what a server does with pushes and reads where each push is applied by itself: with it, and with
// what TicketRecord has, the run can be replayed (RecordedOrder). Cheap: two bytes an event, in memory until
// tick() or write(). One thread.
class StepRecord {
 public:
  // `parts.header.n_units` units. Throws Error(io).
  StepRecord(SegmentWriter::Parts parts, Clock first);
  ~StepRecord() { write(); }
  StepRecord(const StepRecord&) = delete;
  StepRecord& operator=(const StepRecord&) = delete;

  void applied(int unit, WorkerId worker);
  void flushed(int unit, WorkerId worker);
  void answered(int unit, WorkerId worker);
  void drained(int unit, WorkerId worker);
  // All units hold the steps up to `step`, and nothing of a later one. `hashes`: of their values. Ends the
  // segment; a second cut of one step says nothing new.
  void cut(Clock step, std::span<const std::uint64_t> hashes);
  // Call it often: writes what is older than a few milliseconds.
  void tick();
  void write();

 private:
  struct Unit {
    std::vector<std::uint16_t> events;  // not written yet
    std::vector<WorkerId> read_since;   // its last push
  };
  void add(int unit, RecordEvent event);

  std::vector<Unit> units_;
  SegmentWriter writer_;
  std::vector<int> changed_;  // units with events
  std::int64_t oldest_ns_ = 0;
};

// Records which steps were opened, and who was dealt what. Each is in the file before anybody is told, so
// that what servers record is never ahead of it. One thread.
class TicketRecord {
 public:
  // Throws Error(io).
  TicketRecord(SegmentWriter::Parts parts, Clock first) : writer_(std::move(parts), first) {}

  enum class Drained : std::uint8_t { no, yes };
  // All workers come together after it, or they do not.
  void opened(Clock step, Drained drained);
  // `ticket`: its number, (step - 1) * tickets of a step + index.
  void dealt(std::int64_t ticket, WorkerId worker);
  // With backup workers: whose gradients make the step. It is in the file before anybody is told.
  void counted(Clock step, const CountedWorkers& workers);
  // All of step `from` is over, and nothing of a later one is dealt.
  // `checkpoint_id`: of the save that was cut there.
  void begin(Clock from, const std::string& checkpoint_id);

 private:
  SegmentWriter writer_;
};

}  // namespace varscope
