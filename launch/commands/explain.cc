#include "launch/commands/explain.h"

#include <algorithm>
#include <set>
#include <vector>

#include "common/base/error.h"
#include "common/base/text.h"
#include "common/config/job_config.h"
#include "worker/data/table_schema.h"
#include "worker/data/tfrecord.h"

namespace varscope {
namespace {

bool is_at_or_below(const std::string& path, const std::string& section) {
  return path.starts_with(section) &&
         (path.size() == section.size() || path[section.size()] == '.' || path[section.size()] == '[');
}

// data.train.noise of data.train[type=digits].noise
std::string without_type(const std::string& path) {
  const std::size_t begin = path.find("[type="), end = path.find(']');
  return begin == std::string::npos || end == std::string::npos
             ? path
             : path.substr(0, begin) + path.substr(end + 1);
}

std::string text_of(const std::vector<ExplainedKey>& keys, const std::string& section) {
  std::string text;
  for (const ExplainedKey& key : keys) {
    if (is_at_or_below(key.path, section) || is_at_or_below(without_type(key.path), section))
      text += key.text;
  }
  return text.starts_with('\n') ? text.substr(1) : text;
}

// "type: dense", its summary, and all of its keys.
std::string text_of_layer(const std::vector<ExplainedKey>& keys, const std::string& type) {
  std::string text;
  for (const ExplainedKey& key : keys) {
    const bool is_heading = key.path == "type" && key.text.starts_with(fmt::format("type: {}\n", type));
    if (is_heading || is_at_or_below(key.path, fmt::format("model.layers[type={}]", type))) text += key.text;
  }
  return text;
}

// Of every key of that name, whatever its section; what is the same but for the section once.
std::string text_by_last_part(const std::vector<ExplainedKey>& keys, const std::string& name) {
  std::string text;
  std::set<std::string> told;
  for (const ExplainedKey& key : keys) {
    if (key.path.ends_with("." + name) && told.insert(key.text.substr(key.text.find(name))).second)
      text += key.text;
  }
  return text.starts_with('\n') ? text.substr(1) : text;
}

[[noreturn]] void fail_unknown(const std::string& section, const std::vector<ExplainedKey>& job,
                               const LayerRegistry& layers) {
  std::set<std::string> sections;
  std::vector<std::string> all, types, sources;
  for (const ExplainedKey& key : job) {
    all.push_back(key.path);
    if (const std::size_t dot = key.path.find('.'); dot != std::string::npos)
      sections.insert(key.path.substr(0, dot));
  }
  for (const LayerType& t : layers.types()) types.push_back(t.name);
  for (const SourceKeyType& t : source_key_types()) sources.push_back(t.name);
  std::vector<std::string> short_ones(sections.begin(), sections.end());
  short_ones.insert(short_ones.end(), types.begin(), types.end());
  short_ones.insert(short_ones.end(), sources.begin(), sources.end());
  for (const char* other :
       {"layers", "block", "initializer", "regularizer", "constraint", "partitioner", "compression"})
    short_ones.emplace_back(other);
  std::string hint = did_you_mean(section, short_ones);
  if (hint.empty()) hint = did_you_mean(section, all);
  fail(
      ErrorKind::config,
      "config --explain: there is no \"{}\"{}; there are the sections {}, their keys, the data sources {}, layers, the "
      "layers {}, block, initializer, regularizer, constraint, partitioner and compression",
      section, hint, comma_list({sections.begin(), sections.end()}), comma_list(sources), comma_list(types));
}

}  // namespace

std::string explain_config(const std::string& section, const LayerRegistry& layers) {
  const std::string features = explain_table_features() + explain_example_features();
  if (section.empty()) return explain_job_config() + features + layers.explain();
  if (section == "layers" || section == "model.layers") return layers.explain();
  const auto once = explained_keys(explain_job_config() + features);
  const auto every = explained_keys(explain_job_config(ExplainDetail::every_key) + features);
  const auto of_layers = explained_keys(layers.explain(ExplainDetail::every_key));
  // data.test alone is a heading that sends the reader to data.train.
  std::string text = text_of(section == "data.test" ? every : once, section);
  if (text.empty()) text = text_of(every, section);
  if (text.empty()) text = text_of(every, fmt::format("data.train[type={}]", section));
  if (text.empty()) text = text_of(of_layers, section == "block" ? "model.layers[block]" : section);
  if (text.empty()) text = text_of_layer(of_layers, section);
  if (text.empty()) text = text_by_last_part(once, section) + text_by_last_part(of_layers, section);
  if (text.empty()) text = text_by_last_part(every, section);
  if (text.empty()) fail_unknown(section, every, layers);
  return text;
}

}  // namespace varscope
