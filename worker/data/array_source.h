#pragma once

#include <filesystem>
#include <memory>

#include "common/config/source_keys.h"
#include "worker/data/array_dataset.h"
#include "worker/data/source_registry.h"

namespace varscope {

// Samples in NumPy's files (docs/data.md). Throws Error(data), with the file, the array and the row, for what
// is wrong with them; Error(config) for keys that do not fit.
std::unique_ptr<Dataset> open_npy_source(const NpySource& source, const SourceContext& context);
std::unique_ptr<Dataset> open_npz_source(const NpzSource& source, const SourceContext& context);

// Samples in IDX files. Images of bytes with classes of bytes are an IdxDataset, all else an ArrayDataset.
// `classes` as IdxSource::classes, once data.train has been asked.
std::unique_ptr<Dataset> open_idx_source(const IdxSource& source, const SourceContext& context,
                                         std::int64_t classes);
// Rows of an IDX file to predict, read as the training data were.
std::unique_ptr<Dataset> open_idx_to_predict(const std::filesystem::path& file, const ArraySchema& schema);

// Rows to predict, read as the training data were: of a .npy file for a model with one input, or of an .npz
// archive with an array for each input, called as the input or as the array that it was trained on. Labels
// are taken from an array that is called as that of the training data, or y, where there is one.
std::unique_ptr<Dataset> open_arrays_to_predict(const std::filesystem::path& file, const ArraySchema& schema);

}  // namespace varscope
