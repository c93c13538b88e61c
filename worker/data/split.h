#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/config/data_source.h"
#include "worker/data/dataset.h"

namespace varscope {

// The numbers of the samples of [0, n) that a part of a data set has, rising. Sample i is of the test part
// where the uniform number of (seed, i) is below split.test: a pure function, whatever else the data hold and
// whoever reads them. Throws Error(data) for a part without a sample.
std::vector<std::int64_t> samples_of_part(const SplitConfig& split, DataSplit part, std::int64_t n);

// These samples of a data set without sequences, in this order.
std::unique_ptr<Dataset> some_of(std::unique_ptr<Dataset> data, std::vector<std::int64_t> samples);

}  // namespace varscope
