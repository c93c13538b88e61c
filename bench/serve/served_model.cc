#include "bench/serve/served_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <fstream>

#include "bench/serve/load_client.h"

namespace varscope::bench {
namespace {

constexpr const char* kInfer = "/v2/models/m/infer";

// As of a drawn image: three decimals.
std::vector<float> pixels() {
  std::vector<float> all;
  all.reserve(784);
  for (int i = 0; i < 784; ++i) all.push_back(static_cast<float>(i * 7919 % 1000) / 1000);
  return all;
}

}  // namespace

std::string train_perceptron(const ServeBenchOptions& options, const std::string& dir,
                             const std::vector<std::int64_t>& hidden, int steps, int every) {
  std::string layers;
  for (std::size_t i = 0; i < hidden.size(); ++i)
    layers +=
        fmt::format("    - {{type: dense, scope: hidden{}, units: {}, activation: relu}}\n", i, hidden[i]);
  std::ofstream(dir + "/job.yaml") << fmt::format(R"(job: {{name: m, run_dir: {0}/run}}
data: {{train: {{type: digits, size: 28, samples: 2000}}}}
model:
  loss: softmax_cross_entropy
  layers:
{1}    - {{type: dense, scope: output, units: 10}}
optimizer: {{type: sgd, learning_rate: 0.05}}
train: {{batch: 8, epochs: 100, max_steps: {2}, metrics: []}}
checkpoint: {{every_steps: {3}, keep: 1000, when_busy: queue}}
)",
                                                  dir, layers, steps, every);
  run_command({options.program, "train", dir + "/job.yaml"}, dir + "/output");
  return dir + "/run/checkpoints";
}

std::string binary_request() {
  const std::vector<float> image = pixels();
  const std::size_t n = image.size() * sizeof(float);
  const std::string json = fmt::format(
      R"({{"inputs":[{{"name":"x","shape":[1,28,28],"datatype":"FP32","parameters":{{"binary_data_size":{}}}}}],)"
      R"("outputs":[{{"name":"probabilities","parameters":{{"binary_data":true}}}}]}})",
      n);
  return http_post(kInfer, json + std::string(reinterpret_cast<const char*>(image.data()), n),
                   fmt::format("Inference-Header-Content-Length: {}\r\n", json.size()));
}

std::string json_request() {
  return http_post(
      kInfer,
      fmt::format(
          R"({{"inputs":[{{"name":"x","shape":[1,28,28],"datatype":"FP32","data":[{}]}}],"outputs":[{{"name":"probabilities"}}]}})",
          fmt::join(pixels(), ",")),
      "Content-Type: application/json\r\n");
}

}  // namespace varscope::bench
