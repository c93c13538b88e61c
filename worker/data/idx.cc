#include "worker/data/idx.h"

#include <algorithm>
#include <array>
#include <string>

#include "worker/data/gzip_file.h"

namespace varscope {
namespace {

constexpr std::int64_t kMaxElements = std::int64_t{1}
                                      << 36;  // far above any real file; keeps products from overflow

std::uint32_t read_word(GzipReader& reader, const char* what) {
  std::array<std::uint8_t, 4> b{};
  const std::size_t n = reader.read(b);
  if (n < b.size())
    fail(ErrorKind::data, "{}: truncated: it ends inside the header ({})", reader.name(), what);
  return std::uint32_t{b[0]} << 24 | std::uint32_t{b[1]} << 16 | std::uint32_t{b[2]} << 8 | b[3];
}

std::vector<std::int64_t> read_header(GzipReader& reader, int rank) {
  const std::uint32_t magic = read_word(reader, "magic");
  const auto wanted = 0x0800U + static_cast<std::uint32_t>(rank);
  if (magic != wanted) {
    fail(ErrorKind::data, "{}: wrong magic {} (0x{:08x}); {} of unsigned bytes begin with {}", reader.name(),
         magic, magic, rank == 3 ? "IDX images" : "IDX labels", wanted);
  }
  std::vector<std::int64_t> dims;
  std::int64_t n = 1;
  for (int axis = 0; axis < rank; ++axis) {
    const std::int64_t extent = read_word(reader, axis == 0 ? "count" : "extents");
    if (extent == 0)
      fail(ErrorKind::data, "{}: extent {} of axis {} is not positive", reader.name(), extent, axis);
    if (extent > kMaxElements / n)
      fail(ErrorKind::data, "{}: the header claims more than {} bytes", reader.name(), kMaxElements);
    n *= extent;
    dims.push_back(extent);
  }
  return dims;
}

}  // namespace

IdxFile read_idx(const std::filesystem::path& file, int rank) {
  GzipReader reader(file);
  IdxFile idx;
  idx.dims = read_header(reader, rank);
  std::int64_t total = 1;
  for (const std::int64_t d : idx.dims) total *= d;
  // Grown as data arrives: a header that lies costs no memory.
  constexpr std::int64_t kBlock = 4 << 20;
  for (std::int64_t begin = 0; begin < total; begin += kBlock) {
    const std::int64_t n = std::min(kBlock, total - begin);
    idx.elements.resize(static_cast<std::size_t>(begin + n));
    const std::size_t got = reader.read(std::span(idx.elements).subspan(static_cast<std::size_t>(begin)));
    if (got < static_cast<std::size_t>(n)) {
      fail(ErrorKind::data, "{}: truncated: {} of {} bytes that the header announces", reader.name(),
           begin + static_cast<std::int64_t>(got), total);
    }
  }
  std::array<std::uint8_t, 1> extra{};
  if (reader.read(extra) != 0) {
    fail(ErrorKind::data, "{}: trailing bytes after the {} that the header announces", reader.name(), total);
  }
  return idx;
}

IdxDataset::IdxDataset(const std::filesystem::path& images, const std::filesystem::path& labels,
                       std::int64_t samples, std::int64_t classes) {
  IdxFile x = read_idx(images, 3);
  IdxFile y = read_idx(labels, 1);
  if (x.dims[0] != y.dims[0]) {
    fail(ErrorKind::data, "{} has {} images, but {} has {} labels", images.string(), x.dims[0],
         labels.string(), y.dims[0]);
  }
  if (samples < 0 || samples > x.dims[0]) {
    fail(ErrorKind::data, "{}: {} samples were asked for; it has {}", images.string(), samples, x.dims[0]);
  }
  // All labels count, so that a short extract has the classes of the whole.
  knows_classes_ = classes > 0;
  n_classes_ = knows_classes_ ? classes : 1 + *std::max_element(y.elements.begin(), y.elements.end());
  const auto bad = std::ranges::find_if(y.elements, [&](std::uint8_t label) { return label >= n_classes_; });
  if (bad != y.elements.end()) {
    fail(ErrorKind::data,
         "{}: sample {} has label {}, but classes are 0 to {}: mend the label or raise classes",
         labels.string(), bad - y.elements.begin(), *bad, n_classes_ - 1);
  }
  size_ = samples == 0 ? x.dims[0] : samples;
  sample_shape_ = Shape{x.dims[1], x.dims[2]};
  pixels_ = std::move(x.elements);
  labels_ = std::move(y.elements);
  pixels_.resize(static_cast<std::size_t>(size_ * sample_shape_.n_elements()));
  pixels_.shrink_to_fit();
  labels_.resize(static_cast<std::size_t>(size_));
}

}  // namespace varscope
