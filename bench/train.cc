// Training speed of the 784-256-128-10 perceptron (batch 128, momentum) beside a loop of the same GEMM calls
// and nothing else, on the same ranks in the same run (docs/performance.md, P3). One server, the other ranks
// are workers. Then forward and backward of a convolutional network on one worker (bench/train_conv.h):
//   mpirun -n 2 --bind-to none train [--json FILE] [--trials N] [--steps N] [--conv-steps N]
// And of a recurrent language model without servers, in one process: train --lstm (bench/train_lstm.h).
#include <cblas.h>
#include <fmt/format.h>

#include <optional>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "bench/bench.h"
#include "bench/train_conv.h"
#include "bench/train_lstm.h"
#include "checkpoint/storage/atomic_file.h"
#include "common/base/figures.h"
#include "common/config/yaml_reader.h"
#include "common/placement/cluster.h"
#include "common/transport/mpi/mpi_job.h"
#include "launch/job/job_setup.h"
#include "ps/server_rank.h"
#include "worker/train/trainer.h"

namespace varscope::bench {
namespace {

constexpr const char* kJob = R"(
job: {name: bench}
data: {train: {type: digits, size: 28, samples: 12800}}
model:
  layers:
    - {type: dense, scope: hidden1, units: 256, activation: relu, initializer: fan_in_uniform}
    - {type: dense, scope: hidden2, units: 128, activation: relu, initializer: fan_in_uniform}
    - {type: dense, scope: output, units: 10, initializer: fan_in_uniform}
  loss: softmax_cross_entropy
optimizer: {type: momentum, learning_rate: 0.01, momentum: 0.9}
train: {batch: 128}
)";
constexpr int kWidths[] = {784, 256, 128, 10};

// What forward and backward ask of BLAS for one step of `batch` samples.
class GemmLoop {
 public:
  explicit GemmLoop(int batch) : batch_(batch) {
    for (int w : kWidths) {
      activations_.emplace_back(static_cast<std::size_t>(batch * w), 0.01F);
      gradients_.emplace_back(static_cast<std::size_t>(batch * w), 0.01F);
    }
    for (int i = 0; i < 3; ++i) {
      weights_.emplace_back(static_cast<std::size_t>(kWidths[i] * kWidths[i + 1]), 0.01F);
      weight_gradients_.push_back(weights_.back());
    }
  }
  void step() {
    for (std::size_t i = 0; i < 3; ++i) {
      gemm(CblasNoTrans, CblasNoTrans, batch_, kWidths[i + 1], kWidths[i], activations_[i], weights_[i],
           activations_[i + 1]);
    }
    for (std::size_t i = 3; i-- > 0;) {
      gemm(CblasTrans, CblasNoTrans, kWidths[i], kWidths[i + 1], batch_, activations_[i], gradients_[i + 1],
           weight_gradients_[i]);
      if (i > 0)
        gemm(CblasNoTrans, CblasTrans, batch_, kWidths[i], kWidths[i + 1], gradients_[i + 1], weights_[i],
             gradients_[i]);
    }
  }

 private:
  static void gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, const std::vector<float>& a,
                   const std::vector<float>& b, std::vector<float>& c) {
    cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, 1.0F, a.data(), ta == CblasNoTrans ? k : m, b.data(),
                tb == CblasNoTrans ? n : k, 0.0F, c.data(), n);
  }
  int batch_;
  std::vector<std::vector<float>> activations_, gradients_, weights_, weight_gradients_;
};

// Where the workers' time went, over the whole job.
class Times : public RunObserver {
 public:
  void on_finish(const FinishSummary& finish) override { times = finish.times; }
  WorkerTimes times;
};

// One training run; seconds from the first pull to the last value, as the worker sees them. On the server, 0.
double run_training(MpiJob& mpi, const JobConfig& job, const ClusterMap& cluster, WorkerModel& model,
                    int steps, WorkerTimes& times) {
  const auto transport = mpi.make_transport();
  const BucketPlan plan = BucketPlan::make(model.table, 1);
  const Clock last(steps);
  if (cluster.server_at(mpi.rank())) {
    Times observer;
    ServerRank server({.transport = *transport,
                       .cluster = cluster,
                       .variables = model.table,
                       .plan = plan,
                       .id = ServerId(0),
                       .optimizer = job.optimizer,
                       .fill = [](ParameterShard& shard, TableShards&) { shard.initialize(1); },
                       .start_id = "bench",
                       .control = ServerRank::Control{{Clock(0), last, 100}, observer},
                       .stall_timeout_s = 600});
    mpi.barrier();
    server.run();
    times = observer.times;
    return 0;
  }
  const WorkerId id = *cluster.worker_at(mpi.rank());
  const LocalSumPlan sums = LocalSumPlan::make(cluster.leaves_of(id), cluster.logical_workers);
  VariableMemory memory(model.table, sums.n_buffers);
  const RowPlan rows;
  PsClient client(*transport, cluster, plan, rows, id, memory, {600, {}});
  IndexedBatches samples(*model.train, {.batch = job.train.batch,
                                        .n_parts = cluster.logical_workers,
                                        .seed = static_cast<std::uint64_t>(job.job.seed),
                                        .shuffle = job.train.shuffle ? Shuffle::yes : Shuffle::no});
  Trainer trainer({job, cluster, model.model, nullptr, model.variables, samples, nullptr, client, memory,
                   sums, Clock(0), last});
  mpi.barrier();
  return seconds_of([&] { trainer.run(); });
}

void print_times(const WorkerTimes& times) {
  const std::int64_t all = times.compute_ns + times.communicate_ns + times.wait_ns + times.data_ns;
  fmt::print("workers' time: compute {} %, data {} %, communication {} %, waiting {} %\n",
             percent(times.compute_ns, all), percent(times.data_ns, all), percent(times.communicate_ns, all),
             percent(times.wait_ns, all));
}

struct PerceptronFigures {
  int workers;
  Spread samples_per_s, gemm_samples_per_s, ratio;
};

// Prints both figures, or ends the program when one is none, and writes them to json_file if that is not
// empty.
void report(const PerceptronFigures& p, const ConvFigures& c, const std::string& json_file) {
  const auto line = [](const std::string& what, const Spread& ours, const Spread& bare, const Spread& ratio) {
    require_positive(what, ours);
    require_positive("the same GEMM calls alone", bare);
    fmt::print("{}: {:.0f} samples/s; the same GEMM calls alone {:.0f}; ratio {:.2f} [{:.2f} .. {:.2f}]\n",
               what, ours.median, bare.median, ratio.median, ratio.min, ratio.max);
  };
  const auto json = [](const Spread& ours, const Spread& bare, const Spread& ratio) {
    return nlohmann::json{{"samples_per_s", ours.median},
                          {"gemm_samples_per_s", bare.median},
                          {"ratio", {{"median", ratio.median}, {"min", ratio.min}, {"max", ratio.max}}}};
  };
  line(fmt::format("{} worker(s), 1 server", p.workers), p.samples_per_s, p.gemm_samples_per_s, p.ratio);
  line("convolutions, 1 thread", c.samples_per_s, c.gemm_samples_per_s, c.ratio);
  if (json_file.empty()) return;
  nlohmann::json j = json(p.samples_per_s, p.gemm_samples_per_s, p.ratio);
  j["workers"] = p.workers;
  j["convolutions"] = json(c.samples_per_s, c.gemm_samples_per_s, c.ratio);
  PosixFs fs;
  write_named_file(fs, json_file, j.dump(2) + "\n");
}

int run(int argc, char** argv) {
  int trials = 5, steps = 600, conv_steps = 10;
  std::string json_file;
  CLI::App app("Training speed beside the same GEMM calls");
  app.add_option("--trials", trials, "Takes of each figure")->check(CLI::Range(1, 1000));
  app.add_option("--steps", steps, "Steps of a take")->check(CLI::Range(1, 1000000));
  app.add_option("--conv-steps", conv_steps, "Steps of a take of the convolutional network")
      ->check(CLI::Range(1, 1000000));
  app.add_option("--json", json_file, "Also write the figures to this file");
  bool lstm = false;
  app.add_flag("--lstm", lstm, "Measure the recurrent language model instead");
  CLI11_PARSE(app, argc, argv);
  if (lstm) {
    run_lstm(trials, json_file);
    return 0;
  }
  MpiJob mpi(&argc, &argv);
  openblas_set_num_threads(1);
  const JobConfig job = parse_job(read_yaml_text(kJob, "bench"), "bench");
  const ClusterMap cluster =
      assign_roles(std::vector<std::string>(static_cast<std::size_t>(mpi.size()), "host"), 1, 0);
  const auto model = load_worker_model(job, LayerRegistry::built_in());
  const bool works = cluster.worker_at(mpi.rank()).has_value();
  const int workers = cluster.n_workers(), batch = static_cast<int>(job.train.batch) / workers;
  GemmLoop gemm(batch);
  const auto ceiling = [&] {  // samples/s of this rank; all workers at once
    mpi.barrier();
    return works ? batch * steps / seconds_of([&] {
                     for (int i = 0; i < steps; ++i) gemm.step();
                   })
                 : 0.0;
  };
  std::vector<double> ours, bare, ratio;
  WorkerTimes times;
  for (int t = -1; t < trials; ++t) {
    const double before = ceiling();
    const double seconds = run_training(mpi, job, cluster, *model, steps, times);
    const double after = ceiling();
    if (t < 0 || !works) continue;
    ours.push_back(static_cast<double>(job.train.batch) * steps / seconds);
    bare.push_back((before + after) / 2 * workers);
    ratio.push_back(ours.back() / bare.back());
  }
  if (cluster.server_at(mpi.rank())) print_times(times);
  if (cluster.worker_at(mpi.rank()) == std::optional(WorkerId(0))) {
    report({workers, Spread::of(ours), Spread::of(bare), Spread::of(ratio)}, run_conv(trials, conv_steps),
           json_file);
  }
  mpi.barrier();
  return 0;
}

}  // namespace
}  // namespace varscope::bench

int main(int argc, char** argv) {
  return varscope::bench::run_main("train", varscope::bench::run, argc, argv);
}
