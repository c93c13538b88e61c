#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/config/job_config.h"
#include "common/config/yaml_reader.h"
#include "serve/engine/version.h"
#include "worker/graph/session.h"
#include "worker/layers/model.h"

namespace varscope::testing {

// A model of a config in memory, with the initial values of a seed.
class FakeServable final : public Servable {
 public:
  FakeServable(const std::string& layers, DataFacts facts, ServableSchema schema, std::uint64_t seed,
               const std::string& loss = "softmax_cross_entropy")
      : schema_(std::move(schema)) {
    const JobConfig job =
        parse_job(read_yaml_text("job: {name: t}\ndata: {train: {type: digits, samples: 20, size: 8}}\n"
                                 "model:\n  loss: " +
                                     loss + "\n  layers:\n" + layers,
                                 "job.yaml"),
                  "job.yaml");
    build_model(store_, job, facts, GraphMode::train);
    model_ = build_model(store_, job, facts, GraphMode::evaluate);
    session_.emplace(model_.graph, seed);
    schema_.spec = {facts.inputs(), facts.target, facts.label_shape, false};
  }
  const varscope::Model& model() const override { return model_; }
  const ServableSchema& schema() const override { return schema_; }
  void bind(Executor& executor) const override {
    for (const Variable* v : model_.graph.variables()) {
      if (!v->is_local() && !v->spec().is_table()) executor.bind(*v, session_->value(*v));
    }
  }
  RowReader* rows() const override { return nullptr; }
  std::int64_t n_bytes() const override { return size; }

  std::int64_t size = 1000;

 private:
  VariableStore store_;
  ServableSchema schema_;
  varscope::Model model_;
  std::optional<Session> session_;
};

// Images [8, 8] of 10 classes, of bytes divided by 255.
inline std::shared_ptr<FakeServable> images_model(std::uint64_t seed, int classes = 10) {
  DataFacts facts;
  facts.sample_shape = Shape{8, 8};
  facts.n_classes = classes;
  ServableSchema schema;
  schema.answers = ServableSchema::Answers::softmax;
  schema.arrays = {{.shape = Shape{8, 8}, .scale = {1, 255}}};
  return std::make_shared<FakeServable>(
      "    - {type: dense, units: 16, activation: relu}\n"
      "    - {type: dense, units: " +
          std::to_string(classes) + "}\n",
      facts, schema, seed);
}

inline VersionInfo version_info(std::int64_t step) {
  VersionInfo info;
  info.id.step = step;
  info.id.manifest_id = "id-" + std::to_string(step);
  return info;
}

// A request that owns what it asks.
template <class T>
InferRequest request_of(const std::string& name, OipType type, std::vector<std::int64_t> shape,
                        std::vector<T> values, std::vector<std::string> outputs = {}) {
  auto memory = std::make_shared<std::vector<T>>(std::move(values));
  InferRequest request;
  request.inputs.push_back(
      {.name = name, .type = type, .shape = std::move(shape), .data = std::as_bytes(std::span(*memory))});
  request.outputs = std::move(outputs);
  request.memory = memory;
  return request;
}
inline InferRequest request_of_texts(const std::string& name, std::vector<std::string> texts) {
  auto memory = std::make_shared<std::vector<std::string>>(std::move(texts));
  InferRequest request;
  request.inputs.push_back({.name = name, .type = OipType::bytes, .shape = {std::ssize(*memory)}});
  for (const std::string& t : *memory) request.inputs.back().texts.push_back(t);
  request.memory = memory;
  return request;
}

// Image i of an endless row of different ones.
inline std::vector<float> image(std::int64_t i) {
  std::vector<float> pixels(64);
  for (std::size_t k = 0; k < pixels.size(); ++k) {
    const double x = 0.37 * static_cast<double>(i + 1) + 0.61 * static_cast<double>(k);
    pixels[k] = static_cast<float>(x - std::floor(x));
  }
  return pixels;
}
inline InferRequest images_request(std::int64_t first, std::int64_t n) {
  std::vector<float> all;
  for (std::int64_t i = first; i < first + n; ++i) {
    const std::vector<float> one = image(i);
    all.insert(all.end(), one.begin(), one.end());
  }
  return request_of("x", OipType::fp32, {n, 8, 8}, std::move(all));
}

inline std::vector<float> floats_of(const OutputTensor& out) {
  std::vector<float> values(out.data.size() / sizeof(float));
  std::memcpy(values.data(), out.data.data(), out.data.size());
  return values;
}

// Of all rows of a request, by one thread, alone.
inline InferAnswer run_alone(const Version& version, const InferRequest& request) {
  InferAnswer answer;
  const RequestPiece piece{&request, 0, version.check(request), &answer};
  Version::Runner(version).run(std::span(&piece, 1));
  return answer;
}

}  // namespace varscope::testing
