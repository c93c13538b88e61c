#include "bench/figure_text.h"

#include <fmt/format.h>

#include <filesystem>

#include <nlohmann/json.hpp>

namespace varscope::bench {
namespace {

nlohmann::json json_of(const Spread& s) { return {{"median", s.median}, {"min", s.min}, {"max", s.max}}; }
Spread spread_of(const nlohmann::json& j) {
  return {j.at("median").get<double>(), j.at("min").get<double>(), j.at("max").get<double>()};
}

std::string number(double x) {
  const double size = x < 0 ? -x : x;
  return size >= 1000 ? fmt::format("{:.0f}", x)
         : size >= 10 ? fmt::format("{:.1f}", x)
                      : fmt::format("{:.3g}", x);
}

}  // namespace

nlohmann::json figure_json(const Figure& f) {
  return {{"target", f.target},
          {"what", f.what},
          {"unit", f.unit},
          {"ours", json_of(f.ours)},
          {"ceiling", json_of(f.ceiling)},
          {"ratio", json_of(f.ratio)},
          {"goal", {{"at_least", f.goal.bound == Bound::at_least}, {"value", f.goal.value}}},
          {"is_met", f.skipped.empty() && f.goal.is_met_by(f.ratio.median)},
          {"skipped", f.skipped},
          {"is_count", f.is_count}};
}

Figure figure_of(const nlohmann::json& j) {
  return {j.at("target").get<std::string>(),
          j.at("what").get<std::string>(),
          j.at("unit").get<std::string>(),
          spread_of(j.at("ours")),
          spread_of(j.at("ceiling")),
          spread_of(j.at("ratio")),
          {j.at("goal").at("at_least").get<bool>() ? Bound::at_least : Bound::at_most,
           j.at("goal").at("value").get<double>()},
          j.at("skipped").get<std::string>(),
          j.at("is_count").get<bool>()};
}

std::string head_text() {
  return fmt::format("{:<4} {:<74} {:>9} {:>9} {:<11} {:>7} {:<17} {:>8}  {}", "", "what", "ours", "against",
                     "", "ratio", "[min .. max]", "target", "");
}

std::string line_text(const Figure& f) {
  const std::string goal =
      fmt::format("{} {}", f.goal.bound == Bound::at_least ? ">=" : "<=", number(f.goal.value));
  if (!f.skipped.empty())
    return fmt::format("{:<4} {:<74} {:>8}  not measured: {}", f.target, f.what, goal, f.skipped);
  if (!f.is_count) require_positive(fmt::format("{}, {}", f.target, f.what), f.ours);
  const bool has_ceiling = f.ceiling.median > 0;
  return fmt::format("{:<4} {:<74} {:>9} {:>9} {:<11} {:>7} {:<17} {:>8}  {}", f.target, f.what,
                     has_ceiling ? number(f.ours.median) : "", has_ceiling ? number(f.ceiling.median) : "",
                     f.unit, number(f.ratio.median),
                     fmt::format("[{} .. {}]", number(f.ratio.min), number(f.ratio.max)), goal,
                     f.goal.is_met_by(f.ratio.median) ? "met" : "NOT met");
}

std::string own_program() { return std::filesystem::read_symlink("/proc/self/exe").string(); }

}  // namespace varscope::bench
