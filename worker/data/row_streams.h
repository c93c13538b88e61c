#pragma once

#include <filesystem>
#include <memory>

#include "worker/data/csv.h"

namespace varscope {

// The rows of a data set in memory, in their order.
std::unique_ptr<RowStream> stream_dataset(std::unique_ptr<Dataset> data);

// Images without labels, of an IDX file, plain or gzip. Throws Error(data) also for images of another shape.
std::unique_ptr<Dataset> open_idx_images(const std::filesystem::path& file, const Shape& shape,
                                         std::int64_t n_classes);

}  // namespace varscope
