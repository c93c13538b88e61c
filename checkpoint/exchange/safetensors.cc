#include "checkpoint/exchange/safetensors.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

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
  std::string tensor;
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

struct Entry {
  NamedTensor tensor;
  Range range;
  StoredType type;
};

Entry parse_entry(const std::string& name, const Json& entry, std::uint64_t n_data, Widen how) {
  const std::string who = fmt::format("tensor \"{}\"", name);
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string())
    bad(who + " has no \"dtype\"");
  const std::string dtype_name = entry["dtype"];
  const bool is_unsigned = dtype_name == kUnsignedSafetensors && may_be_ids(name);
  const std::optional<DType> dtype = is_unsigned ? DType::int64 : dtype_of_name(dtype_name);
  const StoredType type =
      dtype ? StoredType{*dtype}
            : require_widening(foreign_type_of_safetensors(dtype_name), dtype_name, how, who);
  const Shape shape = checked_shape(numbers(entry, "shape", who), type, n_data, who);
  const std::vector<std::int64_t> at = numbers(entry, "data_offsets", who);
  if (at.size() != 2 || at[0] > at[1] || static_cast<std::uint64_t>(at[1]) > n_data)
    bad(fmt::format("{} has data_offsets that are no range of the {} bytes of data", who, n_data));
  Range range{static_cast<std::uint64_t>(at[0]), static_cast<std::uint64_t>(at[1]), name};
  if (range.end - range.begin != stored_bytes(shape, type))
    bad(fmt::format("{} has {} bytes for {} {}", who, range.end - range.begin, dtype_name, shape.str()));
  return {{name, type.dtype, shape, is_unsigned}, std::move(range), type};
}

// The ranges make up the data, each byte once.
void check_ranges(std::vector<Range> ranges, std::uint64_t n_data) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  std::uint64_t at = 0;
  std::string_view last;
  for (const Range& r : ranges) {
    if (r.begin > at)
      bad(fmt::format("has a hole of {} bytes at byte {} of its data, before tensor \"{}\"", r.begin - at, at,
                      r.tensor));
    if (r.begin < at)
      bad(fmt::format("has tensors \"{}\" and \"{}\" that share bytes, from byte {} of its data on", last,
                      r.tensor, r.begin));
    at = r.end;
    last = r.tensor;
  }
  if (at != n_data) bad(fmt::format("has {} bytes of data that belong to no tensor", n_data - at));
}

// A JSON object holds one value of each key: the parser would drop the first of two tensors without a word.
// The same for keys inside an entry.
Json parse_header(const std::string& text) {
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  std::vector<std::string> path;            // the key at which each stands
  const auto note = [&](int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) {
      keys.emplace_back();
      path.emplace_back();
    } else if (event == Json::parse_event_t::object_end && !keys.empty()) {
      keys.pop_back();
      path.pop_back();
    } else if (event == Json::parse_event_t::key) {
      const auto name = value.get<std::string>();
      path.back() = name;
      if (keys.back().insert(name).second) return true;
      if (keys.size() == 1) bad(fmt::format("names the tensor \"{}\" twice", name));
      bad(fmt::format("names the key \"{}\" of \"{}\" twice", name, path.front()));
    }
    return true;
  };
  Json header = Json::parse(text, note, false);
  if (!header.is_object()) bad("is no safetensors file: its header is not a JSON object");
  return header;
}

std::unique_ptr<TensorSource> parse(std::unique_ptr<ReadFile> file, Widen how, ReadNotes& notes) {
  const std::uint64_t size = file->size();
  const std::string text = read_safetensors_header(*file);
  const Json header = parse_header(text);
  const std::uint64_t data = 8 + text.size();
  std::vector<NamedTensor> tensors;
  std::vector<FileSource::Place> places;
  std::vector<Range> ranges;
  for (const auto& [name, entry] : header.items()) {
    if (name == kSafetensorsMetadata) continue;
    Entry e = parse_entry(name, entry, size - data, how);
    note_widening(notes, e.type, name);
    tensors.push_back(std::move(e.tensor));
    places.push_back({0, data + e.range.begin, e.type});
    ranges.push_back(std::move(e.range));
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

std::unique_ptr<TensorSource> open_safetensors(Fs& fs, const std::string& path, Widen how, ReadNotes& notes) {
  return open_source(fs, path,
                     [&](std::unique_ptr<ReadFile> file) { return parse(std::move(file), how, notes); });
}

}  // namespace varscope
