#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "worker/data/dataset.h"
#include "worker/data/number_array.h"

namespace varscope {

// IDX, the format of MNIST and Fashion-MNIST, plain or gzip-compressed. All integers are big-endian.
//
//   file   = magic dims elements
//   magic  = 0x00 0x00 type rank        2051 is bytes of rank 3, 2049 of rank 1
//   type   = 0x08 uint8 | 0x09 int8 | 0x0B int16 | 0x0C int32 | 0x0D float32 | 0x0E float64
//   dims   = rank 32-bit extents        images: count, rows, columns; labels: count
//   elements, row-major, big-endian
//
// A file must hold exactly this. Throws Error(data) that names the file and what is wrong with it.
struct IdxHeader {
  NumberType type = NumberType::uint8;
  std::vector<std::int64_t> dims;
};
IdxHeader read_idx_header(const std::filesystem::path& file);

struct IdxFile {
  std::vector<std::int64_t> dims;
  std::vector<std::uint8_t> elements;
};
// Of unsigned bytes, and of that rank.
IdxFile read_idx(const std::filesystem::path& file, int rank);
// Images of unsigned bytes: [n, h, w], or [n, h, w, c] with 1 to 4 channels.
IdxFile read_idx_images(const std::filesystem::path& file);
// Of any type and rank, in memory.
NumberArray read_idx_array(const std::filesystem::path& file);

// A file of images of bytes, grey or with channels, and one of labels, of the same count.
class IdxDataset final : public ByteImages {
 public:
  // The first `samples` of the files; 0 means all. `classes`: how many there are, whether all of them occur
  // or not; 0 means as many as the labels of the file show. Throws Error(data) also when there are fewer
  // samples, and for a label that is none of the classes: names file, label and sample (from 0).
  IdxDataset(const std::filesystem::path& images, const std::filesystem::path& labels,
             std::int64_t samples = 0, std::int64_t classes = 0);
};

}  // namespace varscope
