// Everything that a run's future depends on is in its checkpoint. Each optimizer, schedule, way of clipping,
// layer and data source that the program knows (the lists are taken from the program, so that a new one must
// be given a row here) is trained for some steps without and with an interruption; the checkpoints of the
// last step must be equal in everything: values, slots, the workers' states, the coordinator's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <set>

#include "checkpoint/directory/scan.h"
#include "common/base/record_file.h"
#include "launch/commands/train.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/references/example_writer.h"
#include "tests/support/references/numpy_files.h"

namespace varscope {
namespace {

using testing::TempDir;

constexpr int kSteps = 8, kFirst = 4;  // 3 steps are an epoch: both in the middle of one

struct Job {
  std::string layers = "    - {type: dense, units: 6, activation: tanh}\n";
  std::string output = "    - {type: dense, units: 10}\n";
  std::string rest = "optimizer: {type: momentum, learning_rate: 0.05}\n";
  std::string data = "{type: digits, samples: 120, size: 8}";
  std::string loss = "softmax_cross_entropy";
  std::string cluster = "";
};

std::string yaml_of(const Job& job, const std::string& run_dir) {
  return "job: {name: exact, run_dir: " + run_dir + "}\ncluster: {logical_workers: 2" + job.cluster +
         "}\ndata:\n  train: " + job.data + "\nmodel:\n  layers:\n" + job.layers + job.output +
         "  loss: " + job.loss + "\n" + job.rest +
         "train: {epochs: 9, batch: 40}\noutput: {metrics: false, progress: off}\n";
}

void train(const Job& job, const std::string& run_dir, int steps, bool resume, const LayerRegistry& layers,
           const std::vector<std::string>& overrides, Fs& fs) {
  const std::string config = run_dir + ".yaml";
  testing::spit(config, yaml_of(job, run_dir));
  TrainOptions options;
  options.config = config;
  options.overrides = overrides;
  options.overrides.push_back("train.max_steps=" + std::to_string(steps));
  options.resume = resume;
  ::testing::internal::CaptureStdout();  // what a run prints is not of interest here
  try {
    train_in_one_process(options, layers, fs);
  } catch (const Error&) {
    ::testing::internal::GetCapturedStdout();
    throw;
  }
  ::testing::internal::GetCapturedStdout();
}

void train(const Job& job, const std::string& run_dir, int steps, bool resume, const LayerRegistry& layers) {
  PosixFs fs;
  train(job, run_dir, steps, resume, layers, {}, fs);
}

Manifest manifest_of(const std::string& run_dir, int step) {
  PosixFs fs;
  return load_manifest(fs, run_dir + "/checkpoints/" + step_name(step)).manifest;
}

// All that a checkpoint holds, as text: by what it is, a digest or the text itself.
std::map<std::string, std::string> contents(const Manifest& m) {
  std::map<std::string, std::string> all;
  for (const TensorRecord& t : m.tensors) all[tensor_name(t.variable, t.slot, t.slice)] = t.digest.hex();
  for (const FileRecord& f : m.files) {
    if (server_of_shard(f.name) < 0) all[f.name] = f.digest.hex();  // a shard's header names the save
  }
  all["the coordinator's state"] = m.coordinator_state;
  all["the variables"] = m.variables.digest().hex();
  all["the optimizer"] = m.optimizer;
  return all;
}

// What differs between a run of kSteps steps and one that was interrupted after kFirst.
std::vector<std::string> differences(const Job& job,
                                     const LayerRegistry& layers = LayerRegistry::built_in()) {
  const TempDir dir;
  train(job, dir / "whole", kSteps, false, layers);
  train(job, dir / "parts", kFirst, false, layers);
  const auto early = contents(manifest_of(dir / "parts", kFirst));
  train(job, dir / "parts", kSteps, true, layers);
  const auto whole = contents(manifest_of(dir / "whole", kSteps)),
             parts = contents(manifest_of(dir / "parts", kSteps));
  EXPECT_NE(early, whole) << "training has changed nothing";
  std::vector<std::string> names;
  for (const auto& [name, text] : whole) {
    const auto it = parts.find(name);
    if (it == parts.end() || it->second != text) names.push_back(name);
  }
  EXPECT_EQ(whole.size(), parts.size());
  return names;
}

void expect_exact(const Job& job) { EXPECT_THAT(differences(job), ::testing::IsEmpty()); }

// Every name that the program knows has a row, and every row a name.
template <class Rows>
void expect_rows_for(const std::set<std::string>& names, const Rows& rows) {
  for (const std::string& name : names)
    EXPECT_TRUE(rows.contains(name)) << "no row here shows that \"" << name << "\" resumes exactly: add one";
  for (const auto& [name, row] : rows) EXPECT_TRUE(names.contains(name)) << name << " is known no more";
}

template <class Choices>
std::set<std::string> names_of(const Choices& choices) {
  std::set<std::string> names;
  for (const auto& c : choices) names.emplace(c.name);
  return names;
}

TEST(ExactState, OfEveryOptimizer) {
  for (const std::string& name : names_of(kOptimizerTypes)) {
    SCOPED_TRACE(name);
    Job job;
    job.rest = "optimizer: {type: " + name + ", learning_rate: 0.02, weight_decay: 0.01}\n";
    expect_exact(job);
  }
}

TEST(ExactState, OfEverySchedule) {
  const std::map<std::string, std::string> rows = {{"constant", "warmup_steps: 6"},
                                                   {"step", "every_steps: 3, factor: 0.5"},
                                                   {"piecewise", "boundaries: [2, 6], factors: [0.5, 0.1]"},
                                                   {"exponential", "decay_steps: 3, rate: 0.7"},
                                                   {"polynomial", "decay_steps: 10"},
                                                   {"cosine", "decay_steps: 10, warmup_steps: 5"}};
  expect_rows_for(names_of(kScheduleTypes), rows);
  for (const auto& [name, keys] : rows) {
    SCOPED_TRACE(name);
    Job job;
    job.rest = "optimizer: {type: adam, learning_rate: 0.02, schedule: {type: " + name + ", " + keys + "}}\n";
    expect_exact(job);
  }
}

TEST(ExactState, OfEveryWayOfClipping) {
  const std::map<std::string, std::string> rows = {
      {"none", ""}, {"value", ", limit: 0.01"}, {"norm", ", limit: 0.05"}, {"global_norm", ", limit: 0.1"}};
  expect_rows_for(names_of(kClipTypes), rows);
  for (const auto& [name, keys] : rows) {
    SCOPED_TRACE(name);
    Job job;
    job.rest = "optimizer: {type: momentum, clip: {type: " + name + keys + "}}\n";
    expect_exact(job);
  }
}

void write_text_file(const std::string& path) {
  std::mt19937 random(3);
  std::string text;
  for (int i = 0; i < 1500; ++i) text += "w" + std::to_string(random() % 30) + " ";
  testing::spit(path, text);
}

// 120 words or so a stream: 40 streams, samples of 4 words.
Job text_job(const std::string& file, const std::string& layers) {
  return {"    - {type: embedding, vocabulary: 40, units: 5}\n" + layers,
          "    - {type: dense, units: 40, each_step: true}\n",
          "optimizer: {type: adam, learning_rate: 0.02}\n",
          "{type: text, file: " + file + ", vocabulary: 40, steps: 4, test_fraction: 0}"};
}

Job one_hot_job(const std::string& file) {
  Job job = text_job(file, "");
  job.layers = "    - {type: one_hot, depth: 40}\n";
  return job;
}

// The values of steps before that of the checkpoint are in none.
TEST(ExactState, OfEveryDelay) {
  const TempDir dir;
  const std::string text = dir / "text";
  write_text_file(text);
  for (const char* delay : {"1", "2"}) {
    SCOPED_TRACE(delay);
    Job job;
    const std::string keys =
        std::string(", delay: ") + delay + ", drain_every_steps: " + std::to_string(kFirst);
    job.cluster = keys;
    expect_exact(job);
    job.layers = "    - {type: dense, units: 6, activation: tanh}\n    - {type: batch_norm, momentum: 0.8}\n";
    job.rest = "optimizer: {type: adam, learning_rate: 0.02, clip: {type: global_norm, limit: 0.1}}\n";
    expect_exact(job);
    job = text_job(text, "    - {type: lstm, units: 5}\n");
    job.cluster = keys;
    expect_exact(job);
  }
}

TEST(ExactState, OfEveryLayer) {
  const TempDir dir;
  const std::string text = dir / "text";
  write_text_file(text);
  const auto of_images = [](const char* layers) { return Job{layers}; };
  std::map<std::string, Job> rows = {
      {"dense", of_images("    - {type: dense, units: 6, activation: gelu}\n")},
      {"activation", of_images("    - {type: dense, units: 6}\n    - {type: activation, kind: softplus}\n")},
      {"flatten", of_images("    - {type: flatten}\n")},
      {"reshape", of_images("    - {type: reshape, shape: [4, 16]}\n")},
      {"take", of_images("    - {type: take, index: 3}\n")},
      {"concat",
       of_images("    - {type: dense, name: a, units: 4}\n    - {type: flatten, name: b, input: x}\n"
                 "    - {type: concat, inputs: [a, b]}\n")},
      {"softmax", of_images("    - {type: dense, units: 6}\n    - {type: softmax}\n")},
      {"cast", of_images("    - {type: cast, dtype: float32}\n")},
      {"conv2d", of_images("    - {type: conv2d, filters: 3, kernel: [3]}\n")},
      {"max_pool2d", of_images("    - {type: max_pool2d}\n")},
      {"average_pool2d", of_images("    - {type: average_pool2d}\n")},
      {"dropout", of_images("    - {type: dense, units: 9}\n    - {type: dropout, rate: 0.4}\n")},
      {"batch_norm", of_images("    - {type: dense, units: 6}\n    - {type: batch_norm, momentum: 0.7}\n")},
      {"layer_norm", of_images("    - {type: dense, units: 6}\n    - {type: layer_norm}\n")},
      {"global_average_pool2d",
       of_images("    - {type: conv2d, filters: 3, kernel: [3]}\n    - {type: global_average_pool2d}\n")},
      {"cross", of_images("    - {type: cross, name: a}\n    - {type: cross, rank: 3, inputs: [x, a]}\n")},
      {"factorization_machine",
       of_images("    - {type: flatten}\n    - {type: factorization_machine, factors: 4}\n")},
      {"one_hot", one_hot_job(text)},
      {"embedding", text_job(text, "")},
      {"lstm", text_job(text, "    - {type: lstm, units: 5}\n")},
      {"gru",
       text_job(text, "    - {type: gru, units: 5}\n    - {type: gru, units: 4, reset_after: true}\n")},
  };
  for (const char* name : {"add", "subtract", "multiply", "absolute_difference", "dot"}) {
    rows[name] = of_images(
        "    - {type: dense, name: a, units: 4}\n    - {type: dense, name: b, input: x, units: 4}\n");
    rows[name].layers += std::string("    - {type: ") + name + ", inputs: [a, b]}\n";
  }
  std::set<std::string> names;
  const LayerRegistry layers = LayerRegistry::built_in();
  for (const LayerType& t : layers.types()) names.insert(t.name);
  expect_rows_for(names, rows);
  for (const auto& [name, job] : rows) {
    SCOPED_TRACE(name);
    expect_exact(job);
  }
}

// Counts how often the manifest of each checkpoint is read.
class CountingFs : public PosixFs {
 public:
  std::unique_ptr<ReadFile> open(const std::string& path) override {
    if (base_name(path) == kManifestName) {
      const std::lock_guard lock(mutex_);
      ++n_read_[base_name(parent_path(path))];
    }
    return PosixFs::open(path);
  }
  const std::map<std::string, int>& n_read() const { return n_read_; }

 private:
  std::mutex mutex_;
  std::map<std::string, int> n_read_;
};

// A manifest has a line per slice, and decoding checks that they cover all variables. The process that
// verifies it, plans by it, loads two servers and takes the states of an LSTM from the workers' files decodes
// it once, and those of older checkpoints not at all.
TEST(Resume, DecodesTheManifestOnce) {
  const TempDir dir;
  write_text_file(dir / "text");
  const Job job = text_job(dir / "text", "    - {type: lstm, units: 5}\n");
  const LayerRegistry layers = LayerRegistry::built_in();
  PosixFs posix;
  // Each at the end of a run: one in between is left out while another is on its way to the disk.
  for (const int step : {1, 2, 3})
    train(job, dir / "run", step, step > 1, layers, {"checkpoint.every_steps=100"}, posix);
  ASSERT_EQ(list_checkpoints(posix, dir / "run/checkpoints").size(), 3U);
  CountingFs fs;
  train(job, dir / "run", 4, true, layers,
        {"cluster.servers=2", "checkpoint.every_steps=100", "checkpoint.at_end=false"}, fs);
  EXPECT_THAT(fs.n_read(), ::testing::ElementsAre(::testing::Pair("step-000000003", 1)));
}

void put_big_endian(std::string& to, std::uint32_t n) {
  for (int shift = 24; shift >= 0; shift -= 8) to += static_cast<char>(n >> shift & 0xff);
}

TEST(ExactState, OfEveryDataSource) {
  const TempDir dir;
  write_text_file(dir / "text");
  std::string images, labels;
  for (const std::uint32_t n : {0x803U, 120U, 8U, 8U}) put_big_endian(images, n);
  for (const std::uint32_t n : {0x801U, 120U}) put_big_endian(labels, n);
  std::mt19937 random(4);
  for (int i = 0; i < 120 * 64; ++i) images += static_cast<char>(random() & 0xff);
  for (int i = 0; i < 120; ++i) labels += static_cast<char>(random() % 10);
  testing::spit(dir / "images", images);
  testing::spit(dir / "labels", labels);
  // Fashion-MNIST is IDX files of fixed names.
  std::filesystem::create_directory(dir / "fashion");
  testing::spit(dir / "fashion/train-images-idx3-ubyte", images);
  testing::spit(dir / "fashion/train-labels-idx1-ubyte", labels);

  std::map<std::string, std::vector<Job>> rows;
  const Job plain;
  Job digits = plain, pairs = plain, idx = plain, fashion = plain;
  pairs.data = "{type: digits, samples: 120, size: 8, pairs: true}";
  pairs.layers = "    - {type: flatten}\n    - {type: dense, units: 6, activation: tanh}\n";
  pairs.output = "    - {type: dense, units: 1}\n";
  pairs.loss = "sigmoid_cross_entropy";
  idx.data = "{type: idx, images: " + (dir / "images") + ", labels: " + (dir / "labels") + "}";
  fashion.data = "{type: fashion_mnist, folder: " + (dir / "fashion") + "}";
  std::string table = "a,b,word,y,z\n", svm;
  for (int i = 0; i < 120; ++i) {
    const int a = static_cast<int>(random() % 100), b = static_cast<int>(random() % 100);
    table += fmt::format("{},{},w{},{},{}\n", a, b, b % 7, (a + b) % 10, a - 2 * b);
    svm += fmt::format("{} {}:{} 8:1\n", (a + b) % 10, 1 + a % 7, b);
  }
  testing::spit(dir / "table.csv", table);
  testing::spit(dir / "table.svm", svm);
  const std::string csv = "{type: csv, files: " + (dir / "table.csv") + ", schema: {label: {column: ";
  Job classes = plain, numbers = plain, rows_of_svm = plain;
  classes.data = csv + "y}, features: {x: {columns: [a, b], transform: standardize}}}}";
  numbers.data = csv +
                 "z, type: number}, features: {word: {columns: word, vocabulary: {size: 6}}, "
                 "x: {columns: [a, b], transform: [log1p, min_max]}}}}";
  numbers.layers =
      "    - {type: embedding, input: word, vocabulary: 6, units: 3}\n    - {type: flatten, name: words}\n"
      "    - {type: concat, inputs: [x, words]}\n    - {type: dense, units: 6, activation: tanh}\n";
  numbers.output = "    - {type: dense, units: 1}\n";
  numbers.loss = "mean_squared_error";
  rows_of_svm.data = "{type: libsvm, files: " + (dir / "table.svm") + "}";
  Job weighted = classes;
  weighted.data = csv + "y}, weight: {column: b}, features: {x: {columns: [a], transform: standardize}}}}";
  Job bags = classes, bags_of_svm = rows_of_svm, parted = weighted;
  bags.data =
      csv +
      "y}, features: {tags: {columns: [word, a], split: '1', vocabulary: {size: 9}}, ab: {cross: [a, b], "
      "hash: 20}}}}";
  bags.layers =
      "    - {type: embedding, input: tags, vocabulary: 18, units: 3, combiner: sqrtn, name: t}\n    - {type: embedding, "
      "input: ab, vocabulary: 20, units: 2}\n    - {type: flatten, name: c}\n    - {type: concat, inputs: [t, c]}\n";
  bags_of_svm.data = "{type: libsvm, bags: true, files: " + (dir / "table.svm") + "}";
  bags_of_svm.layers =
      "    - {type: embedding, vocabulary: 8, units: 4, combiner: sum, regularizer: {type: l2, factor: 0.01}}\n";
  parted.data += "\n  split: {test: 0.1}";
  rows["csv"] = {classes, numbers, weighted, bags, parted};
  rows["libsvm"] = {rows_of_svm, bags_of_svm};
  std::vector<float> x;
  std::vector<std::int32_t> who, kinds;
  std::vector<double> estimates;
  for (int i = 0; i < 120; ++i) {
    for (int k = 0; k < 5; ++k) x.push_back(static_cast<float>(random() % 100) / 50.0F);
    who.push_back(static_cast<std::int32_t>(random() % 6));
    kinds.push_back(static_cast<std::int32_t>(random() % 10));
    estimates.push_back(x.back() - who.back());
  }
  testing::spit(dir / "x.npy", testing::npy("<f4", "120, 5", testing::raw(x)));
  testing::spit(dir / "y.npy", testing::npy("<i4", "120,", testing::raw(kinds)));
  testing::spit(dir / "d.npz", testing::zip({{"x.npy", testing::npy("<f4", "120, 5", testing::raw(x))},
                                             {"word.npy", testing::npy("<i4", "120,", testing::raw(who))},
                                             {"y.npy", testing::npy("<f8", "120,", testing::raw(estimates))}},
                                            true));
  Job npy = plain, npz = numbers;
  npy.data = "{type: npy, inputs: " + (dir / "x.npy") + ", labels: " + (dir / "y.npy") + "}";
  npz.data = "{type: npz, file: " + (dir / "d.npz") + ", inputs: [word, x], ids: [word], label_type: number}";
  std::string records;
  for (std::size_t i = 0; i < 120; ++i) {
    const auto* row = x.data() + 5 * i;
    append_record(records, testing::example({{"x", testing::float_feature({row, row + 5})},
                                             {"label", testing::int64_feature({kinds[i]})}}));
  }
  testing::spit(dir / "d.tfrecord", records);
  Job tfrecord = plain;
  tfrecord.data = "{type: tfrecord, files: " + (dir / "d.tfrecord") + "}";
  rows["tfrecord"] = {tfrecord};
  rows["npy"] = {npy};
  rows["npz"] = {npz};
  rows["digits"] = {digits, pairs};
  Job friedman = numbers, shapes = plain;
  friedman.data = "{type: synthetic, generate: friedman1, samples: 120, noise: 1}";
  friedman.layers = plain.layers;
  shapes.data = "{type: synthetic, generate: colour_shapes, samples: 120, size: 8}";
  shapes.layers = "    - {type: conv2d, filters: 2, kernel: [3]}\n    - {type: max_pool2d, window: [4]}\n";
  shapes.output = "    - {type: dense, units: 9}\n";
  Job clicks = plain;
  clicks.data = "{type: synthetic, generate: ctr, samples: 120, features: 3, numbers: 4}";
  clicks.layers = "    - {type: dense, input: numbers, units: 6, activation: tanh}\n";
  clicks.output = "    - {type: dense, units: 1}\n";
  clicks.loss = "sigmoid_cross_entropy";
  rows["synthetic"] = {friedman, shapes, clicks};
  Job skipgram = plain;
  skipgram.data = "{type: skipgram, file: " + (dir / "text") +
                  ", min_count: 1, window: 2, negatives: 2, subsample: 0.05, test_fraction: 0}";
  skipgram.layers =
      "    - {type: embedding, input: word, vocabulary: 40, units: 5, name: w}\n"
      "    - {type: flatten, name: word_vector}\n"
      "    - {type: embedding, input: context, vocabulary: 40, units: 5, name: c}\n";
  std::string products;
  for (int k = 0; k < 3; ++k) {
    skipgram.layers += fmt::format(
        "    - {{type: take, input: c, index: {}, name: c{}}}\n"
        "    - {{type: dot, inputs: [word_vector, c{}], name: p{}}}\n",
        k, k, k, k);
    products += fmt::format("{}p{}", k == 0 ? "" : ", ", k);
  }
  skipgram.output =
      "    - {type: concat, inputs: [" + products + "]}\n    - {type: reshape, shape: [3, 1]}\n";
  skipgram.loss = "sigmoid_cross_entropy";
  rows["skipgram"] = {skipgram};
  rows["idx"] = {idx};
  rows["fashion_mnist"] = {fashion};
  rows["text"] = {text_job(dir / "text", "    - {type: lstm, units: 5}\n")};
  expect_rows_for(names_of(source_key_types()), rows);
  for (const auto& [name, jobs] : rows) {
    SCOPED_TRACE(name);
    for (const Job& job : jobs) expect_exact(job);
  }
}

// --- the test can fail

// An operation that remembers how often it has run, where no checkpoint can find it.
class Forgetful final : public Op {
 public:
  const char* type() const override { return "forgetful"; }
  TensorType infer(const InferContext& context) const override { return context.type(0); }
  void forward(const ForwardContext& c) const override {
    const float factor = 1.0F + 0.01F * static_cast<float>(++n_runs_);
    const auto x = c.inputs[0]->as<float>();
    const auto y = c.output.as<float>();
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = factor * x[i];
  }
  void backward(const BackwardContext& c) const override {
    const InputGradient& g = c.input_gradients[0];
    if (g.contribution == Contribution::none) return;
    const auto dy = c.output_gradient.as<float>();
    const auto dx = g.gradient->as<float>();
    for (std::size_t i = 0; i < dx.size(); ++i)
      dx[i] = g.contribution == Contribution::first ? dy[i] : dx[i] + dy[i];
  }

 private:
  mutable std::atomic<int> n_runs_ = 0;
};

TEST(ExactState, AStateThatIsNotSavedIsFound) {
  LayerRegistry layers = LayerRegistry::built_in();
  layers.add({"forgetful", "",
              [](const LayerContext& context) {
                LayerInfo info;
                info.output = context.graph.add(std::make_unique<Forgetful>(), {context.input()},
                                                context.op("forgetful"));
                return info;
              },
              [](Keys&) {}});
  Job job;
  job.layers += "    - {type: forgetful}\n";
  EXPECT_THAT(differences(job, layers), ::testing::Contains("dense_1/weights@0"));
  std::set<std::string> names;
  for (const LayerType& t : layers.types()) names.insert(t.name);
  EXPECT_TRUE(names.contains("forgetful"));  // and OfEveryLayer would ask for a row
}

}  // namespace
}  // namespace varscope
