#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/ids.h"
#include "common/config/step_rule.h"
#include "common/placement/bucket_plan.h"
#include "common/placement/canonical_sum.h"
#include "common/placement/cluster.h"
#include "common/transport/compression_report.h"
#include "common/transport/counted_workers.h"
#include "common/transport/fed_file.h"
#include "common/transport/message_loop.h"
#include "common/transport/push_details.h"
#include "common/transport/transport.h"
#include "common/transport/wire_codec.h"
#include "worker/client/gradient_coder.h"
#include "worker/client/row_client.h"
#include "worker/client/variable_memory.h"

namespace varscope {

// A worker's side of push and pull. push() posts the sends from the gradients' own memory and the receives of
// the next value into the variables' own memory, and returns; wait() returns when a bucket's next value is
// there. Nothing is serialised or staged. Call progress() between ops: nothing moves otherwise. One thread;
// borrows everything. Throws Error(stall, protocol, mpi).
class PsClient final : private MessageHandler {
 public:
  struct Options {
    double stall_timeout_s = 60;
    std::vector<std::string> hosts = {};  // by rank; for messages
    double step_timeout_s = 1800;         // the longest wait for one thing, though all peers live
    StepRule rule = {};                   // with a delay d the memory has d + 1 sets
    Clock first{0};  // of the values that the run starts from; only where the rule is not BSP
  };
  PsClient(Transport& transport, const ClusterMap& cluster, const BucketPlan& plan, const RowPlan& rows,
           WorkerId worker, VariableMemory& memory, const Options& options);
  PsClient(const PsClient&) = delete;
  PsClient& operator=(const PsClient&) = delete;

  // Asks for every bucket's value at `clock` or later. Does not wait.
  void pull_all(Clock clock);
  // The same of what is pushed.
  void pull_pushed(Clock clock);
  // The same, all of it in full: where all workers have come together. Each does so once then: a run that is
  // replayed counts these reads.
  void pull_all_full(Clock clock);
  // Pushes one bucket's gradients of step `clock`: LocalSumPlan::contributions[i] from gradient buffer i.
  // REQUIRES ready(bucket), and all values of the step before (wait_all()): the server refuses a step that
  // begins before that one has ended in all its buckets. Neither its gradients nor its values may be touched
  // until it is ready again. With a delay d (StepRule) that is of step clock - 1 - d, and of the bucket's
  // gradients and values of the set that the clock has in the memory: pushes of d + 1 steps may be under way.
  // `body`: with backup workers a CountedPush.
  void push(BucketId bucket, Clock clock, std::uint32_t flags, std::string_view body = {});
  // The same of compressed gradients: those of each leaf, encoded, from the coder's memory. All workers push
  // a bucket's step in the same form.
  void push(BucketId bucket, Clock clock, std::uint32_t flags, const GradientCoder& coder,
            std::string_view body = {});
  // The same where each push is applied by itself: of a ticket of step `clock`, from gradient buffer 0. The
  // next values are received, or an ack (PushDetails::kNone). A push of no samples (share 0) sends none.
  // REQUIRES ready(bucket).
  void push(BucketId bucket, Clock clock, const PushOfTicket& ticket);
  // The same, with the gradients that the coder has encoded as its first leaf.
  void push(BucketId bucket, Clock clock, const PushOfTicket& ticket, const GradientCoder& coder);
  // What the coder has kept back of the bucket's gradients, before all come together after step `clock`; an
  // ack is the answer. Its memory may not be touched until the bucket is ready again. REQUIRES ready(bucket).
  void push_residual(BucketId bucket, Clock clock, const GradientCoder& coder);
  // Until what step `step` may be computed with is there; asks for it where the last answer is too old.
  void wait_for_step(BucketId bucket, Clock step);
  void wait_all_for_step(Clock step);
  // Where values come rounded (Compression::values): asks for those of `clock` in full; rounds them again.
  void pull_full(Clock clock);
  void round_values(Clock clock);
  // Polls once: takes what has arrived, hands on what can leave.
  void progress();
  bool ready(BucketId bucket) const;
  // Until the value is there and the gradients' memory is free again.
  void wait(BucketId bucket);
  // All buckets and all rows.
  void wait_all();
  // The same of the values after step `clock`, and of the gradients of that step; with a delay those of later
  // steps may be under way. Of rows there is one request at a time: all of them.
  void wait_version(BucketId bucket, Clock clock);
  void wait_all_of_version(Clock clock);
  // Rows of tables: what is asked for and pushed there is waited for here.
  RowClient& rows() { return rows_; }
  void wait_rows(TableId table);
  // The coordinator's flags for step `clock`: waits until it is let go.
  std::uint32_t wait_go(Clock clock);
  // With backup workers: the newest step that has been let go, by the go of it, or by that of the next one,
  // which says whether that is computed (kFlagBegin, kFlagEnd) and names nobody.
  struct StepGo {
    Clock step;
    std::uint32_t flags = 0;
    CountedWorkers counted = {};
  };
  const std::optional<StepGo>& newest_go() const { return step_go_; }
  // Waits until there is one of step `least`, or of a later one.
  const StepGo& wait_newest_go(Clock least);
  // Waits for the word whether step `next` is computed, or until it has been let go without this worker.
  const StepGo& wait_begin(Clock next);
  // Where tickets are dealt: asks for the next one; and the answer, or a later word, once it is there.
  void ask_for_ticket();
  std::optional<MessageHeader> take_go();
  MessageHeader wait_ticket();
  // Files of a directory that is followed, which have come since the last call, in their order.
  std::vector<FedFile> take_feeds() { return std::exchange(feeds_, {}); }
  // Waits, however long it takes, until a file has come or a step is let go.
  void wait_feed();
  // The go of the next step has come, and wait_go() will not wait.
  bool is_let_go() const { return !gos_.empty(); }
  void send_to_coordinator(MessageHeader header, const std::string& body);
  // Waits for the coordinator to end the job.
  void wait_shutdown();

  WorkerId worker() const { return worker_; }
  const BucketPlan& plan() const { return plan_; }
  // Nanoseconds spent waiting, and in posting and polling, since the last call.
  std::int64_t take_wait_ns() { return std::exchange(wait_ns_, 0); }
  std::int64_t take_communicate_ns() { return std::exchange(communicate_ns_, 0); }
  // Data of dense variables that were sent and have come, since the last call; no norms.
  CompressionReport take_traffic() { return std::exchange(traffic_, {}); }
  // Of the waiting, what servers held answers back for, until other workers had pushed (SSP).
  std::int64_t take_gate_ns() { return std::exchange(gate_ns_, 0); }

 private:
  struct State {
    bool is_ready() const { return sends == 0 && receives == 0 && !header_due; }
    int sends = 0;
    int receives = 0;
    bool header_due = false;
    bool ack_only = false;
    WireForm form = WireForm::full;  // of the values that are due
    Clock wanted;
    Clock holds;  // all steps up to this one are in the values here
  };
  // Of the values after step `clock`, and of the push that they answer.
  State& state_of(BucketId id, Clock clock) {
    return states_[id][static_cast<std::size_t>(memory_.set_of(clock))];
  }
  int& busy_of(Clock clock) { return n_busy_[static_cast<std::size_t>(memory_.set_of(clock))]; }
  // How a push's contributions are called in the keys of its sends: apart from those of other sets.
  int key_of(int contribution, Clock clock) const {
    return memory_.set_of(clock) * cluster_.logical_workers + contribution;
  }
  void post_value_receives(const Bucket& bucket, Clock wanted, WireForm form);
  void pull(const Bucket& bucket, Clock clock, Clock wanted, WireForm form, std::uint32_t flags = 0);
  MessageHeader begin_push(const Bucket& bucket, Clock clock, std::uint32_t flags);
  MessageHeader begin_push(const Bucket& bucket, Clock clock, const PushOfTicket& ticket);
  void send_header(const Bucket& bucket, MessageHeader header, std::string_view body, WireForm form, int n);
  void send_gradients(const Bucket& bucket, MessageHeader header, std::string_view body, int n);
  void take_step_go(const Message& message);
  void send_encoded(const Bucket& bucket, MessageHeader header, std::string_view body,
                    const GradientCoder& coder, int n_leaves);
  void note_gate(const MessageHeader& answer);
  void on_message(const Message& message) override;
  void on_completion(const Completion& completion) override;
  template <class Done>
  void wait_until(const char* doing, Done done);
  template <class Done>
  void wait_until(const char* doing, double limit_s, Done done);
  template <class Done>
  void wait_for_answers(const char* doing, Done done);
  std::string missing_text() const;

  Transport& transport_;
  const ClusterMap& cluster_;
  const BucketPlan& plan_;
  WorkerId worker_;
  VariableMemory& memory_;
  WireCodec codec_;
  RowClient rows_;
  double step_timeout_s_;
  StepRule rule_;
  Clock first_;
  std::vector<TreeNode> contributions_;
  MessageLoop loop_;
  IdVector<BucketId, std::vector<State>> states_;  // by set of the memory
  std::vector<int> n_busy_;                        // by set: buckets that are not ready
  IdVector<ServerId, std::int64_t> sequence_;      // of the last push
  std::deque<MessageHeader> gos_;
  std::optional<StepGo> step_go_;  // with backup workers, in its place
  std::vector<FedFile> feeds_;
  bool shutdown_ = false;
  std::vector<Piece> value_pieces_;
  std::vector<ConstPiece> gradient_pieces_;
  std::int64_t wait_ns_ = 0;
  std::int64_t communicate_ns_ = 0;
  std::int64_t gate_ns_ = 0;
  CompressionReport traffic_;
  std::int64_t longest_gate_ns_ = 0;  // of the answers that have come in the wait under way
};

}  // namespace varscope
