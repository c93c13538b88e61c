#pragma once

#include <cstdint>
#include <string>

#include "common/config/job_config.h"

namespace varscope {

// What a job's data are, as the model will see them: of data.train and data.test how many samples, their
// inputs and memory, of each column the type, missing cells, least, mean, greatest and number of different
// values, the classes with their shares, and the first `n_samples` samples. Reads all of the data. Throws
// Error(data, config).
std::string show_data(const JobConfig& job, std::int64_t n_samples);

}  // namespace varscope
