#include "common/config/metric_names.h"

#include <fmt/format.h>

#include "common/base/text.h"
#include "common/config/config_node.h"

namespace varscope {
namespace {

struct Row {
  const char* name;
  std::optional<MetricOrder> order;
};
constexpr Row kMetrics[] = {{"loss", MetricOrder::smaller},       {"accuracy", MetricOrder::larger},
                            {"top_5", MetricOrder::larger},       {"auc", MetricOrder::larger},
                            {"log_loss", MetricOrder::smaller},   {"rmse", MetricOrder::smaller},
                            {"mae", MetricOrder::smaller},        {"r2", MetricOrder::larger},
                            {"perplexity", MetricOrder::smaller}, {"precision", MetricOrder::larger},
                            {"recall", MetricOrder::larger},      {"confusion_matrix", std::nullopt}};

}  // namespace

std::vector<std::string> metric_names() {
  std::vector<std::string> names;
  for (const Row& row : kMetrics) names.emplace_back(row.name);
  return names;
}

std::optional<MetricOrder> order_of_metric(std::string_view name) {
  for (const Row& row : kMetrics) {
    if (name == row.name) return row.order;
  }
  std::int64_t k = 0;
  if (name.starts_with("top_") && parse_number(name.substr(4), k) && k >= 1) return MetricOrder::larger;
  return std::nullopt;
}

std::string best_metric_problem(std::string_view name) {
  if (order_of_metric(name)) return "";
  if (name == "confusion_matrix") return "confusion_matrix is no number; there is no best one";
  const std::vector<std::string> names = metric_names();
  return fmt::format("unknown metric \"{}\"{}; known are {}", name, did_you_mean(name, names),
                     comma_list(names));
}

}  // namespace varscope
