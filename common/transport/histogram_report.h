#pragma once

#include <cstdint>
#include <vector>

#include "common/base/histogram.h"

namespace varscope {

// What a server tells of one variable's slices in one of its buckets, for a step whose histograms are
// asked for.
struct SliceHistograms {
  int variable = 0;    // index into the VariableTable
  Histogram values;    // after the step
  Histogram gradient;  // the mean over the global batch, before clipping; of nothing where it is not trained
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& variable& values& gradient;
  }
};

// server -> coordinator: variables of one bucket, each once over all messages of a step.
struct HistogramReport {
  std::vector<SliceHistograms> variables;
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& variables;
  }
};

}  // namespace varscope
