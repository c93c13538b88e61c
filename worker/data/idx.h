#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "worker/data/dataset.h"

namespace varscope {

// IDX, the format of MNIST and Fashion-MNIST, plain or gzip-compressed. All integers are big-endian.
//
//   file   = magic dims elements
//   magic  = 0x00 0x00 0x08 rank        0x08: unsigned bytes; 2051 is rank 3, 2049 is rank 1
//   dims   = rank 32-bit extents        images: count, rows, columns; labels: count
//   elements, one byte each, row-major
//
// A file must hold exactly this. Throws Error(data) that names the file and what is wrong with it.
struct IdxFile {
  std::vector<std::int64_t> dims;
  std::vector<std::uint8_t> elements;
};
IdxFile read_idx(const std::filesystem::path& file, int rank);

// A file of images and one of labels, of the same count.
class IdxDataset final : public ByteImages {
 public:
  // The first `samples` of the files; 0 means all. `classes`: how many there are, whether all of them occur
  // or not; 0 means as many as the labels of the file show. Throws Error(data) also when there are fewer
  // samples, and for a label that is none of the classes: names file, label and sample (from 0).
  IdxDataset(const std::filesystem::path& images, const std::filesystem::path& labels,
             std::int64_t samples = 0, std::int64_t classes = 0);
};

}  // namespace varscope
