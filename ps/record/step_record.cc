#include "ps/record/step_record.h"

#include <utility>

#include "common/base/clock.h"
#include "common/files/little_endian.h"

namespace varscope {
namespace {

constexpr std::int64_t kOldest_ns = 10'000'000;

}  // namespace

StepRecord::StepRecord(SegmentWriter::Parts parts, Clock first)
    : units_(static_cast<std::size_t>(parts.header.n_units)), writer_(std::move(parts), first) {}

void StepRecord::add(int unit, RecordEvent event) {
  std::vector<std::uint16_t>& events = units_[static_cast<std::size_t>(unit)].events;
  if (events.empty()) {
    if (changed_.empty()) oldest_ns_ = now_ns();
    changed_.push_back(unit);
  }
  events.push_back(event.encoded());
}

void StepRecord::applied(int unit, WorkerId worker) {
  add(unit, {RecordEvent::What::applied, worker});
  units_[static_cast<std::size_t>(unit)].read_since.clear();
}

void StepRecord::flushed(int unit, WorkerId worker) { add(unit, {RecordEvent::What::flushed, worker}); }

void StepRecord::answered(int unit, WorkerId worker) { add(unit, {RecordEvent::What::answered, worker}); }

void StepRecord::drained(int unit, WorkerId worker) {
  add(unit, {RecordEvent::What::drained, worker});
  units_[static_cast<std::size_t>(unit)].read_since.push_back(worker);
}

void StepRecord::cut(Clock step, std::span<const std::uint64_t> hashes) {
  if (step <= writer_.from()) return;
  write();
  std::string record = "C";
  put_le(record, step.value);
  for (const std::uint64_t hash : hashes) put_le(record, hash);
  writer_.append(record);
  writer_.begin(step);
  for (std::size_t unit = 0; unit < units_.size(); ++unit) {
    for (const WorkerId worker : units_[unit].read_since)
      add(static_cast<int>(unit), {RecordEvent::What::redrained, worker});
  }
  write();
}

void StepRecord::tick() {
  if (!changed_.empty() && now_ns() - oldest_ns_ >= kOldest_ns) write();
}

void StepRecord::write() {
  if (changed_.empty()) return;
  std::string record = "E";
  for (const int unit : std::exchange(changed_, {})) {
    std::vector<std::uint16_t>& events = units_[static_cast<std::size_t>(unit)].events;
    put_le(record, static_cast<std::uint32_t>(unit));
    put_le(record, static_cast<std::uint32_t>(events.size()));
    for (const std::uint16_t event : events) put_le(record, event);
    events.clear();
  }
  writer_.append(record);
  writer_.write();
}

void TicketRecord::opened(Clock step, Drained drained) {
  std::string record = "O";
  put_le(record, step.value);
  put_le(record, static_cast<std::uint8_t>(drained));
  writer_.append(record);
  writer_.write();
}

void TicketRecord::dealt(std::int64_t ticket, WorkerId worker) {
  std::string record = "D";
  put_le(record, ticket);
  put_le(record, static_cast<std::uint32_t>(worker.value));
  writer_.append(record);
  writer_.write();
}

void TicketRecord::counted(Clock step, const CountedWorkers& workers) {
  std::string record = "M";
  put_le(record, step.value);
  writer_.append(record + workers.to_bytes());
  writer_.write();
}

void TicketRecord::begin(Clock from, const std::string& checkpoint_id) {
  if (from > writer_.from()) writer_.begin(from, checkpoint_id);
}

}  // namespace varscope
