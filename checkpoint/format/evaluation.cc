#include "checkpoint/format/evaluation.h"

#include <fmt/format.h>

#include <cmath>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/hash.h"

namespace varscope {
namespace {

using Json = nlohmann::json;

std::string text_of(const EvaluationRecord& record) {
  Json values = Json::object();
  for (const auto& [name, value] : record.values) {
    if (std::isfinite(value)) values[name] = value;
  }
  const Json json = {{"step", record.step}, {"values", values}};
  const std::string line = json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  return line + digest_of(std::string_view(line)).hex() + "\n";
}

// Throws Error(io).
std::optional<EvaluationRecord> read_record(Fs& fs, const std::string& checkpoint) {
  constexpr std::uint64_t kMost = 1 << 20;
  const std::string path = join_path(checkpoint, kMetricsName);
  if (!fs.exists(path) || fs.open(path)->size() > kMost) return std::nullopt;
  const std::string text = read_whole_file(fs, path, kMost);
  const std::string line = text.substr(0, text.find('\n') + 1);
  if (text != line + digest_of(std::string_view(line)).hex() + "\n") return std::nullopt;
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer() ||
      !json.contains("values") || !json["values"].is_object()) {
    return std::nullopt;
  }
  EvaluationRecord record{json["step"].get<std::int64_t>(), {}};
  for (const auto& [name, value] : json["values"].items()) {
    if (value.is_number()) record.values[name] = value.get<double>();
  }
  return record;
}

}  // namespace

std::optional<EvaluationRecord> read_evaluation(Fs& fs, const std::string& checkpoint,
                                                std::string* unreadable) {
  if (unreadable != nullptr) unreadable->clear();
  try {
    return read_record(fs, checkpoint);
  } catch (const Error& e) {
    if (unreadable != nullptr)
      *unreadable = fmt::format("{}: the metrics of its evaluation count as missing", e.what());
    return std::nullopt;
  }
}

std::string evaluation_problem(Fs& fs, const std::string& checkpoint) {
  std::string unreadable;
  if (read_evaluation(fs, checkpoint, &unreadable)) return "";
  if (!unreadable.empty()) return unreadable;
  if (!fs.exists(join_path(checkpoint, kMetricsName))) return "";
  return fmt::format("{} is damaged: the metrics of the evaluation are lost, the rest can be used",
                     kMetricsName);
}

void write_evaluation(Fs& fs, const std::string& dir, const EvaluationRecord& record) {
  write_whole_file(fs, join_path(dir, kMetricsName), text_of(record));
}

void replace_evaluation(Fs& fs, const std::string& checkpoint, const EvaluationRecord& record) {
  replace_whole_file(fs, join_path(checkpoint, kMetricsName), text_of(record));
}

}  // namespace varscope
