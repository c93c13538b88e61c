#include "worker/data/idx.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>

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

struct Type {
  std::uint32_t code;
  NumberType type;
};
constexpr std::array kTypes = {Type{0x08, NumberType::uint8},   Type{0x09, NumberType::int8},
                               Type{0x0b, NumberType::int16},   Type{0x0c, NumberType::int32},
                               Type{0x0d, NumberType::float32}, Type{0x0e, NumberType::float64}};

// `wanted` are the ranks that bytes are expected in; none: any type and rank.
IdxHeader read_header(GzipReader& reader, std::initializer_list<int> wanted = {}) {
  const std::uint32_t magic = read_word(reader, "magic");
  const std::uint32_t rank = magic & 0xffU;
  const bool is_wanted =
      wanted.size() == 0 ||
      (magic >> 8 == 0x08 && std::ranges::find(wanted, static_cast<int>(rank)) != wanted.end());
  if (!is_wanted) {
    const int first = *wanted.begin();
    fail(ErrorKind::data, "{}: wrong magic {} (0x{:08x}); {} of unsigned bytes begin with {}", reader.name(),
         magic, magic, first == 3 ? "IDX images" : "IDX labels", 0x0800 + first);
  }
  const auto* type = std::ranges::find(kTypes, magic >> 8, &Type::code);
  if (type == kTypes.end() || rank == 0) {
    fail(ErrorKind::data,
         "{}: wrong magic {} (0x{:08x}): IDX files begin with 00 00, a type of 08 to 0E, and a rank",
         reader.name(), magic, magic);
  }
  IdxHeader header{type->type, {}};
  auto n = static_cast<std::int64_t>(size_of(header.type));
  for (std::uint32_t axis = 0; axis < rank; ++axis) {
    const std::int64_t extent = read_word(reader, axis == 0 ? "count" : "extents");
    if (extent == 0)
      fail(ErrorKind::data, "{}: extent {} of axis {} is not positive", reader.name(), extent, axis);
    if (extent > kMaxElements / n)
      fail(ErrorKind::data, "{}: the header claims more than {} bytes", reader.name(), kMaxElements);
    n *= extent;
    header.dims.push_back(extent);
  }
  return header;
}

// What follows the header, to the end of the file.
std::vector<std::uint8_t> read_elements(GzipReader& reader, const IdxHeader& header) {
  auto total = static_cast<std::int64_t>(size_of(header.type));
  for (const std::int64_t d : header.dims) total *= d;
  std::vector<std::uint8_t> elements;
  // Grown as data arrives: a header that lies costs no memory.
  constexpr std::int64_t kBlock = 4 << 20;
  for (std::int64_t begin = 0; begin < total; begin += kBlock) {
    const std::int64_t n = std::min(kBlock, total - begin);
    elements.resize(static_cast<std::size_t>(begin + n));
    const std::size_t got = reader.read(std::span(elements).subspan(static_cast<std::size_t>(begin)));
    if (got < static_cast<std::size_t>(n)) {
      fail(ErrorKind::data, "{}: truncated: {} of {} bytes that the header announces", reader.name(),
           begin + static_cast<std::int64_t>(got), total);
    }
  }
  std::array<std::uint8_t, 1> extra{};
  if (reader.read(extra) != 0) {
    fail(ErrorKind::data, "{}: trailing bytes after the {} that the header announces", reader.name(), total);
  }
  return elements;
}

}  // namespace

IdxHeader read_idx_header(const std::filesystem::path& file) {
  GzipReader reader(file);
  return read_header(reader);
}

IdxFile read_idx(const std::filesystem::path& file, int rank) {
  GzipReader reader(file);
  IdxHeader header = read_header(reader, {rank});
  std::vector<std::uint8_t> elements = read_elements(reader, header);
  return {std::move(header.dims), std::move(elements)};
}

IdxFile read_idx_images(const std::filesystem::path& file) {
  GzipReader reader(file);
  IdxHeader header = read_header(reader, {3, 4});
  if (header.dims.size() == 4 && header.dims[3] > 4)
    fail(ErrorKind::data, "{}: has images of {} channels; 1 to 4 are colours", reader.name(), header.dims[3]);
  std::vector<std::uint8_t> elements = read_elements(reader, header);
  return {std::move(header.dims), std::move(elements)};
}

NumberArray read_idx_array(const std::filesystem::path& file) {
  GzipReader reader(file);
  const IdxHeader header = read_header(reader);
  const auto elements = std::make_shared<const std::vector<std::uint8_t>>(read_elements(reader, header));
  return {reader.name(),
          elements,
          std::as_bytes(std::span(*elements)),
          {.type = header.type, .is_swapped = size_of(header.type) > 1, .is_unpacked = true},
          header.dims};
}

IdxDataset::IdxDataset(const std::filesystem::path& images, const std::filesystem::path& labels,
                       std::int64_t samples, std::int64_t classes) {
  IdxFile x = read_idx_images(images);
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
  sample_shape_ = Shape(std::vector(x.dims.begin() + 1, x.dims.end()));
  pixels_ = std::move(x.elements);
  labels_ = std::move(y.elements);
  pixels_.resize(static_cast<std::size_t>(size_ * sample_shape_.n_elements()));
  pixels_.shrink_to_fit();
  labels_.resize(static_cast<std::size_t>(size_));
}

}  // namespace varscope
