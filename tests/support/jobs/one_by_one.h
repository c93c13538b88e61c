#pragma once

#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/transport/loopback_transport.h"
#include "common/transport/push_details.h"
#include "common/transport/wire.h"
#include "common/transport/wire_codec.h"
#include "ps/push_steps.h"
#include "tests/support/references/plan_checks.h"

namespace varscope::testing {

// A server of SSP or ASP and its workers, each with one leaf, by hand: one thread, and one float64 variable
// in one chunk, 0 at first.
class OneByOne {
 public:
  OneByOne(StepRule rule, int n_workers, const OptimizerConfig& optimizer = {})
      : cluster_(assign_roles(std::vector<std::string>(static_cast<std::size_t>(1 + n_workers), "a"), 1,
                              n_workers)),
        hub_(1 + n_workers),
        server_(hub_.endpoint(Rank(0))),
        optimizer_(optimizer),
        shard_(variables_, plan_, ServerId(0), optimizer_.slots()),
        watch_(plan_, shard_),
        steps_({.transport = *server_,
                .cluster = cluster_,
                .plan = plan_,
                .optimizer = optimizer_,
                .shard = shard_,
                .watch = watch_,
                .listener = listener_,
                .rule = rule}) {
    shard_.initialize(1);
    for (const Rank rank : cluster_.workers) workers_.push_back(hub_.endpoint(rank));
  }
  // The push of a step that has no samples, whose worker computes step `step` + 1 next.
  void push(int worker, std::int64_t step, std::int64_t held_after = 0) {
    announce(worker, step, {.next_step = step + 1, .held_after = held_after, .share = 0, .n_leaves = 1});
  }
  // The same with a gradient whose elements are all `g`, for such a share of the step; it is applied when
  // this returns. The worker has taken the values that answered its last push.
  void push_gradient(int worker, std::int64_t step, double g, double share) {
    announce(worker, step, {.next_step = step + 1, .share = share, .n_leaves = 1});
    const Bucket& bucket = plan_[BucketId(0)];
    const std::vector<double> gradient(static_cast<std::size_t>(bucket.n_elements), g);
    std::vector<double> values(gradient.size());
    Transport& end = end_of(worker);
    WireCodec codec(end);
    const ConstPiece sent{reinterpret_cast<const std::byte*>(gradient.data()),
                          gradient.size() * sizeof(double)};
    codec.send(Flow::gradients, Rank(0), bucket, 0, 0, std::span(&sent, 1));
    const Piece received{reinterpret_cast<std::byte*>(values.data()), values.size() * sizeof(double)};
    codec.receive(Flow::values, Rank(0), bucket, 0, 0, std::span(&received, 1));
    for (int n_due = 2; n_due > 0;) {
      std::vector<Completion> done;
      server_->poll_completions(done);
      for (const Completion& completion : done) steps_.on_completion(completion);
      done.clear();
      end.poll_completions(done);
      n_due -= static_cast<int>(done.size());
    }
  }
  // Answers that have come for a worker since the last call.
  std::vector<MessageHeader> answers(int worker) {
    std::vector<MessageHeader> all;
    for (Message m; end_of(worker).poll_message(m);) all.push_back(m.header);
    return all;
  }
  // The first element of the variable.
  double value() {
    double first = 0;
    std::memcpy(&first, shard_.value(BucketId(0)), sizeof first);
    return first;
  }
  PushSteps& steps() { return steps_; }
  StalenessReport report() const { return steps_.staleness(); }

 private:
  struct NoListener final : StepListener {
    void on_step_end(Clock, bool) override {}
  };
  Transport& end_of(int worker) { return *workers_[static_cast<std::size_t>(worker)]; }
  void announce(int worker, std::int64_t step, const PushDetails& details) {
    MessageHeader h = make_header(MessageType::push, worker, Clock(step));
    h.bucket = 0;
    h.leaf_begin = worker;
    h.sequence = ++sequence_[worker];
    h.n_bytes = details.share > 0 ? static_cast<std::uint64_t>(plan_[BucketId(0)].n_bytes()) : 0;
    steps_.on_push(WorkerId(worker), {cluster_.rank_of(WorkerId(worker)), h, std::string(bytes_of(details))});
  }

  VariableTable variables_{{make_spec("layer/weights", DType::float64, Shape{8, 2})}};
  BucketPlan plan_ = BucketPlan::make(variables_, 1, ChunkRule::whole_slices);
  ClusterMap cluster_;
  LoopbackHub hub_;
  std::unique_ptr<Transport> server_;
  std::vector<std::unique_ptr<Transport>> workers_;
  Optimizer optimizer_;
  ParameterShard shard_;
  FiniteWatch watch_;
  NoListener listener_;
  PushSteps steps_;
  std::map<int, std::int64_t> sequence_;
};

}  // namespace varscope::testing
