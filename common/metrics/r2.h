#pragma once

#include <cstdint>
#include <optional>
#include <span>

// The coefficient of determination from sums over samples; worker/ops/metric_ops.h makes them.
namespace varscope {

// Of each element of a target: the sum of the samples' weights (1 for each without any), the mean of the
// targets, the sum of their squared distances from it, and the sum of the squared errors.
inline constexpr std::int64_t kR2Sums = 4;

// Makes `to` the sums of its samples and those of `from`, [k, kR2Sums] both: means and distances by the
// update of Chan, Golub and LeVeque (1983), so that targets that are all alike stay so, however far from 0
// they are. Throws Error(argument) for sizes that differ.
void merge_r2(std::span<double> to, std::span<const double> from);

// 1 - squared errors / squared distances, the mean over the elements of a target. An element that never
// changes has 1 where it was always met and else 0, as in scikit-learn's r2_score. NaN for fewer than two
// samples; `samples` says how many where they have weights.
double r2_of(std::span<const double> sums, std::optional<std::int64_t> samples = std::nullopt);

}  // namespace varscope
