#include "common/metrics/class_counts.h"

#include <cmath>

#include "common/base/error.h"

namespace varscope {
namespace {

// Right answers, answers and rows of one class.
template <class Count>
struct ClassCounts {
  Count right = 0, answers = 0, rows = 0;
};

template <class Count>
std::int64_t side_of(std::span<const Count> confusion) {
  const auto side = static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>(confusion.size()))));
  if (side >= 1 && side * side == static_cast<std::int64_t>(confusion.size())) return side;
  fail(ErrorKind::argument, "{} counts are not a confusion matrix, which is a square", confusion.size());
}

template <class Count>
ClassCounts<Count> class_counts(std::span<const Count> confusion, std::int64_t side, std::int64_t c) {
  ClassCounts<Count> counts;
  for (std::int64_t i = 0; i < side; ++i) {
    counts.answers += confusion[static_cast<std::size_t>(i * side + c)];
    counts.rows += confusion[static_cast<std::size_t>(c * side + i)];
  }
  counts.right = confusion[static_cast<std::size_t>(c * side + c)];
  return counts;
}

template <class Count>
double ratio(Count part, Count whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

template <class Count>
PrecisionRecall of_class(std::span<const Count> confusion, std::int64_t c) {
  const std::int64_t side = side_of(confusion);
  if (c < 0 || c >= side) {
    fail(ErrorKind::argument, "class {} of a confusion matrix of classes 0 .. {}", c, side - 1);
  }
  const ClassCounts<Count> counts = class_counts(confusion, side, c);
  return {ratio(counts.right, counts.answers), ratio(counts.right, counts.rows)};
}

template <class Count>
PrecisionRecall of_all_classes(std::span<const Count> confusion) {
  const std::int64_t side = side_of(confusion);
  PrecisionRecall sum;
  int n = 0;
  for (std::int64_t c = 0; c < side; ++c) {
    const ClassCounts<Count> counts = class_counts(confusion, side, c);
    if (counts.answers == 0 && counts.rows == 0) continue;
    sum.precision += ratio(counts.right, counts.answers);
    sum.recall += ratio(counts.right, counts.rows);
    ++n;
  }
  return n == 0 ? sum : PrecisionRecall{sum.precision / n, sum.recall / n};
}

}  // namespace

double PrecisionRecall::f1() const {
  return precision + recall == 0 ? 0.0 : 2 * precision * recall / (precision + recall);
}

PrecisionRecall precision_recall(std::span<const std::int64_t> confusion, std::int64_t c) {
  return of_class(confusion, c);
}
PrecisionRecall precision_recall(std::span<const double> confusion, std::int64_t c) {
  return of_class(confusion, c);
}

PrecisionRecall macro_precision_recall(std::span<const std::int64_t> confusion) {
  return of_all_classes(confusion);
}
PrecisionRecall macro_precision_recall(std::span<const double> confusion) {
  return of_all_classes(confusion);
}

double accuracy(std::span<const std::int64_t> confusion) {
  const std::int64_t side = side_of(confusion);
  std::int64_t right = 0, rows = 0;
  for (std::int64_t c = 0; c < side; ++c) {
    const ClassCounts<std::int64_t> counts = class_counts(confusion, side, c);
    right += counts.right;
    rows += counts.rows;
  }
  return ratio(right, rows);
}

}  // namespace varscope
