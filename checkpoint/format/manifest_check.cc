#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "checkpoint/format/boxes.h"
#include "checkpoint/format/manifest.h"
#include "common/base/error.h"

namespace varscope {
namespace {

constexpr std::uint32_t kMinCrcBlockBytes = 512, kMaxCrcBlockBytes = 64U << 20;
constexpr int kMaxRanks = 1 << 20;

[[noreturn]] void bad(const std::string& message) { throw Error(ErrorKind::checkpoint, message); }

void check_job(const Manifest& m) {
  if (m.endianness != "little")
    bad(fmt::format("is of a {}-endian machine; varscope reads little-endian ones", m.endianness));
  if (m.step < 0) bad(fmt::format("has the negative step {}", m.step));
  if (m.servers < 1 || m.servers > kMaxRanks) bad(fmt::format("has {} servers", m.servers));
  if (m.workers < 0 || m.workers > kMaxRanks) bad(fmt::format("has {} workers", m.workers));
  if (m.worker_clocks.size() != static_cast<std::size_t>(m.workers)) {
    bad(fmt::format("has {} workers but the clocks of {}", m.workers, m.worker_clocks.size()));
  }
}

// A name that stays inside the checkpoint's directory and is not one of our own.
bool is_file_name(const std::string& name) {
  return !name.empty() && name[0] != '.' && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos && name != kManifestName && name != kManifestJsonName;
}

void check_files(const Manifest& m) {
  std::set<std::string_view> names;
  for (const FileRecord& f : m.files) {
    if (!is_file_name(f.name)) bad(fmt::format("names a file \"{}\"", f.name));
    if (!names.insert(f.name).second) bad(fmt::format("names the file {} twice", f.name));
    if (f.crc_block_bytes < kMinCrcBlockBytes || f.crc_block_bytes > kMaxCrcBlockBytes) {
      bad(fmt::format("has CRC blocks of {} bytes in {}", f.crc_block_bytes, f.name));
    }
    const std::uint64_t blocks = f.size / f.crc_block_bytes + (f.size % f.crc_block_bytes != 0 ? 1 : 0);
    if (f.crc32c.size() != blocks) {
      bad(fmt::format("has {} checksums for the {} CRC blocks of {}", f.crc32c.size(), blocks, f.name));
    }
  }
  for (int server = 0; server < m.servers; ++server) {
    const std::string name = shard_name(server, m.servers);
    if (!names.contains(name)) bad(fmt::format("has no {}", name));
  }
}

// The box of one record, checked against its variable and its byte range.
Slice check_tensor(const Manifest& m, const TensorRecord& t, const VariableSpec* variable) {
  const std::string who = fmt::format("\"{}\" slot \"{}\" slice {}", t.variable, t.slot, t.slice);
  if (variable == nullptr) bad(fmt::format("has values of the unknown variable \"{}\"", t.variable));
  if (!t.slot.empty() && std::find(m.slots.begin(), m.slots.end(), t.slot) == m.slots.end()) {
    bad(fmt::format("has values of the unknown slot \"{}\" of \"{}\"", t.slot, t.variable));
  }
  if (t.file >= m.files.size()) bad(fmt::format("puts {} into file {} of {}", who, t.file, m.files.size()));
  if (t.begin > t.end || t.end > m.files[t.file].size) {
    bad(fmt::format("puts {} at bytes [{}, {}) of {}, which has {}", who, t.begin, t.end,
                    m.files[t.file].name, m.files[t.file].size));
  }
  const std::size_t item = size_of(t.dtype);
  if (t.slot.empty() && t.dtype != variable->dtype) {
    bad(fmt::format("stores {} as {}, the variable is {}", who, to_string(t.dtype),
                    to_string(variable->dtype)));
  }
  Slice box = Slice::from_spec(t.box);
  if (box.full != variable->shape) {
    bad(fmt::format("has a box of shape {} for {}, the variable is {}", box.full.str(), who,
                    variable->shape.str()));
  }
  if (box.n_elements() == 0) bad(fmt::format("has an empty box for {}", who));
  if (static_cast<std::uint64_t>(box.n_elements()) * item != t.end - t.begin) {
    bad(fmt::format("gives {} {} bytes for {} elements of {}", who, t.end - t.begin, box.n_elements(),
                    to_string(t.dtype)));
  }
  return box;
}

void check_ranges_apart(const Manifest& m) {
  std::vector<const TensorRecord*> sorted;
  sorted.reserve(m.tensors.size());
  for (const TensorRecord& t : m.tensors) sorted.push_back(&t);
  std::sort(sorted.begin(), sorted.end(), [](const TensorRecord* a, const TensorRecord* b) {
    return std::tie(a->file, a->begin) < std::tie(b->file, b->begin);
  });
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    const TensorRecord &a = *sorted[i - 1], &b = *sorted[i];
    if (a.file == b.file && a.end > b.begin) {
      bad(fmt::format("puts \"{}\" and \"{}\" into the same bytes of {}", a.variable, b.variable,
                      m.files[a.file].name));
    }
  }
}

// The boxes of one (variable, slot), numbered 0 .. n-1, cover the variable.
void check_group(const Manifest& m, const std::vector<std::size_t>& indices, const std::vector<Slice>& boxes,
                 const Shape& shape) {
  const TensorRecord& first = m.tensors[indices[0]];
  std::vector<Slice> group;
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const TensorRecord& t = m.tensors[indices[i]];
    if (t.slice != static_cast<std::int64_t>(i)) {
      bad(fmt::format("numbers the slices of \"{}\" slot \"{}\" wrongly: {} where {} is due", t.variable,
                      t.slot, t.slice, i));
    }
    if (t.dtype != first.dtype) bad(fmt::format("has two dtypes in \"{}\" slot \"{}\"", t.variable, t.slot));
    group.push_back(boxes[indices[i]]);
  }
  const std::string problem = coverage_problem(shape, group);
  const std::string slot = first.slot.empty() ? "" : fmt::format(" slot \"{}\"", first.slot);
  if (!problem.empty()) bad(fmt::format("is not whole: variable \"{}\"{} {}", first.variable, slot, problem));
}

Slice box_of_part(const VariableSpec& v) {
  const Shape zeros(std::vector<std::int64_t>(v.shape.rank(), 0));
  return in_whole(v, {v.shape, zeros, v.shape});
}

// A part lies inside its whole.
void check_part(const VariableSpec& v) {
  const Part& p = v.part;
  bool inside = p.full_shape.rank() == v.shape.rank() && p.offset.rank() == v.shape.rank() &&
                p.full_shape.fully_known() && p.index >= 0 && p.index < p.n_parts;
  for (std::size_t a = 0; inside && a < v.shape.rank(); ++a) {
    inside =
        p.offset[a] >= 0 && p.offset[a] <= p.full_shape[a] && v.shape[a] <= p.full_shape[a] - p.offset[a];
  }
  if (inside) return;
  bad(fmt::format("has the part \"{}\" ({} of {}) of shape {} at {} of \"{}\", which has {}", v.name, p.index,
                  p.n_parts, v.shape.str(), p.offset.str(), p.full_name, p.full_shape.str()));
}

// The parts of each whole variable agree on it and cover it.
void check_wholes(const Manifest& m) {
  std::map<std::string_view, std::vector<const VariableSpec*>> wholes;
  for (const VariableSpec& v : m.variables.variables()) {
    if (v.is_part()) check_part(v);
    wholes[v.full_name()].push_back(&v);
  }
  for (const auto& [name, parts] : wholes) {
    const VariableSpec& first = *parts.front();
    std::vector<Slice> boxes;
    for (const VariableSpec* v : parts) {
      if (v->full_shape() != first.full_shape() || v->dtype != first.dtype)
        bad(fmt::format("has parts of \"{}\" that disagree on its shape or dtype", name));
      if (v->shape.n_elements() > 0) boxes.push_back(box_of_part(*v));
    }
    const std::string problem = coverage_problem(first.full_shape(), boxes);
    if (!problem.empty()) bad(fmt::format("is not whole: variable \"{}\", by its parts, {}", name, problem));
  }
}

void check_tensors(const Manifest& m) {
  std::map<std::string_view, const VariableSpec*> by_name;
  for (const VariableSpec& v : m.variables.variables()) {
    if (!v.shape.fully_known())
      bad(fmt::format("has the variable \"{}\" of shape {}", v.name, v.shape.str()));
    by_name[v.name] = &v;
  }
  check_wholes(m);
  std::vector<Slice> boxes;
  for (const TensorRecord& t : m.tensors) {
    const auto it = by_name.find(t.variable);
    boxes.push_back(check_tensor(m, t, it == by_name.end() ? nullptr : it->second));
  }
  check_ranges_apart(m);
  const TensorIndex index = index_tensors(m);
  for (const auto& [key, indices] : index) check_group(m, indices, boxes, by_name.at(key.first)->shape);
  for (const VariableSpec& v : m.variables.variables()) {
    if (v.shape.n_elements() == 0) continue;
    if (!index.contains({v.name, ""}))
      bad(fmt::format("is not whole: it has no values of variable \"{}\"", v.name));
    for (const std::string& slot : m.slots) {
      if (v.trainable && !index.contains({v.name, slot})) {
        bad(fmt::format("is not whole: it has no slot \"{}\" of variable \"{}\"", slot, v.name));
      }
    }
  }
}

// At least one element each, of values and slots that there are.
void check_not_finite(const Manifest& m) {
  const TensorIndex index = index_tensors(m);
  std::set<std::pair<std::string_view, std::string_view>> seen;
  for (const NotFiniteTensor& t : m.not_finite) {
    const std::int64_t n =
        index.contains({t.variable, t.slot}) ? m.variables.find(t.variable)->shape.n_elements() : 0;
    const bool is_word = t.what == "nan" || t.what == "inf" || t.what == "-inf";
    const bool fits = t.n_elements >= 1 && t.n_elements <= n && t.first_element >= 0 && t.first_element < n;
    if (m.knows_not_finite && is_word && fits && seen.emplace(t.variable, t.slot).second) continue;
    bad(fmt::format("says of \"{}\" slot \"{}\" that {} elements from {} on are not finite", t.variable,
                    t.slot, t.n_elements, t.first_element));
  }
}

}  // namespace

void check_manifest(const Manifest& manifest, std::string_view what) {
  try {
    check_job(manifest);
    check_files(manifest);
    check_tensors(manifest);
    check_not_finite(manifest);
    if (values_hash_1_of(manifest) != manifest.values_hash)
      bad("has a hash of the values that is not that of its slices");
  } catch (const Error& e) {
    fail(ErrorKind::checkpoint, "{} {}", what, e.what());
  }
}

}  // namespace varscope
