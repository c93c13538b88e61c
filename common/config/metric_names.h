#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace varscope {

// The metrics of an evaluation, by the names that configs, metrics.jsonl and checkpoints give them.

// The loss, and what train.metrics may ask for; "top_5" stands for all top_<k>.
std::vector<std::string> metric_names();

// Which values of a metric are better.
enum class MetricOrder : std::uint8_t { larger, smaller };
// Nothing for a name that does not exist, and for confusion_matrix, which is no number.
std::optional<MetricOrder> order_of_metric(std::string_view name);

// Why there is no best checkpoint by the metric of this name; "" when there is one.
std::string best_metric_problem(std::string_view name);

}  // namespace varscope
