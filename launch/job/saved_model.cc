#include "launch/job/saved_model.h"

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/config/paths.h"
#include "common/config/yaml_reader.h"
#include "launch/job/run_differences.h"
#include "worker/data/array_dataset.h"

namespace varscope {
namespace {

using Json = nlohmann::json;

constexpr Choice<Features> kFeatures[] = {{Features::real, "numbers"},
                                          {Features::ids, "ids"},
                                          {Features::offsets, "offsets"},
                                          {Features::row_ids, "row_ids"}};

Features features_of(const std::string& name) {
  for (const auto& f : kFeatures) {
    if (name == f.name) return f.value;
  }
  return Features::real;
}

Json json_of(const Shape& shape) {
  Json dims = Json::array();
  for (const std::int64_t d : shape.dims()) dims.push_back(d);
  return dims;
}

Shape shape_from(const Json& json) { return Shape(json.get<std::vector<std::int64_t>>()); }

// What the model is, and what its checkpoints call its variables; not where and how it was trained:
// checkpoints of two runs say the same.
JobConfig of_the_model(const JobConfig& job) {
  JobConfig kept;
  kept.job.name = job.job.name;
  kept.job.seed = job.job.seed;
  kept.data.train = job.data.train;
  kept.data.split = job.data.split;
  kept.model = job.model;
  kept.checkpoint.rename = job.checkpoint.rename;
  kept.train.metrics = job.train.metrics;
  kept.train.eval_batch = job.train.eval_batch;
  return kept;
}

SavedModel model_from(const Json& json) {
  SavedModel model;
  ConfigNode root = read_yaml_text(json.at("config").get<std::string>(), "the checkpoint's config");
  expand_paths(root, "the checkpoint's config");
  model.job = parse_job(root, "the checkpoint's config");
  for (const Json& i : json.at("inputs")) {
    model.facts.named_inputs.push_back({.name = i.at("name").get<std::string>(),
                                        .shape = shape_from(i.at("shape")),
                                        .features = features_of(i.at("type").get<std::string>()),
                                        .n_ids = i.at("n_ids").get<std::int64_t>()});
    if (i.contains("id_type"))
      model.facts.named_inputs.back().id_type = id_type_from_string(i.at("id_type").get<std::string>());
  }
  if (model.facts.named_inputs.empty()) fail(ErrorKind::checkpoint, "the model has no inputs");
  model.facts.sample_shape = model.facts.named_inputs.front().shape;
  model.facts.features = model.facts.named_inputs.front().features;
  const Json& target = json.at("target");
  model.facts.target = target.at("type") == "numbers" ? Target::numbers : Target::classes;
  model.facts.label_shape = shape_from(target.at("shape"));
  model.facts.n_classes = target.at("classes").get<std::int64_t>();
  model.facts.exact_classes = target.at("exact").get<bool>();
  model.class_names = target.at("names").get<std::vector<std::string>>();
  model.facts.has_weights = json.value("weights", false);
  if (!json.at("schema").is_null()) model.schema = json.at("schema").dump();
  return model;
}

}  // namespace

std::string saved_model_text(const JobConfig& job, const Dataset& train) {
  Json inputs = Json::array();
  for (const InputSpec& i : train.inputs()) {
    inputs.push_back({{"name", i.name},
                      {"shape", json_of(i.shape)},
                      {"type", choice_name(kFeatures, i.features)},
                      {"n_ids", i.n_ids}});
    if (i.features == Features::row_ids) inputs.back()["id_type"] = to_string(i.id_type);
  }
  const std::string schema = train.schema();
  Json json{{"config", dump(of_the_model(job))},
            {"inputs", inputs},
            {"target",
             {{"type", train.target() == Target::numbers ? "numbers" : "classes"},
              {"shape", json_of(train.label_shape())},
              {"classes", train.n_classes()},
              {"exact", train.knows_classes()},
              {"names", train.class_names()}}},
            {"schema", schema.empty() ? Json(nullptr) : Json::parse(schema)}};
  if (!train.weights().empty()) json["weights"] = true;
  for (const DataFile& f : train.files())
    json["files"].push_back({{"name", f.name}, {"n_bytes", f.n_bytes}, {"xxh3", f.digest.hex()}});
  return json.dump();
}

std::string scale_line(const std::string& text) {
  if (text.empty()) return "";
  const Json schema = Json::parse(text).at("schema");
  if (!schema.is_object() || !schema.contains("arrays")) return "";
  std::string all;
  for (const ArrayInput& i : array_schema_from_json(schema.dump()).inputs) {
    if (i.scale.is_one()) continue;
    all += (all.empty() ? "" : ", ") + i.name;
    if (i.scale.numerator != 1) all += fmt::format(" * {}", i.scale.numerator);
    if (i.scale.denominator != 1) all += fmt::format(" / {}", i.scale.denominator);
  }
  return all.empty() ? "" : "  scale        " + all;
}

std::optional<SavedModel> saved_model(const Manifest& manifest) {
  const std::optional<ComparedRun> run = compared_run(manifest);
  return run ? saved_model_of(run->model) : std::nullopt;
}

std::optional<SavedModel> saved_model_of(const std::string& text) {
  if (text.empty()) return std::nullopt;
  try {
    return model_from(Json::parse(text));
  } catch (const Json::exception& e) {
    fail(ErrorKind::checkpoint, "what the checkpoint says of its model cannot be read: {}", e.what());
  }
}

}  // namespace varscope
