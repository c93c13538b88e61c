#pragma once

#include <cstdint>
#include <string>

#include "common/base/types.h"
#include "common/placement/row_plan.h"
#include "common/transport/transport.h"

namespace varscope {

// The types of messages. Pushes, values and step messages have no body (their payload, if any, travels on a
// data tag); the others carry a Boost archive of the struct named in docs/wire_format.md.
enum class MessageType : std::uint16_t {
  push = 1,             // worker -> server: a gradient of `n_bytes` follows on the bucket's push tag
  value = 2,            // server -> worker: a value of `n_bytes` follows on the bucket's value tag
  pull = 3,             // worker -> server: send me the bucket as it is at `clock` or later
  ack = 4,              // server -> worker: the push of `clock` is applied (only for pushes that ask for it)
  heartbeat = 5,        // anyone who has been silent
  step_report = 6,      // worker -> coordinator: StepReport, the step `clock` has been pushed
  go = 7,               // coordinator -> worker: step `clock` may be pushed, with these flags
  eval_report = 8,      // worker -> coordinator: EvalReport
  finished = 9,         // worker -> coordinator: no more steps
  cut = 10,             // coordinator -> server: nobody trains; write a checkpoint of `clock`
  shard_report = 11,    // server -> coordinator: ShardOutcome
  hash_request = 12,    // coordinator -> server: hash your values
  hash_report = 13,     // server -> coordinator: HashReport
  shutdown = 14,        // coordinator -> everyone: leave
  norm_sums = 15,       // server -> server 0: sums of squares of its slices, raw doubles
  norm_scales = 16,     // server 0 -> server: what to multiply by, raw doubles
  request = 17,         // server -> coordinator: somebody asks for what the flags say
  finite_request = 18,  // coordinator -> server: what is not finite, once `clock` is applied
  finite_report = 19,   // server -> coordinator: FiniteReport; the first one unasked
  histograms = 20,      // server -> coordinator: HistogramReport, of `bucket` after step `clock`
  rows_wanted = 21,     // worker -> server: ids of rows follow on the table's tag; as they are at `clock`
  rows = 22,            // server -> worker: their values follow
  rows_push = 23,       // worker -> server: gradients of the rows asked for last; RowsPushLayout has the form
  save_base = 24,       // coordinator -> server: SaveBase, what the next save goes on from
  feed = 25,            // coordinator -> worker: FedFile, what the steps from `clock` on learn from
  // Where each push is applied by itself (docs/consistency.md):
  ticket_request = 26,  // worker -> coordinator: what shall I compute next? A go is the answer
  drained = 27,         // worker -> coordinator: all that I have pushed is applied, and I have no ticket
  cut_given_up = 28,    // coordinator -> server: do not hold up steps after `clock` for its cut any longer
  staleness = 29,       // server -> coordinator: StalenessReport, all here have step `clock`
  // With backup workers (docs/consistency.md):
  gradient_done =
      30,  // worker -> coordinator: I have my gradient of step `clock`, and have pushed nothing of it
};

const char* to_string(MessageType type);

// Flags of push and go.
inline constexpr std::uint32_t kFlagCut = 1;   // a checkpoint is cut after this step
inline constexpr std::uint32_t kFlagAck = 2;   // push: answer with ack instead of the value
inline constexpr std::uint32_t kFlagStop = 4;  // go: the last step; shutdown: ended early. See run_requests.h
inline constexpr std::uint32_t kFlagEnd = 8;   // go: this step is not trained: the one before was the last
// Flag of rows_wanted: these rows are only read; no push of them follows.
inline constexpr std::uint32_t kFlagRead = 16;
// Flags of the go that answers a ticket_request: no ticket, until all steps up to `clock` are over; and of
// the go that follows when they are.
inline constexpr std::uint32_t kFlagDrain = 32;
inline constexpr std::uint32_t kFlagDrained = 64;
// Flag of go, with backup workers: step `clock` may be computed. What counts of it, another go will say.
inline constexpr std::uint32_t kFlagBegin = 256;
// Flag of push: gradients come encoded, those of each leaf by themselves; of pull: values may.
inline constexpr std::uint32_t kFlagEncoded = 128;
// Flag of push, where each is applied by itself: what compression has kept back so far, before all come
// together. It is of no ticket; PushDetails has the share that its gradients had, 0 where nothing is left.
inline constexpr std::uint32_t kFlagFlush = 512;
// "Flags" of step_report and request: kRequestSave, kRequestStop (common/transport/run_requests.h).
// "Flags" of norm_sums and norm_scales: which norms.
inline constexpr std::uint32_t kNormsOfGradients = 1;  // before the update, for optimizer.clip
inline constexpr std::uint32_t kNormsOfValues = 2;     // after it, for constraints

inline constexpr std::uint32_t kMessageMagic = 0x4d435356;  // "VSCM"
inline constexpr std::uint16_t kWireVersion = 7;

// All MPI tags. Messages share one tag, so that those of one sender are never reordered. Data has a tag per
// bucket and direction, so that a receiver may take buckets in the order that suits it.
inline constexpr int kTagMessage = 1;
inline constexpr int kTagFirstData = 16;
constexpr DataTag push_tag(BucketId b) { return DataTag{kTagFirstData + 2 * b.value}; }
constexpr DataTag value_tag(BucketId b) { return DataTag{kTagFirstData + 2 * b.value + 1}; }

// Rows of tables come behind the buckets: ids, gradients, values.
constexpr DataTag row_ids_tag(int n_buckets, TableId t) {
  return {kTagFirstData + 2 * n_buckets + 3 * t.value};
}
constexpr DataTag row_gradients_tag(int n_buckets, TableId t) {
  return {kTagFirstData + 2 * n_buckets + 3 * t.value + 1};
}
constexpr DataTag row_values_tag(int n_buckets, TableId t) {
  return {kTagFirstData + 2 * n_buckets + 3 * t.value + 2};
}

// Fills in magic and version.
MessageHeader make_header(MessageType type, int sender, Clock clock);
inline MessageType type_of(const MessageHeader& h) { return static_cast<MessageType>(h.type); }
// Throws Error(protocol) on a wrong magic, version, type or body length.
void check_header(const MessageHeader& header, std::size_t n_body, Rank from);

}  // namespace varscope
