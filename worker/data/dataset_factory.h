#pragma once

#include <filesystem>
#include <memory>

#include "common/config/job_config.h"
#include "worker/data/dataset.h"

namespace varscope {

// The folder in which data sets are searched: the environment's VARSCOPE_DATA, or "data".
std::filesystem::path data_root();

// Throws Error(config) for a test source that does not go with the source of data.train, as far as the two
// configs tell: a text of another vocabulary, or of other steps, or that would be tested on words that were
// trained on.
void check_test_source(const DataSourceConfig& test, const DataSourceConfig& train);

// Reads or draws a data set. Relative files and folders are under `root`. `split` counts where the config
// leaves it open; a text is read as `streams` sequences side by side. `train` is the config's data.train,
// when this is another source: a test text has the training text's vocabulary, and where it is another file
// all of it is read; images have its number of classes, unless they say another. Throws Error(data), or
// Error(config) for a test text that does not go with the training text.
std::unique_ptr<Dataset> make_dataset(const DataSourceConfig& source, DataSplit split,
                                      std::int64_t streams = 1, const DataSourceConfig* train = nullptr,
                                      const std::filesystem::path& root = data_root());

}  // namespace varscope
