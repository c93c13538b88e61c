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

std::string make_header(const RowFileOf& of) {
  if (of.checkpoint_id.size() > kMostIdBytes)
    fail(ErrorKind::argument, "a checkpoint's id has {} bytes, more than {}", of.checkpoint_id.size(),
         kMostIdBytes);
  std::string header(kRowFileMagic);
  put_le(header, kRowFileVersion);
  put_le(header, static_cast<std::uint32_t>(of.server));
  put_le(header, of.step);
  put_le(header, static_cast<std::uint64_t>(of.checkpoint_id.size()));
  header += of.checkpoint_id;
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

// "" or what is left over of a record.
std::string cut_problem(const PartRows& rows, std::size_t row_bytes) {
  if (const std::size_t n = rows.rows.size() % row_bytes; n != 0)
    return fmt::format("ends with {} bytes of a row of {}", n, row_bytes);
  if (const std::size_t n = rows.waiting.size() % PartRows::kWaitingBytes; n != 0)
    return fmt::format("ends with {} bytes of a waiting id of {}", n, PartRows::kWaitingBytes);
  return "";
}

// The pieces of one file, one part after the other.
class PieceWriter {
 public:
  PieceWriter(Fs& fs, const std::string& dir, const RowFileOf& of, const RowBase* base)
      : step_(of.step), base_(base), file_(fs, dir, row_file_name(of.server, of.n_servers)) {
    const std::string header = make_header(of);
    file_.write(std::as_bytes(std::span(header)));
    at_ = header.size();
  }

  // What becomes of a part of which all, or what has changed, is in `rows`; without pieces where there is
  // nothing of it any more.
  RowPartRecord write(const RowFileTable& table, int part, const PartRows& rows, RowsFinite& finite,
                      const std::function<PartTotals()>& totals) {
    const auto counts = RowsCheck::Counts::of(rows, table.layout);
    RowsCheck check(table.layout, table.spec, part, counts,
                    rows.is_all ? RowsCheck::Sum::yes : RowsCheck::Sum::no);
    check.add(rows);
    std::string problem = cut_problem(rows, table.layout.row_bytes());
    if (problem.empty()) problem = check.problem();
    if (problem.empty() && rows.is_all && !rows.removed.empty()) problem = "has removed ids among all of it";
    if (!problem.empty())
      fail(ErrorKind::argument, "part {} of table \"{}\" cannot be written: it {}", part, table.variable,
           problem);
    for (std::size_t at = 0; at < rows.rows.size(); at += table.layout.row_bytes())
      finite.add(rows.rows.data() + at);
    RowPartRecord record{table.variable, part, counts.n_rows, counts.n_waiting, check.sum().digest(), {}};
    std::int64_t since = RowPiece::kBase;
    if (!rows.is_all) {
      const RowBase::Chain& chain = chain_of(table, part);
      record = go_on(chain.record, totals());
      since = chain.since;
    }
    if (record.n_rows > 0 || record.n_waiting > 0) {
      add_piece(record, rows, counts, since);
    } else {
      record.pieces.clear();
    }
    return record;
  }

  FileRecord finish() { return file_.finish(); }

 private:
  const RowBase::Chain& chain_of(const RowFileTable& table, int part) const {
    const RowBase::Chain* chain = base_ == nullptr ? nullptr : base_->chain_of(table.variable, part);
    if (chain == nullptr)
      fail(ErrorKind::argument, "part {} of table \"{}\" cannot be written: it has changes, but no base",
           part, table.variable);
    return *chain;
  }

  static RowPartRecord go_on(RowPartRecord record, const PartTotals& totals) {
    record.n_rows = totals.n_rows;
    record.n_waiting = totals.n_waiting;
    record.hash_sum = totals.hash_sum;
    for (RowPiece& p : record.pieces) ++p.file;  // behind the file that is being written
    return record;
  }

  void add_piece(RowPartRecord& record, const PartRows& rows, const RowsCheck::Counts& counts,
                 std::int64_t since) {
    if (rows.empty()) return;
    const std::span<const std::byte> removed = std::as_bytes(std::span(rows.removed));
    Digester digester;
    RowPiece piece{0, at_, at_, {}, counts.n_rows, counts.n_waiting, counts.n_removed, since, step_};
    for (const std::span<const std::byte> bytes :
         {std::span<const std::byte>(rows.rows), std::span<const std::byte>(rows.waiting), removed}) {
      digester.update(bytes);
      file_.write(bytes);
      piece.end += bytes.size();
    }
    piece.digest = digester.finish();
    at_ = piece.end;
    record.pieces.push_back(piece);
  }

  std::int64_t step_;
  const RowBase* base_;
  ChecksummedFile file_;
  std::uint64_t at_ = 0;
};

// Appends the linked files that pieces are in, and gives these their numbers.
void keep_linked_files(Fs& fs, const std::string& dir, const RowBase& base, RowFileReport& report) {
  std::vector<std::uint32_t> number(base.files.size(), 0);  // in report.files; 0: not needed
  for (RowPartRecord& r : report.parts) {
    for (RowPiece& p : r.pieces) {
      if (p.file == 0) continue;
      std::uint32_t& n = number[p.file - 1];
      if (n == 0) {
        n = static_cast<std::uint32_t>(report.files.size());
        report.files.push_back(base.files[p.file - 1]);
      }
      p.file = n;
    }
  }
  for (std::size_t i = 0; i < number.size(); ++i) {
    if (number[i] == 0) fs.remove_all(join_path(dir, base.files[i].name));
  }
}

}  // namespace

RowFileReport write_row_file(Fs& fs, const std::string& dir, const RowFileOf& of,
                             std::span<const RowFileTable> tables, const ReadPart& read, const RowBase* base,
                             const TotalsOfPart& totals) {
  RowFileReport report;
  PieceWriter writer(fs, dir, of, base);
  PartRows rows;
  for (std::size_t t = 0; t < tables.size(); ++t) {
    const RowFileTable& table = tables[t];
    report.tables.push_back({table.variable, table.spec, table.layout.slots()});
    RowsFinite finite(table);
    for (const int part : table.parts) {
      rows.clear();
      read(t, part, rows);
      RowPartRecord record = writer.write(table, part, rows, finite, [&] { return totals(t, part); });
      if (!record.pieces.empty()) report.parts.push_back(std::move(record));
    }
    finite.finish(report.not_finite);
  }
  report.files.push_back(writer.finish());
  if (base != nullptr) keep_linked_files(fs, dir, *base, report);
  return report;
}

void add_row_file(ShardReport& report, RowFileReport rows) {
  report.row_files = std::move(rows.files);
  report.tables = std::move(rows.tables);
  report.row_parts = std::move(rows.parts);
  std::ranges::move(rows.not_finite, std::back_inserter(report.not_finite));
}

std::optional<RowFileHeader> read_row_file_header(Fs& fs, const std::string& path) {
  try {
    const auto file = fs.open(path);
    const std::uint64_t size = file->size();
    if (size < kFixedHeaderBytes) return std::nullopt;
    const std::string fixed = read_range(*file, 0, kFixedHeaderBytes);
    const auto length = get_le<std::uint64_t>(fixed, kFixedHeaderBytes - 8);
    const bool is_ours = fixed.starts_with(kRowFileMagic) && length <= kMostIdBytes;
    if (!is_ours || length > size - kFixedHeaderBytes) return std::nullopt;
    return RowFileHeader{get_le<std::uint32_t>(fixed, 8), get_le<std::uint32_t>(fixed, 12),
                         get_le<std::int64_t>(fixed, 16), read_range(*file, kFixedHeaderBytes, length)};
  } catch (const Error&) {
    return std::nullopt;  // the caller already reports this file as damaged
  }
}

}  // namespace varscope
