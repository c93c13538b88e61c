// PushSteps where a recorded run is replayed: what a unit does, it does in the recorded order.
#include <algorithm>
#include <cstring>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "ps/push_steps.h"

namespace varscope {
namespace {

std::uint64_t start_of(const Digest& digest) {
  std::uint64_t hash = 0;
  std::memcpy(&hash, digest.bytes.data(), sizeof hash);
  return hash;
}

}  // namespace

std::uint64_t PushSteps::hash_of(const Bucket& bucket, int chunk) const {
  const WireChunk part = bucket.wire_chunk(chunk);
  return start_of(
      digest_of(std::span(shard_.value(bucket.id) + part.begin, static_cast<std::size_t>(part.n_bytes))));
}

// Of a table that has no parts here too.
std::uint64_t PushSteps::hash_of(TableId id) const {
  if (!rows_ || !rows_->is_pushed(id)) return 0;
  HashReport report;
  (*parts_.tables)[id]->add_hashes(report);
  Digester digester;
  for (const auto& entry : report.entries) digester.update(std::as_bytes(std::span(entry.digest.bytes)));
  return start_of(digester.finish());
}

void PushSteps::pass_cut(Unit& state, int unit, std::uint64_t hash, const std::string& what) {
  const RecordedOrder::Cut cut = parts_.replay->pass_cut(unit, hash, what);
  if (!cut.difference.empty()) {
    fail(ErrorKind::data,
         "{}; the program, its libraries and the kind of processor must be those of the "
         "recorded run, and so must all files that it read",
         cut.difference);
  }
  state.applied = static_cast<double>(cut.step.value);  // as on_cut() has done
}

// A chunk of a push has come.
void PushSteps::play_early(const Bucket& bucket, int chunk, WorkerId worker, std::byte* gradient) {
  turns_[static_cast<std::size_t>(units_.of(bucket.id, chunk))].early.emplace(worker, gradient);
  play(bucket, chunk);
}

void PushSteps::apply_early(const Bucket& bucket, int chunk, WorkerId worker) {
  Turn& turn = turns_[static_cast<std::size_t>(units_.of(bucket.id, chunk))];
  const auto found = turn.early.find(worker);
  std::byte* const gradient = found->second;
  turn.early.erase(found);
  apply(bucket, worker, chunk, gradient);
  if (gradient != nullptr) receiver_.release({worker, bucket.id, chunk, gradient});
  end_chunk(bucket, worker);
}

// Does what the unit's turn is, as far as that can be. A value is copied when it is its turn, whether its
// worker has asked for it or not: who asks when, and how often, depends on when tickets are known, and nobody
// may wait for that. So what could go on in the recorded run can go on here: docs/consistency.md.
void PushSteps::play(const Bucket& bucket, int chunk) {
  const int unit = units_.of(bucket.id, chunk);
  Turn& turn = turns_[static_cast<std::size_t>(unit)];
  BucketState& state = buckets_[bucket.id];
  Unit& counts = state.units[static_cast<std::size_t>(chunk)];
  while (const auto event = parts_.replay->next(unit)) {
    switch (event->what) {
      case RecordEvent::What::cut:
        pass_cut(counts, unit, hash_of(bucket, chunk),
                 fmt::format("bucket {} ({}), chunk {}", bucket.id.value, bucket.scope, chunk));
        break;
      case RecordEvent::What::applied:
        if (!turn.early.contains(event->worker)) return;
        parts_.replay->advance(unit);
        turn.answers[event->worker].ends_with_drain = parts_.replay->ends_with_drain(unit, event->worker);
        apply_early(bucket, chunk, event->worker);
        break;
      case RecordEvent::What::flushed:
        if (!turn.early.contains(event->worker)) return;
        parts_.replay->advance(unit);
        apply_early(bucket, chunk, event->worker);
        break;
      default:
        copy_for(bucket, chunk, *event);
    }
  }
  while (!turn.early.empty()) {
    const WorkerId worker = turn.early.begin()->first;
    turn.answers[worker].ends_with_drain = false;
    apply_early(bucket, chunk, worker);
  }
  for (WorkerId w : state.streams.ids()) answer(bucket, w);
}

// The worker may not have asked yet.
void PushSteps::copy_for(const Bucket& bucket, int chunk, const RecordEvent& event) {
  const int unit = units_.of(bucket.id, chunk);
  const bool is_drained = event.what == RecordEvent::What::drained;
  BucketState& state = buckets_[bucket.id];
  const auto at = static_cast<std::size_t>(chunk);
  if (is_drained || parts_.replay->is_used(unit)) {
    Turn::Answers& answers = turns_[static_cast<std::size_t>(unit)].answers[event.worker];
    (is_drained ? answers.drained : answers.answered)
        .push_back({answers_.copy(bucket.id, chunk, shard_.value(bucket.id)), state.units[at].tickets.low()});
    state.streams[event.worker].read_at[at] = state.units[at].pushes;
  }
  parts_.replay->advance(unit);
  answer(bucket, event.worker);
}

// Where the record is over, what comes is answered as it comes.
PushSteps::Answer PushSteps::answer_in_order(const Bucket& bucket, int chunk, WorkerId worker) {
  if (!bucket.is_pushed()) return Answer::free;
  Stream& stream = buckets_[bucket.id].streams[worker];
  const auto at = static_cast<std::size_t>(chunk);
  if (stream.is_pushing && !stream.applied[at]) return Answer::due;
  const int unit = units_.of(bucket.id, chunk);
  Turn::Answers& answers = turns_[static_cast<std::size_t>(unit)].answers[worker];
  if (stream.reads_for == Reads::push && answers.ends_with_drain) {
    const Clock holds = buckets_[bucket.id].units[at].tickets.low();
    stream.seen = chunk == 0 ? holds : std::min(stream.seen, holds);
    answers_.send(worker, bucket.id, chunk, answers_.copy(bucket.id, chunk, shard_.value(bucket.id)),
                  stream.form);
    return Answer::sent;
  }
  std::deque<Copy>& copies = stream.reads_for == Reads::drained ? answers.drained : answers.answered;
  if (copies.empty()) return parts_.replay->next(unit) ? Answer::due : Answer::free;
  stream.seen = chunk == 0 ? copies.front().holds : std::min(stream.seen, copies.front().holds);
  answers_.send(worker, bucket.id, chunk, std::move(copies.front().values), stream.form);
  copies.pop_front();
  return Answer::sent;
}

// Rows are read when they are asked for: what the recorded run asked for before, is asked for here, too.
void PushSteps::play_rows(TableId id) {
  if (!rows_->is_pushed(id)) return;
  const int unit = units_.of(id);
  Turn& turn = turns_[static_cast<std::size_t>(unit)];
  const auto apply_one = [&](WorkerId worker) {
    turn.early.erase(worker);
    apply_rows(id, worker);
  };
  while (const auto event = parts_.replay->next(unit)) {
    switch (event->what) {
      case RecordEvent::What::cut:
        pass_cut(tables_[id], unit, hash_of(id), fmt::format("table \"{}\"", rows_->plan()[id].name));
        break;
      case RecordEvent::What::applied:
        if (!turn.early.contains(event->worker)) return;
        parts_.replay->advance(unit);
        apply_one(event->worker);
        break;
      default:
        if (!rows_->answer(id, event->worker)) return;
    }
  }
  while (!turn.early.empty()) apply_one(turn.early.begin()->first);
  for (WorkerId w : row_tickets_[id].ids()) rows_->answer(id, w);
}

}  // namespace varscope
