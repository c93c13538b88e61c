#include "checkpoint/exchange/safetensors.h"

#include <algorithm>
#include <optional>

#include <nlohmann/json.hpp>

#include "checkpoint/format/safetensors_header.h"
#include "checkpoint/storage/atomic_file.h"
#include "common/base/error.h"

namespace varscope {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kFileAlignment = 8;  // of the data

struct Range {
  std::uint64_t begin = 0, end = 0;  // in data
};

[[noreturn]] void bad(const std::string& message) { throw Error(ErrorKind::checkpoint, message); }

std::optional<DType> dtype_of_name(const std::string& name) {
  for (const DType d :
       {DType::float32, DType::float64, DType::int32, DType::int64, DType::bfloat16, DType::uint8}) {
    if (name == safetensors_dtype(d)) return d;
  }
  return std::nullopt;
}

// A JSON array of non-negative integers that fit.
std::vector<std::int64_t> numbers(const Json& entry, const char* key, const std::string& who) {
  std::vector<std::int64_t> out;
  if (!entry.contains(key) || !entry[key].is_array()) bad(fmt::format("{} has no \"{}\"", who, key));
  for (const Json& n : entry[key]) {
    if (!n.is_number_unsigned() || n.get<std::uint64_t>() > std::uint64_t{1} << 62)
      bad(fmt::format("{} has a \"{}\" that is not made of sizes", who, key));
    out.push_back(n.get<std::int64_t>());
  }
  return out;
}

std::pair<NamedTensor, Range> parse_entry(const std::string& name, const Json& entry, std::uint64_t n_data) {
  const std::string who = fmt::format("tensor \"{}\"", name);
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string())
    bad(who + " has no \"dtype\"");
  const std::string dtype_name = entry["dtype"];
  const std::optional<DType> dtype = dtype_of_name(dtype_name);
  if (!dtype) bad(fmt::format("{} is of dtype {}, which varscope does not have", who, dtype_name));
  const Shape shape = checked_shape(numbers(entry, "shape", who), *dtype, n_data, who);
  const std::vector<std::int64_t> at = numbers(entry, "data_offsets", who);
  if (at.size() != 2 || at[0] > at[1] || static_cast<std::uint64_t>(at[1]) > n_data)
    bad(fmt::format("{} has data_offsets that are no range of the {} bytes of data", who, n_data));
  NamedTensor tensor{name, *dtype, shape};
  const Range range{static_cast<std::uint64_t>(at[0]), static_cast<std::uint64_t>(at[1])};
  if (range.end - range.begin != tensor.n_bytes())
    bad(fmt::format("{} has {} bytes for {} {}", who, range.end - range.begin, dtype_name, shape.str()));
  return {std::move(tensor), range};
}

// The ranges make up the data, each byte once.
void check_ranges(std::vector<Range> ranges, std::uint64_t n_data) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  std::uint64_t at = 0;
  for (const Range& r : ranges) {
    if (r.begin != at)
      bad(fmt::format("has a hole or an overlap at byte {} of its data", std::min(at, r.begin)));
    at = r.end;
  }
  if (at != n_data) bad(fmt::format("has {} bytes of data that belong to no tensor", n_data - at));
}

std::unique_ptr<TensorSource> parse(std::unique_ptr<ReadFile> file) {
  const std::uint64_t size = file->size();
  const std::string text = read_safetensors_header(*file);
  const Json header = Json::parse(text, nullptr, false);
  if (!header.is_object()) bad("is no safetensors file: its header is not a JSON object");
  const std::uint64_t data = 8 + text.size();
  std::vector<NamedTensor> tensors;
  std::vector<FileSource::Place> places;
  std::vector<Range> ranges;
  for (const auto& [name, entry] : header.items()) {
    if (name == kSafetensorsMetadata) continue;
    auto [tensor, range] = parse_entry(name, entry, size - data);
    tensors.push_back(std::move(tensor));
    places.push_back({0, data + range.begin});
    ranges.push_back(range);
  }
  check_ranges(std::move(ranges), size - data);
  std::vector<std::unique_ptr<ReadFile>> files;
  files.push_back(std::move(file));
  return std::make_unique<FileSource>(std::move(files), std::move(tensors), std::move(places));
}

}  // namespace

void write_safetensors(Fs& fs, const std::string& path, TensorSource& source,
                       const std::map<std::string, std::string>& metadata) {
  for (const NamedTensor& t : source.tensors()) {
    if (t.name == kSafetensorsMetadata) {
      fail(ErrorKind::checkpoint, "{}: no tensor of a safetensors file can be named \"{}\"", path, t.name);
    }
  }
  AtomicFile file(fs, path);
  file.write(safetensors_header(source.tensors(), metadata, kFileAlignment));
  for (std::size_t i = 0; i < source.tensors().size(); ++i)
    stream_tensor(source, i, [&](std::span<const std::byte> bytes) { file.write(bytes); });
  file.finish();
}

std::unique_ptr<TensorSource> open_safetensors(Fs& fs, const std::string& path) {
  return open_source(fs, path, parse);
}

}  // namespace varscope
