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

// Of values, slots and rows.
void check_ranges_apart(const Manifest& m) {
  struct Range {
    std::uint32_t file;
    std::uint64_t begin, end;
    const std::string* variable;
  };
  std::vector<Range> sorted;
  sorted.reserve(m.tensors.size() + 2 * m.row_parts.size());
  for (const TensorRecord& t : m.tensors) sorted.push_back({t.file, t.begin, t.end, &t.variable});
  for (const RowPartRecord& r : m.row_parts) {
    for (const RowPiece& p : r.pieces) sorted.push_back({p.file, p.begin, p.end, &r.variable});
  }
  std::sort(sorted.begin(), sorted.end(), [](const Range& a, const Range& b) {
    return std::tie(a.file, a.begin) < std::tie(b.file, b.begin);
  });
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    const Range &a = sorted[i - 1], &b = sorted[i];
    if (a.file == b.file && a.end > b.begin) {
      bad(fmt::format("puts \"{}\" and \"{}\" into the same bytes of {}", *a.variable, *b.variable,
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

constexpr std::int64_t kMostUnits = std::int64_t{1} << 31;
constexpr std::size_t kMostRowSlots = 64;

// What a table is: its variable, the slots of its rows.
void check_table(const Manifest& m, const TableRecord& t) {
  const VariableSpec* v = m.variables.find(t.variable);
  const bool fits = v != nullptr && v->table == t.spec && v->shape.rank() == 2 && v->shape[0] == 0 &&
                    v->shape[1] >= 1 && v->shape[1] <= kMostUnits && !v->is_part() &&
                    (v->dtype == DType::float32 || v->dtype == DType::float64);
  if (!fits) bad(fmt::format("has a table \"{}\", which is no variable of rows", t.variable));
  t.spec.check(fmt::format("has the table \"{}\"", t.variable));
  std::set<std::string_view> names;
  if (t.slots.size() > kMostRowSlots)
    bad(fmt::format("has {} slots in the rows of table \"{}\"", t.slots.size(), t.variable));
  for (const RowSlot& s : t.slots) {
    const bool is_size = s.n_elements == 1 || s.n_elements == v->shape[1];
    if (s.name.empty() || !is_size || !names.insert(s.name).second)
      bad(fmt::format("has the slot \"{}\" of {} elements in the rows of table \"{}\", which has {} units",
                      s.name, s.n_elements, t.variable, v->shape[1]));
  }
}

// Where one piece of a part is.
void check_piece(const Manifest& m, const RowPiece& p, std::uint64_t row_bytes, const std::string& who) {
  if (p.file >= m.files.size()) bad(fmt::format("puts {} into file {} of {}", who, p.file, m.files.size()));
  const FileRecord& file = m.files[p.file];
  const int server = server_of_row_file(file.name);
  if (server < 0) bad(fmt::format("puts {} into {}, which is no file of rows", who, file.name));
  if (p.begin >= p.end || p.end > file.size) {
    bad(fmt::format("puts {} at bytes [{}, {}) of {}, which has {}", who, p.begin, p.end, file.name,
                    file.size));
  }
  std::uint64_t left = p.n_bytes();
  const auto take = [&](std::int64_t n, std::uint64_t bytes_each) {
    if (n < 0 || static_cast<std::uint64_t>(n) > left / bytes_each)
      bad(fmt::format("gives {} {} bytes for {} rows of {}, {} waiting and {} removed ids", who, p.n_bytes(),
                      p.n_rows, row_bytes, p.n_waiting, p.n_removed));
    left -= static_cast<std::uint64_t>(n) * bytes_each;
  };
  take(p.n_rows, row_bytes);
  take(p.n_waiting, PartRows::kWaitingBytes);
  take(p.n_removed, RowPiece::kRemovedBytes);
  if (left > 0) take(-1, 1);
  const bool is_own = file.name == row_file_name(server, m.servers);
  if (p.step != (is_own ? m.step : step_of_linked_file(file.name)) || p.step > m.step)
    bad(fmt::format("has {} of step {} in {} of a checkpoint of step {}", who, p.step, file.name, m.step));
}

// Each piece but the first is of changes since a save that was not before the piece ahead of it.
void check_chain(const RowPartRecord& r, const std::string& who) {
  if (r.pieces.empty() || r.pieces.size() > kMostPieces)
    bad(fmt::format("has {} in {} pieces", who, r.pieces.size()));
  std::int64_t rows = 0, waiting = 0;
  for (std::size_t i = 0; i < r.pieces.size(); ++i) {
    const RowPiece& p = r.pieces[i];
    const bool follows =
        i == 0 ? p.is_base() && p.n_removed == 0 : p.since >= r.pieces[i - 1].step && p.step > p.since;
    if (!follows)
      bad(fmt::format("has a chain of {} that breaks at its piece {}: what changed after step {} until {}",
                      who, i, p.since, p.step));
    rows += p.n_rows;
    waiting += p.n_waiting;
  }
  const bool has_some = r.n_rows > 0 || r.n_waiting > 0;
  if (r.n_rows < 0 || r.n_waiting < 0 || r.n_rows > rows || r.n_waiting > waiting || !has_some)
    bad(fmt::format("gives {} {} rows and {} waiting ids of {} and {} in its pieces", who, r.n_rows,
                    r.n_waiting, rows, waiting));
}

// Where what there is of one part is.
void check_row_part(const Manifest& m, const RowPartRecord& r) {
  const std::string who = fmt::format("part {} of table \"{}\"", r.part, r.variable);
  const TableRecord* table = find_table(m, r.variable);
  if (table == nullptr) bad(fmt::format("has rows of the unknown table \"{}\"", r.variable));
  if (r.part < 0 || r.part >= table->spec.parts)
    bad(fmt::format("has {}, which has {} parts", who, table->spec.parts));
  const std::uint64_t row_bytes = row_layout_of(m, *table).row_bytes();
  for (const RowPiece& p : r.pieces) check_piece(m, p, row_bytes, who);
  check_chain(r, who);
}

void check_tables(const Manifest& m) {
  if ((m.format_major >= kFirstTablesMajor) != !m.tables.empty())
    bad(fmt::format("is of format {}.{} and has {} tables", m.format_major, m.format_minor, m.tables.size()));
  std::set<std::string_view> names;
  for (const TableRecord& t : m.tables) {
    if (!names.insert(t.variable).second) bad(fmt::format("has the table \"{}\" twice", t.variable));
    check_table(m, t);
  }
  for (const VariableSpec& v : m.variables.variables()) {
    const bool may_be = !m.tables.empty() && v.shape.rank() == 2 && v.shape[0] == 0 && v.shape[1] > 0;
    if ((v.is_table() || (may_be && !v.is_part())) && !names.contains(v.name))
      bad(fmt::format("has the variable \"{}\" of shape {} without saying what table it is", v.name,
                      v.shape.str()));
  }
  for (int server = 0; server < m.servers && !m.tables.empty(); ++server) {
    const std::string name = row_file_name(server, m.servers);
    if (std::ranges::find(m.files, name, &FileRecord::name) == m.files.end())
      bad(fmt::format("has no {}", name));
  }
  std::set<std::pair<std::string_view, int>> parts;
  for (const RowPartRecord& r : m.row_parts) {
    check_row_part(m, r);
    if (!parts.emplace(r.variable, r.part).second)
      bad(fmt::format("has part {} of table \"{}\" twice", r.part, r.variable));
  }
  check_ranges_apart(m);
}

// Elements of the values (slot "") or of one slot of all rows; 0 where there is no such slot.
std::int64_t elements_of_rows(const Manifest& m, const TableRecord& table, const std::string& slot) {
  const std::int64_t n_rows = totals_of(m, table.variable).n_rows;
  if (slot.empty()) return n_rows * row_layout_of(m, table).units();
  const auto it = std::ranges::find(table.slots, slot, &RowSlot::name);
  return it == table.slots.end() ? 0 : n_rows * it->n_elements;
}

// At least one element each, of values and slots that there are.
void check_not_finite(const Manifest& m) {
  const TensorIndex index = index_tensors(m);
  std::set<std::pair<std::string_view, std::string_view>> seen;
  for (const NotFiniteTensor& t : m.not_finite) {
    const VariableSpec* v = m.variables.find(t.variable);
    const bool is_table = v != nullptr && v->is_table();
    std::int64_t n = index.contains({t.variable, t.slot}) ? v->shape.n_elements() : 0;
    if (is_table) n = elements_of_rows(m, *find_table(m, t.variable), t.slot);
    const bool is_word = t.what == "nan" || t.what == "inf" || t.what == "-inf";
    const bool is_place = is_table || (t.first_element >= 0 && t.first_element < n);  // a row has any id
    const bool fits = t.n_elements >= 1 && t.n_elements <= n && is_place;
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
    check_tables(manifest);
    check_not_finite(manifest);
    if (values_hash_1_of(manifest) != manifest.values_hash)
      bad("has a hash of the values that is not that of its slices");
  } catch (const Error& e) {
    fail(ErrorKind::checkpoint, "{} {}", what, e.what());
  }
}

}  // namespace varscope
