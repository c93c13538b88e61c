#include "checkpoint/restore/reader.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <tuple>

#include "checkpoint/directory/scan.h"
#include "checkpoint/format/boxes.h"
#include "checkpoint/format/row_chain.h"
#include "checkpoint/format/row_file.h"
#include "common/base/error.h"

namespace varscope {
namespace {

// Whether the boxes meet; as intersect(), without making the box.
bool meet(const Slice& a, const Slice& b) {
  for (std::size_t axis = 0; axis < a.full.rank(); ++axis) {
    if (a.offset[axis] + a.extent[axis] <= b.offset[axis] ||
        b.offset[axis] + b.extent[axis] <= a.offset[axis]) {
      return false;
    }
  }
  return true;
}

RowHashSum hash_sum_of(const RowLayout& layout, std::span<const std::byte> rows) {
  RowHashSum sum;
  for (; !rows.empty(); rows = rows.subspan(layout.row_bytes()))
    sum.add(RowLayout::id_of(rows.data()), rows.subspan(RowLayout::kValuesAt, layout.value_bytes()));
  return sum;
}

}  // namespace

CheckpointReader CheckpointReader::open(Fs& fs, const std::string& path) {
  return open(fs, path, load_manifest(fs, path).manifest);
}

CheckpointReader CheckpointReader::open(Fs& fs, FoundCheckpoint found) {
  return found.manifest ? open(fs, found.path, std::move(*found.manifest)) : open(fs, found.path);
}

CheckpointReader CheckpointReader::open(Fs& fs, const std::string& path, Manifest manifest) {
  if (const auto problems = file_problems(fs, path, manifest); !problems.empty()) {
    fail(ErrorKind::checkpoint, "checkpoint {} is damaged: {}", path, fmt::join(problems, "; "));
  }
  return {fs, path, std::move(manifest)};
}

CheckpointReader::CheckpointReader(Fs& fs, std::string path, Manifest manifest)
    : fs_(&fs), path_(std::move(path)), manifest_(std::move(manifest)), files_(manifest_.files.size()) {
  std::map<std::string_view, const VariableSpec*> by_name;
  for (const VariableSpec& v : manifest_.variables.variables()) by_name[v.name] = &v;
  for (const TensorRecord& t : manifest_.tensors) {
    const VariableSpec& v = *by_name.at(t.variable);  // check_manifest has seen to it
    saved_[{v.full_name(), t.slot}].push_back({in_whole(v, Slice::from_spec(t.box)), &t});
  }
  for (const RowPartRecord& r : manifest_.row_parts) parts_[r.variable][r.part] = &r;
  for (auto& [key, saved] : saved_) {
    std::sort(saved.begin(), saved.end(), [](const Saved& a, const Saved& b) {
      return std::tie(a.record->file, a.record->begin) < std::tie(b.record->file, b.record->begin);
    });
  }
}

std::vector<std::string> CheckpointReader::verify() const { return verify_files(*fs_, path_, manifest_); }

void CheckpointReader::check_model(const VariableTable& wanted, const std::vector<std::string>& slots,
                                   const std::string& optimizer, const RowSlots& row_slots) const {
  refuse(path_, "the model",
         plan_restore(manifest_, wanted, slots, optimizer, row_slots).problems(RestorePlan::Extra::include),
         "nothing was restored; use the config it was made with, or start without resuming");
}

bool CheckpointReader::has(const std::string& variable, const std::string& slot) const {
  return saved_.contains({full_name(variable), slot});
}

const VariableSpec* CheckpointReader::saved_part(const std::string& name) const {
  const VariableSpec* v = manifest_.variables.find(name);
  return v != nullptr && v->is_part() ? v : nullptr;
}

const std::string& CheckpointReader::full_name(const std::string& name) const {
  const VariableSpec* part = saved_part(name);
  return part != nullptr ? part->full_name() : name;
}

const std::vector<CheckpointReader::Saved>& CheckpointReader::find(const std::string& variable,
                                                                   const std::string& slot) const {
  const auto it = saved_.find({variable, slot});
  if (it == saved_.end()) {
    fail(ErrorKind::checkpoint, "checkpoint {} has no values of variable \"{}\"{}", path_, variable,
         slot.empty() ? "" : fmt::format(" slot \"{}\"", slot));
  }
  return it->second;
}

DType CheckpointReader::dtype(const std::string& variable, const std::string& slot) const {
  return find(full_name(variable), slot).front().record->dtype;
}

void CheckpointReader::read(const VariableSpec& variable, const std::string& slot, const Slice& box,
                            TensorView out) {
  if (box.full != variable.shape) {
    fail(ErrorKind::argument, "a box of a variable of shape {} was asked of \"{}\", which has {}",
         box.full.str(), variable.name, variable.shape.str());
  }
  read(variable.full_name(), slot, in_whole(variable, box), out);
}

void CheckpointReader::read(const std::string& variable, const std::string& slot, const Slice& box,
                            TensorView out) {
  if (const VariableSpec* part = saved_part(variable)) return read(*part, slot, box, out);
  const std::vector<Saved>& saved = find(variable, slot);
  const TensorRecord& first = *saved.front().record;
  if (box.full != saved.front().box.full) {
    fail(ErrorKind::argument, "a box of a variable of shape {} was asked of \"{}\", which has {}",
         box.full.str(), variable, saved.front().box.full.str());
  }
  if (out.dtype() != first.dtype || out.n_elements() != box.n_elements()) {
    fail(ErrorKind::argument, "memory for {} {} was given for {} {} of \"{}\"", out.n_elements(),
         to_string(out.dtype()), box.n_elements(), to_string(first.dtype), variable);
  }
  std::int64_t copied = 0;
  for (const Saved& s : saved) {
    if (!meet(s.box, box)) continue;
    const auto common = intersect(s.box, box);
    if (!common) continue;
    copy_common(s, *common, box, out);
    copied += common->n_elements();
  }
  if (copied != box.n_elements()) {
    fail(ErrorKind::checkpoint, "checkpoint {} holds {} of the {} elements of box \"{}\" of \"{}\"", path_,
         copied, box.n_elements(), box.spec(), variable);
  }
}

void CheckpointReader::copy_common(const Saved& saved, const Slice& common, const Slice& box,
                                   TensorView out) {
  const TensorRecord& record = *saved.record;
  const std::size_t item = size_of(record.dtype);
  const bool is_whole = common.n_elements() == saved.box.n_elements();
  const std::byte* bytes = nullptr;  // of the whole record, once it has been read
  for_each_run(common, saved.box, box, [&](std::int64_t from, std::int64_t to, std::int64_t n) {
    const std::span<std::byte> run(out.bytes() + static_cast<std::size_t>(to) * item,
                                   static_cast<std::size_t>(n) * item);
    const std::uint64_t at = static_cast<std::uint64_t>(from) * item;
    if (!is_whole) return read_bytes(record.file, record.begin + at, run);
    if (run.size() == record.end - record.begin) return read_record(record, run);
    if (bytes == nullptr) {
      scratch_.resize(static_cast<std::size_t>(record.end - record.begin));
      read_record(record, scratch_);
      bytes = scratch_.data();
    }
    std::memcpy(run.data(), bytes + at, run.size());
  });
}

void CheckpointReader::read_record(const TensorRecord& record, std::span<std::byte> out) {
  read_digested({record.file, record.begin, &record.digest}, out, [&] {
    return fmt::format("slice {} of variable \"{}\"{}", record.slice, record.variable,
                       record.slot.empty() ? "" : fmt::format(" slot \"{}\"", record.slot));
  });
}

// All of a record is wanted, as where only the number of servers has changed: its own digest stands for the
// CRC blocks', and not a byte more is read.
void CheckpointReader::read_digested(const Digested& from, std::span<std::byte> out,
                                     const std::function<std::string()>& what) {
  Digester digester;
  ReadFile& file = open_file(from.file);
  // In pieces that are still in the cache when they are hashed.
  for (std::size_t at = 0; at < out.size(); at += kPieceBytes) {
    const std::span<std::byte> piece = out.subspan(at, std::min(kPieceBytes, out.size() - at));
    file.read_at(from.begin + at, piece);
    digester.update(piece);
  }
  n_bytes_read_ += out.size();
  if (digester.finish() == *from.digest) return;
  read_bytes(from.file, from.begin, out);  // names the CRC block
  fail(ErrorKind::checkpoint, "{} is damaged: {} has another hash than the manifest",
       join_path(path_, manifest_.files[from.file].name), what());
}

const TableRecord& CheckpointReader::table(const std::string& name) const {
  const TableRecord* table = find_table(manifest_, name);
  if (table == nullptr) fail(ErrorKind::checkpoint, "checkpoint {} has no table \"{}\"", path_, name);
  return *table;
}

const RowPartRecord* CheckpointReader::find_part(const std::string& name, int part) const {
  const TableRecord& t = table(name);
  if (part < 0 || part >= t.spec.parts)
    fail(ErrorKind::argument, "part {} was asked of table \"{}\", which has {}", part, name, t.spec.parts);
  const auto parts = parts_.find(name);
  if (parts == parts_.end()) return nullptr;
  const auto it = parts->second.find(part);
  return it == parts->second.end() ? nullptr : it->second;
}

std::int64_t CheckpointReader::n_rows(const std::string& table, int part) const {
  const RowPartRecord* record = find_part(table, part);
  return record == nullptr ? 0 : record->n_rows;
}

void CheckpointReader::read_piece(const TableRecord& table, const RowLayout& layout, int part,
                                  const RowPiece& piece, PartRows& out) {
  const auto who = [&] { return fmt::format("part {} of table \"{}\"", part, table.variable); };
  const auto n = [](std::int64_t count, std::size_t each) { return static_cast<std::size_t>(count) * each; };
  out.is_all = piece.is_base();
  std::vector<std::byte>& bytes = out.rows;  // of all lists at first
  bytes.resize(static_cast<std::size_t>(piece.n_bytes()));
  read_digested({piece.file, piece.begin, &piece.digest}, bytes, who);
  RowsCheck check(layout, table.spec, part, RowsCheck::Counts::of(piece), RowsCheck::Sum::no);
  check.add(bytes);
  if (const std::string problem = check.problem(); !problem.empty())
    fail(ErrorKind::checkpoint, "{} is damaged: {} {}", join_path(path_, manifest_.files[piece.file].name),
         who(), problem);
  const auto waiting = bytes.begin() + static_cast<std::ptrdiff_t>(n(piece.n_rows, layout.row_bytes()));
  const auto removed = waiting + static_cast<std::ptrdiff_t>(n(piece.n_waiting, PartRows::kWaitingBytes));
  out.waiting.assign(waiting, removed);
  out.removed.resize(static_cast<std::size_t>(piece.n_removed));
  std::copy(removed, bytes.end(), std::as_writable_bytes(std::span(out.removed)).begin());
  bytes.erase(waiting, bytes.end());
}

void CheckpointReader::read_part(const std::string& name, int part, PartRows& out) {
  out.clear();
  const RowPartRecord* record = find_part(name, part);
  if (record == nullptr) return;
  const TableRecord& table = this->table(name);
  const RowLayout layout = row_layout(name);
  std::vector<PartRows> pieces(record->pieces.size());
  for (std::size_t i = 0; i < pieces.size(); ++i)
    read_piece(table, layout, part, record->pieces[i], pieces[i]);
  std::string problem = merge_pieces(layout, table.spec, manifest_.step, pieces, out);
  const auto n_rows = static_cast<std::int64_t>(out.rows.size() / layout.row_bytes());
  const auto n_waiting = static_cast<std::int64_t>(out.waiting.size() / PartRows::kWaitingBytes);
  if (problem.empty() && (n_rows != record->n_rows || n_waiting != record->n_waiting))
    problem = fmt::format("has {} rows and {} waiting ids instead of {} and {}", n_rows, n_waiting,
                          record->n_rows, record->n_waiting);
  if (problem.empty()) problem = sum_problem(hash_sum_of(layout, out.rows), *record);
  if (problem.empty()) return;
  std::vector<std::string_view> files;
  files.reserve(record->pieces.size());
  for (const RowPiece& p : record->pieces) files.push_back(manifest_.files[p.file].name);
  fail(ErrorKind::checkpoint, "{} is damaged: part {} of table \"{}\" {}",
       join_path(path_, fmt::format("{}", fmt::join(files, " and "))), part, name, problem);
}

void CheckpointReader::read_rows(const std::string& table, int part, std::vector<std::byte>& rows) {
  PartRows read;
  std::swap(read.rows, rows);  // its memory is used again
  read_part(table, part, read);
  std::swap(read.rows, rows);
}

void CheckpointReader::read_waiting(const std::string& table, int part, std::vector<std::byte>& waiting) {
  PartRows read;
  read_part(table, part, read);
  waiting = std::move(read.waiting);
}

ReadFile& CheckpointReader::open_file(std::uint32_t file) {
  if (files_[file] == nullptr) files_[file] = fs_->open(join_path(path_, manifest_.files[file].name));
  return *files_[file];
}

std::string CheckpointReader::read_file(const std::string& name) {
  for (std::size_t i = 0; i < manifest_.files.size(); ++i) {
    const FileRecord& f = manifest_.files[i];
    if (f.name != name) continue;
    std::string bytes(static_cast<std::size_t>(f.size), '\0');
    read_bytes(static_cast<std::uint32_t>(i), 0, std::as_writable_bytes(std::span(bytes)));
    if (digest_of(std::string_view(bytes)) != f.digest) {
      fail(ErrorKind::checkpoint, "{} is damaged: its hash is not the manifest's", join_path(path_, name));
    }
    return bytes;
  }
  fail(ErrorKind::checkpoint, "checkpoint {} has no file {}", path_, name);
}

void CheckpointReader::read_bytes(std::uint32_t file, std::uint64_t begin, std::span<std::byte> out) {
  const FileRecord& record = manifest_.files[file];
  while (!out.empty()) {
    const std::uint64_t index = begin / record.crc_block_bytes;
    const std::uint64_t at = begin % record.crc_block_bytes;
    const std::uint64_t whole = std::min<std::uint64_t>(record.crc_block_bytes, record.size - (begin - at));
    const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), whole - at));
    if (n == whole) {
      read_block(file, index, out.first(n));  // all of it is wanted: no copy
    } else {
      std::memcpy(out.data(), cached_block(file, index).bytes.data() + at, n);
    }
    begin += n;
    out = out.subspan(n);
  }
}

const CheckpointReader::CrcBlock& CheckpointReader::cached_block(std::uint32_t file, std::uint64_t index) {
  for (const CrcBlock& c : cache_) {
    if (!c.bytes.empty() && c.file == file && c.index == index) return c;
  }
  const FileRecord& record = manifest_.files[file];
  const std::uint64_t begin = index * record.crc_block_bytes;
  CrcBlock& block = cache_[next_victim_];
  block.file = file;
  block.index = index;
  block.bytes.resize(
      static_cast<std::size_t>(std::min<std::uint64_t>(record.crc_block_bytes, record.size - begin)));
  try {
    read_block(file, index, block.bytes);
  } catch (const Error&) {
    block.bytes.clear();
    throw;
  }
  next_victim_ = (next_victim_ + 1) % cache_.size();
  return block;
}

void CheckpointReader::read_block(std::uint32_t file, std::uint64_t index, std::span<std::byte> out) {
  const FileRecord& record = manifest_.files[file];
  ReadFile& source = open_file(file);
  const std::uint64_t begin = index * record.crc_block_bytes;
  std::uint32_t crc = 0;
  for (std::size_t at = 0; at < out.size(); at += kPieceBytes) {
    const std::span<std::byte> piece = out.subspan(at, std::min(kPieceBytes, out.size() - at));
    source.read_at(begin + at, piece);
    crc = crc32c(piece, crc);
  }
  n_bytes_read_ += out.size();
  if (crc == record.crc32c[index]) return;
  fail(ErrorKind::checkpoint,
       "{} is damaged: CRC block {} (from byte {}) has crc32c {:08x} instead of {:08x}",
       join_path(path_, record.name), index, begin, crc, record.crc32c[index]);
}

}  // namespace varscope
