#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/base/philox.h"
#include "common/config/data_source.h"
#include "worker/data/dataset.h"

namespace varscope {

// Which samples a part of a data set has. Sample i is of the test part where the uniform number of (seed, i)
// is below split.test: a pure function, whatever else the data hold and whoever reads them. A value.
class PartOfSplit {
 public:
  PartOfSplit(const SplitConfig& split, DataSplit part);
  bool has(std::int64_t i) const {
    return (random_.uniform(static_cast<std::uint64_t>(i)) < test_) == is_test_;
  }
  // Throws Error(data) unless it has one of the samples [0, n).
  void require_some(std::int64_t n) const;

 private:
  RandomStream random_;
  double test_;
  bool is_test_;
};

// The numbers of the samples of [0, n) that a part has, rising. Throws Error(data) for a part without a
// sample.
std::vector<std::int64_t> samples_of_part(const SplitConfig& split, DataSplit part, std::int64_t n);

// These samples of a data set without sequences, in this order.
std::unique_ptr<Dataset> some_of(std::unique_ptr<Dataset> data, std::vector<std::int64_t> samples);

}  // namespace varscope
