// Pieces of a part of a row file, as a checkpoint's reader checks and merges them. The first bytes say how
// many records of each kind each piece has, and whether they are put in order first, so that chains are
// reached that no bytes at random would make.
#include <algorithm>
#include <cstdlib>
#include <map>

#include "checkpoint/format/row_chain.h"
#include "checkpoint/format/row_check.h"
#include "tests/fuzz/fuzz.h"

using namespace varscope;

namespace {

class Bytes {
 public:
  explicit Bytes(std::span<const std::uint8_t> bytes) : left_(bytes) {}
  std::uint8_t one() {
    if (left_.empty()) return 0;
    const std::uint8_t byte = left_.front();
    left_ = left_.subspan(1);
    return byte;
  }
  std::vector<std::byte> some(std::size_t n) {
    const std::span<const std::uint8_t> taken = left_.first(std::min(n, left_.size()));
    left_ = left_.subspan(taken.size());
    const auto bytes = std::as_bytes(taken);
    return {bytes.begin(), bytes.end()};
  }

 private:
  std::span<const std::uint8_t> left_;
};

// Each id once, ascending.
void put_in_order(std::vector<std::byte>& records, std::size_t n) {
  std::map<std::uint64_t, std::vector<std::byte>> sorted;
  for (std::size_t at = 0; at + n <= records.size(); at += n)
    sorted[mix_row_id(RowLayout::id_of(&records[at]))].assign(&records[at], &records[at] + n);
  records.clear();
  for (const auto& [mixed, record] : sorted) records.insert(records.end(), record.begin(), record.end());
}

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes bytes({data, size});
  const RowLayout layout(DType::float32, 1, {});
  TableSpec spec{IdType::int64, 1};
  const std::uint8_t how = bytes.one();
  spec.expire_steps = how >> 4;
  std::vector<PartRows> pieces(1 + how % 4);
  bool is_good = true;
  for (PartRows& piece : pieces) {
    const RowsCheck::Counts counts{bytes.one() % 8, bytes.one() % 8, bytes.one() % 8};
    piece.rows = bytes.some(static_cast<std::size_t>(counts.n_rows) * layout.row_bytes());
    piece.waiting = bytes.some(static_cast<std::size_t>(counts.n_waiting) * PartRows::kWaitingBytes);
    std::vector<std::byte> removed =
        bytes.some(static_cast<std::size_t>(counts.n_removed) * RowPiece::kRemovedBytes);
    if ((how & 4) != 0) {
      put_in_order(piece.rows, layout.row_bytes());
      put_in_order(piece.waiting, PartRows::kWaitingBytes);
      put_in_order(removed, RowPiece::kRemovedBytes);
    }
    std::vector<std::byte> whole = piece.rows;
    whole.insert(whole.end(), piece.waiting.begin(), piece.waiting.end());
    whole.insert(whole.end(), removed.begin(), removed.end());
    // In one go, and cut anywhere: the same is said.
    RowsCheck check(layout, spec, 0, counts), cut(layout, spec, 0, counts);
    check.add(whole);
    const std::size_t n = 1 + how % 37;
    for (std::size_t at = 0; at < whole.size(); at += n)
      cut.add(std::span(whole).subspan(at, std::min(n, whole.size() - at)));
    require(check.problem() == cut.problem() && check.sum() == cut.sum());
    piece.removed.resize(removed.size() / RowPiece::kRemovedBytes);
    const auto whole_ids = std::span(removed).first(piece.removed.size() * RowPiece::kRemovedBytes);
    std::ranges::copy(whole_ids, std::as_writable_bytes(std::span(piece.removed)).begin());
    const bool is_ordered = (how & 4) != 0 && removed.size() % RowPiece::kRemovedBytes == 0;
    is_good = is_good && (check.problem().empty() || is_ordered);
  }
  PartRows out;
  if (!is_good || !merge_pieces(layout, spec, 20, pieces, out).empty()) return 0;
  RowsCheck merged(layout, spec, 0, RowsCheck::Counts::of(out, layout));
  merged.add(out);
  require(merged.problem().empty() && out.removed.empty());
  for (std::size_t at = 0; at < out.rows.size(); at += layout.row_bytes())
    require(!spec.is_expired(RowLayout::last_of(&out.rows[at]), 20));
  return 0;
}
