#include "tests/support/jobs/trainer_job.h"

#include <mutex>

#include "common/config/yaml_reader.h"
#include "common/transport/loopback_transport.h"
#include "launch/job/job_setup.h"
#include "launch/job/step_rules.h"
#include "ps/server_rank.h"
#include "tests/support/jobs/run_ranks.h"
#include "worker/data/batch_source.h"
#include "worker/data/order.h"
#include "worker/train/trainer.h"

namespace varscope::testing {
namespace {

// What all ranks know.
struct Plans {
  JobConfig job;
  ClusterMap cluster;
  ModelFacts facts;
  StepRule rule;
  BucketPlan buckets;
  RowPlan rows;
  CoordinatorState state;
  TrainPlan train;
};

std::unique_ptr<WorkerModel> model_of(const JobConfig& job) {
  return load_worker_model(job, LayerRegistry::built_in());
}

Plans plans_of(const std::string& config, int n_workers) {
  Plans p;
  p.job = parse_job(read_yaml_text(config, "job.yaml"), "job.yaml");
  const int n_servers = static_cast<int>(p.job.cluster.servers);
  p.cluster = assign_roles(std::vector<std::string>(static_cast<std::size_t>(n_servers + n_workers), "host"),
                           n_servers, static_cast<int>(p.job.cluster.logical_workers));
  const auto model = model_of(p.job);
  p.facts = {.table = model->table,
             .train_samples = model->train->size(),
             .test_samples = model->test ? model->test->size() : 0,
             .evaluation = model->model.evaluation_spec()};
  p.rule = step_rule_of(p.job, carries_state(*model));
  p.buckets = BucketPlan::make(p.facts.table, n_servers, chunk_rule(p.rule));
  p.rows = RowPlan::make(p.facts.table, n_servers);
  p.train = make_train_plan(p.job, p.facts, nullptr, p.state);
  return p;
}

class JobServer : private RunObserver {
 public:
  JobServer(Transport& transport, const Plans& p, ServerId id, TrainerJobResult& result) : result_(result) {
    ServerRank::Parts parts{.transport = transport,
                            .cluster = p.cluster,
                            .variables = p.facts.table,
                            .plan = p.buckets,
                            .id = id,
                            .optimizer = p.job.optimizer,
                            .fill = [](ParameterShard& shard, TableShards&) { shard.initialize(1); },
                            .start_id = "job",
                            .rows = &p.rows,
                            .rule = p.rule,
                            .flush = p.train.flush};
    if (id == ServerId(0)) {
      parts.control.emplace(ServerRank::Control{p.train, *this, p.state, p.facts.evaluation});
      parts.control->on_nan = p.job.train.on_nan;
      parts.control->samples = [&p](Clock clock, WorkerId worker) {
        const std::int64_t n = batch_at(clock.value - 1, p.facts.train_samples, p.job.train.batch).size();
        return logical_range(0, n, worker.value, p.cluster.n_workers()).size();
      };
    }
    server_.emplace(parts);
  }
  void run() { server_->run(); }

 private:
  void on_step(const StepSummary& s) override { result_.steps.push_back(s); }
  void on_epoch(const EpochSummary& e) override { result_.epochs.push_back(e); }
  void on_eval(const EvalSummary& e) override { result_.evaluations.push_back(e); }
  void on_note(const std::string& what) override { result_.notes.push_back(what); }
  void on_finish(const FinishSummary& f) override {
    result_.finish = f;
    result_.hash = f.values_hash.hex();
  }

  TrainerJobResult& result_;
  std::optional<ServerRank> server_;
};

void train_as(const Plans& p, WorkerId id, Transport& transport, LoopbackHub& hub) {
  const auto model = model_of(p.job);
  const LocalSumPlan sums = p.rule.is_bsp()
                                ? LocalSumPlan::make(p.cluster.leaves_of(id), p.cluster.logical_workers)
                                : ticket_sum_plan(p.rule, p.cluster, id);
  VariableMemory memory(p.facts.table, sums.n_buffers, static_cast<int>(1 + p.rule.delay));
  PsClient client(transport, p.cluster, p.buckets, p.rows, id, memory, {.rule = p.rule});
  IndexedBatches samples(*model->train, {.batch = p.job.train.batch,
                                         .n_parts = p.cluster.logical_workers,
                                         .seed = static_cast<std::uint64_t>(p.job.job.seed),
                                         .shuffle = p.job.train.shuffle ? Shuffle::yes : Shuffle::no});
  Trainer::Parts parts{p.job,
                       p.cluster,
                       model->model,
                       model->evaluation ? &*model->evaluation : nullptr,
                       model->variables,
                       samples,
                       model->test.get(),
                       client,
                       memory,
                       sums,
                       p.train.first,
                       p.train.last};
  parts.flush = p.train.flush;
  parts.rule = p.rule;
  Trainer trainer(parts);
  const AbortOnFailure guard(hub);
  trainer.run();
}

}  // namespace

TrainerJobResult run_trainers(const std::string& config, int n_workers) {
  const Plans plans = plans_of(config, n_workers);
  const int n_ranks = plans.cluster.n_servers() + n_workers;
  LoopbackHub hub(n_ranks);
  TrainerJobResult result;
  std::mutex mutex;
  result.error = run_ranks(hub, n_ranks, [&](Rank rank) {
    const auto transport = hub.endpoint(rank);
    const auto server = plans.cluster.server_at(rank);
    if (server) {
      JobServer job(*transport, plans, *server, result);
      const AbortOnFailure guard(hub);
      job.run();
    } else {
      train_as(plans, *plans.cluster.worker_at(rank), *transport, hub);
    }
    const std::lock_guard lock(mutex);
    (server ? result.bytes_down : result.bytes_up) += transport->stats().bytes_sent;
  });
  return result;
}

}  // namespace varscope::testing
