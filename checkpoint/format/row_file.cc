#include "checkpoint/format/row_file.h"

#include <algorithm>
#include <iterator>

#include "checkpoint/format/checksummed_file.h"
#include "common/base/error.h"
#include "common/base/finite.h"
#include "common/files/little_endian.h"

namespace varscope {
namespace {

constexpr std::size_t kFixedHeaderBytes = 8 + 4 + 4 + 8 + 8;
constexpr std::uint64_t kMostIdBytes = 4096;

std::string make_header(int server, std::int64_t step, const std::string& checkpoint_id) {
  if (checkpoint_id.size() > kMostIdBytes)
    fail(ErrorKind::argument, "a checkpoint's id has {} bytes, more than {}", checkpoint_id.size(),
         kMostIdBytes);
  std::string header(kRowFileMagic);
  put_le(header, kRowFileVersion);
  put_le(header, static_cast<std::uint32_t>(server));
  put_le(header, step);
  put_le(header, static_cast<std::uint64_t>(checkpoint_id.size()));
  header += checkpoint_id;
  header.resize((header.size() + 7) / 8 * 8, '\0');
  return header;
}

// What of one table's rows is not finite, row by row in their order.
class RowsFinite {
 public:
  explicit RowsFinite(const RowFileTable& table) : table_(table), found_(1 + table.layout.slots().size()) {}

  void add(const std::byte* row) {
    const RowLayout& layout = table_.layout;
    std::size_t n_bytes = layout.value_bytes();  // the slots follow them without a gap
    for (std::size_t i = 0; i < layout.slots().size(); ++i) n_bytes += layout.slot_bytes(i);
    if (count_not_finite(layout.dtype(), {row + RowLayout::kValuesAt, n_bytes}) == 0) return;
    look_at(row, 0, {row + RowLayout::kValuesAt, layout.value_bytes()});
    for (std::size_t i = 0; i < layout.slots().size(); ++i)
      look_at(row, i + 1, {row + layout.slot_at(i), layout.slot_bytes(i)});
  }
  void finish(std::vector<NotFiniteTensor>& out) {
    std::ranges::copy_if(found_, std::back_inserter(out), [](const auto& t) { return t.n_elements > 0; });
  }

 private:
  void look_at(const std::byte* row, std::size_t field, std::span<const std::byte> bytes) {
    const auto first = find_not_finite(table_.layout.dtype(), bytes);
    if (!first) return;
    NotFiniteTensor& t = found_[field];
    if (t.n_elements == 0) {
      const std::string slot = field == 0 ? "" : table_.layout.slots()[field - 1].name;
      t = {table_.variable, slot, 0, static_cast<std::int64_t>(RowLayout::id_of(row)), first->what};
    }
    t.n_elements += count_not_finite(table_.layout.dtype(), bytes);
  }

  const RowFileTable& table_;
  std::vector<NotFiniteTensor> found_;  // of the values, then of the slots
};

// One part: its record, and what of it is not finite. `rows` have been read.
RowPartRecord describe(const RowFileTable& table, int part, std::span<const std::byte> rows,
                       RowsFinite& finite) {
  RowsCheck check(table.layout, table.spec, part);
  check.add(rows);
  if (const std::string problem = check.problem(); !problem.empty())
    fail(ErrorKind::argument, "part {} of table \"{}\" cannot be written: it {}", part, table.variable,
         problem);
  for (std::size_t at = 0; at < rows.size(); at += table.layout.row_bytes()) finite.add(rows.data() + at);
  return {table.variable, part, check.n_rows(), check.sum().digest(), 0, 0, 0, digest_of(rows)};
}

}  // namespace

void RowsCheck::add(std::span<const std::byte> bytes) {
  const std::size_t row_bytes = layout_->row_bytes();
  if (!cut_.empty()) {
    const std::size_t n = std::min(row_bytes - cut_.size(), bytes.size());
    cut_.insert(cut_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
    bytes = bytes.subspan(n);
    if (cut_.size() < row_bytes) return;
    add_row(cut_.data());
    cut_.clear();
  }
  for (; bytes.size() >= row_bytes; bytes = bytes.subspan(row_bytes)) add_row(bytes.data());
  cut_.assign(bytes.begin(), bytes.end());
}

void RowsCheck::add_row(const std::byte* row) {
  const std::uint64_t id = RowLayout::id_of(row), mixed = mix_row_id(id);
  if (problem_.empty() && row_part(mixed, spec_.parts) != part_) {
    problem_ = fmt::format("has row {} (id {}) of part {}", n_rows_, id_text(spec_.ids, id),
                           row_part(mixed, spec_.parts));
  } else if (problem_.empty() && n_rows_ > 0 && mixed <= last_mixed_) {
    problem_ = fmt::format("has row {} (id {}) {}", n_rows_, id_text(spec_.ids, id),
                           mixed == last_mixed_ ? "twice" : "out of order");
  }
  last_mixed_ = mixed;
  ++n_rows_;
  sum_.add(id, {row + RowLayout::kValuesAt, layout_->value_bytes()});
}

std::string RowsCheck::problem() const {
  if (!problem_.empty() || cut_.empty()) return problem_;
  return fmt::format("ends with {} bytes of a row of {}", cut_.size(), layout_->row_bytes());
}

std::string rows_problem(const RowsCheck& check, const RowPartRecord& record) {
  if (std::string problem = check.problem(); !problem.empty()) return problem;
  if (check.n_rows() != record.n_rows)
    return fmt::format("has {} rows instead of {}", check.n_rows(), record.n_rows);
  if (check.sum().digest() == record.hash_sum) return "";
  return fmt::format("has the hash sum {} instead of {}", check.sum().digest().hex(), record.hash_sum.hex());
}

RowFileReport write_row_file(Fs& fs, const std::string& dir, int server, int n_servers, std::int64_t step,
                             const std::string& checkpoint_id, std::span<const RowFileTable> tables,
                             const ReadPart& read) {
  const std::string header = make_header(server, step, checkpoint_id);
  RowFileReport report;
  ChecksummedFile writer(fs, dir, row_file_name(server, n_servers));
  writer.write(std::as_bytes(std::span(header)));
  std::uint64_t at = header.size();
  std::vector<std::byte> rows;
  for (std::size_t t = 0; t < tables.size(); ++t) {
    const RowFileTable& table = tables[t];
    report.tables.push_back({table.variable, table.spec, table.layout.slots()});
    RowsFinite finite(table);
    for (const int part : table.parts) {
      rows.clear();
      read(t, part, rows);
      if (rows.empty()) continue;
      RowPartRecord record = describe(table, part, rows, finite);
      record.begin = at;
      record.end = at += rows.size();
      writer.write(rows);
      report.parts.push_back(std::move(record));
    }
    finite.finish(report.not_finite);
  }
  report.file = writer.finish();
  return report;
}

void add_row_file(ShardReport& report, RowFileReport rows) {
  report.row_file = std::move(rows.file);
  report.tables = std::move(rows.tables);
  report.row_parts = std::move(rows.parts);
  std::ranges::move(rows.not_finite, std::back_inserter(report.not_finite));
}

std::string checkpoint_id_of_row_file(Fs& fs, const std::string& path) {
  try {
    const auto file = fs.open(path);
    const std::uint64_t size = file->size();
    if (size < kFixedHeaderBytes) return "";
    const std::string fixed = read_range(*file, 0, kFixedHeaderBytes);
    const auto length = get_le<std::uint64_t>(fixed, kFixedHeaderBytes - 8);
    const bool is_ours = fixed.starts_with(kRowFileMagic) && length <= kMostIdBytes;
    return is_ours && length <= size - kFixedHeaderBytes ? read_range(*file, kFixedHeaderBytes, length) : "";
  } catch (const Error&) {
    return "";  // the caller already reports this file as damaged
  }
}

}  // namespace varscope
