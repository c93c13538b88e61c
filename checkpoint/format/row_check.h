#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/format/manifest.h"
#include "common/base/row_id.h"
#include "common/variables/row_layout.h"
#include "common/variables/table_spec.h"

namespace varscope {

// Looks at one piece of a part, in order of its bytes: whole records, each kind ascending by mix_row_id(), ids
// of that part; may sum up the hashes of the rows. The bytes may come cut anywhere. Borrows the layout. Not
// thread-safe.
class RowsCheck {
 public:
  enum class Sum : std::uint8_t { no, yes };
  // How many records of each kind the piece has.
  struct Counts {
    std::int64_t n_rows = 0, n_waiting = 0, n_removed = 0;
    static Counts of(const RowPiece& p) { return {p.n_rows, p.n_waiting, p.n_removed}; }
    static Counts of(const PartRows& rows, const RowLayout& layout);  // whole records alone
  };
  RowsCheck(const RowLayout& layout, const TableSpec& spec, int part, const Counts& counts,
            Sum sum = Sum::yes)
      : layout_(&layout),
        spec_(spec),
        part_(part),
        left_{counts.n_rows, counts.n_waiting, counts.n_removed},
        has_sum_(sum == Sum::yes) {}
  void add(std::span<const std::byte> bytes);
  void add(const PartRows& rows);  // a whole piece

  // "" or what was wrong first, in words that follow the part's name, after all bytes.
  std::string problem() const;
  const RowHashSum& sum() const { return sum_; }

 private:
  std::size_t record_bytes() const;
  void add_record(const std::byte* record);
  const RowLayout* layout_;
  TableSpec spec_;
  int part_;
  std::array<std::int64_t, 3> left_;  // records of each kind that are to come
  bool has_sum_;
  std::size_t kind_ = 0;
  std::vector<std::byte> cut_;  // the beginning of a record whose end comes later
  std::int64_t n_records_ = 0;  // of this kind
  std::uint64_t last_mixed_ = 0;
  std::uint64_t n_behind_ = 0;  // bytes behind the last record
  std::string problem_;
  RowHashSum sum_;
};
// Of all rows of a part, against its record: "" or both hash sums.
std::string sum_problem(const RowHashSum& sum, const RowPartRecord& record);

}  // namespace varscope
