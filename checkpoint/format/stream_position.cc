#include "checkpoint/format/stream_position.h"

#include <cmath>
#include <limits>
#include <string_view>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/text.h"

namespace varscope {
namespace {

using Json = nlohmann::json;

// Numbers read back to the same bits; what is not finite JSON has no number for.
Json json_of(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }
double number_of(const Json& json) {
  return json.is_null() ? std::numeric_limits<double>::quiet_NaN() : json.get<double>();
}

Json json_of(const BatchSums& s) {
  return {json_of(s.loss), json_of(s.correct), s.samples, json_of(s.weight)};
}
BatchSums sums_of(const Json& json) {
  return {number_of(json.at(0)), number_of(json.at(1)), json.at(2).get<std::int64_t>(),
          number_of(json.at(3))};
}

}  // namespace

void ProgressiveLoss::add(const BatchSums& step, std::int64_t window) {
  total += step;
  since_save += step;
  if (n_counted_ != std::ssize(steps)) {  // they come from a checkpoint
    n_samples_ = 0;
    for (const BatchSums& s : steps) n_samples_ += s.samples;
  }
  steps.push_back(step);
  n_samples_ += step.samples;
  while (n_samples_ - steps.front().samples >= window) {
    n_samples_ -= steps.front().samples;
    steps.pop_front();
  }
  n_counted_ = std::ssize(steps);
}

BatchSums ProgressiveLoss::window() const {
  BatchSums sum;
  for (const BatchSums& step : steps) sum += step;
  return sum;
}

namespace {
constexpr std::string_view kStreamMark = "#stream ";
}

std::optional<StreamPosition> take_stream_line(std::string& text) {
  const std::optional<std::string> json = take_last_line(text, kStreamMark);
  return json ? std::optional(stream_position_from_json(*json)) : std::nullopt;
}

std::string stream_line(const StreamPosition& position) {
  return std::string(kStreamMark) + to_json_line(position) + "\n";
}

std::string to_json_line(const StreamPosition& p) {
  Json steps = Json::array();
  for (const BatchSums& step : p.progressive.steps) steps.push_back(json_of(step));
  return Json{{"file", p.file},
              {"bytes", p.n_bytes},
              {"xxh3", p.digest.hex()},
              {"file_records", p.file_records},
              {"learnt", p.learnt},
              {"files", p.files},
              {"records", p.records},
              {"left_out", p.left_out},
              {"event_time", p.event_time},
              {"progressive",
               {{"total", json_of(p.progressive.total)},
                {"since_save", json_of(p.progressive.since_save)},
                {"steps", steps}}}}
      .dump(-1, ' ', true);
}

StreamPosition stream_position_from_json(const std::string& line) {
  try {
    const Json json = Json::parse(line);
    StreamPosition p;
    p.file = json.at("file").get<std::string>();
    p.n_bytes = json.at("bytes").get<std::int64_t>();
    p.digest = Digest::from_hex(json.at("xxh3").get<std::string>());
    p.file_records = json.at("file_records").get<std::int64_t>();
    p.learnt = json.at("learnt").get<std::int64_t>();
    p.files = json.at("files").get<std::int64_t>();
    p.records = json.at("records").get<std::int64_t>();
    p.left_out = json.at("left_out").get<std::int64_t>();
    p.event_time = json.at("event_time").get<double>();
    const Json& progressive = json.at("progressive");
    p.progressive.total = sums_of(progressive.at("total"));
    p.progressive.since_save = sums_of(progressive.at("since_save"));
    for (const Json& step : progressive.at("steps")) p.progressive.steps.push_back(sums_of(step));
    if (p.learnt < 0 || p.learnt > p.file_records)
      fail(ErrorKind::data, "{} of {} records", p.learnt, p.file_records);
    return p;
  } catch (const std::exception& e) {
    fail(ErrorKind::data, "the place in the stream in the checkpoint cannot be read: {}", e.what());
  }
}

}  // namespace varscope
