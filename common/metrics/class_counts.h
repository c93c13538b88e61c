#pragma once

#include <cstdint>
#include <span>

// Metrics of counts over samples of known classes, or of sums of the samples' weights;
// worker/ops/metric_ops.h counts them.
namespace varscope {

// Precision is right answers / answers of a class, recall right answers / rows of it; 0 where the class was
// never the answer, or never the label. f1 is their harmonic mean, 0 where both are.
struct PrecisionRecall {
  double precision = 0, recall = 0;
  double f1() const;
};
// Of class `c` of a confusion matrix [k, k]; c = 1 of a 2x2 are precision and recall of a yes or no question.
// Throw Error(argument) if the counts are not a square, or c is not one of its classes.
PrecisionRecall precision_recall(std::span<const std::int64_t> confusion, std::int64_t c);
PrecisionRecall precision_recall(std::span<const double> confusion, std::int64_t c);
// The means over the classes that occur, as label or as answer; zeros when nothing was counted.
PrecisionRecall macro_precision_recall(std::span<const std::int64_t> confusion);
PrecisionRecall macro_precision_recall(std::span<const double> confusion);
// Right answers / rows; 0 for no rows.
double accuracy(std::span<const std::int64_t> confusion);

}  // namespace varscope
