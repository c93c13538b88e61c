#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/tensor.h"

namespace varscope {

// What an optimizer keeps of a row besides its values.
struct RowSlot {
  std::string name;
  std::int64_t n_elements = 0;  // units, or 1
  friend bool operator==(const RowSlot&, const RowSlot&) = default;
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& name& n_elements;
  }
};

// A row of a table, in memory and in row files: the id (u64), the step it was last pushed in (u32), how often
// it has been (u32), `units` values, the slots one behind the other; then zeros up to a multiple of 8 bytes.
// Little-endian; no padding in between.
class RowLayout {
 public:
  static constexpr std::size_t kIdAt = 0, kLastAt = 8, kCountAt = 12, kValuesAt = 16;
  RowLayout() = default;
  // Throws Error(argument) for a dtype that is not float32 or float64, and for units below 1.
  RowLayout(DType dtype, std::int64_t units, std::vector<RowSlot> slots);

  DType dtype() const { return dtype_; }
  std::int64_t units() const { return units_; }
  const std::vector<RowSlot>& slots() const { return slots_; }
  std::size_t value_bytes() const { return value_bytes_; }
  std::size_t slot_at(std::size_t i) const { return slot_at_[i]; }
  std::size_t slot_bytes(std::size_t i) const {
    return static_cast<std::size_t>(slots_[i].n_elements) * size_of(dtype_);
  }
  std::size_t row_bytes() const { return row_bytes_; }

  static std::uint64_t id_of(const std::byte* row) { return read<std::uint64_t>(row + kIdAt); }
  static std::uint32_t last_of(const std::byte* row) { return read<std::uint32_t>(row + kLastAt); }
  static std::uint32_t count_of(const std::byte* row) { return read<std::uint32_t>(row + kCountAt); }
  static void set_id(std::byte* row, std::uint64_t id) { std::memcpy(row + kIdAt, &id, sizeof id); }
  static void set_last(std::byte* row, std::uint32_t last) { std::memcpy(row + kLastAt, &last, sizeof last); }
  static void set_count(std::byte* row, std::uint32_t n) { std::memcpy(row + kCountAt, &n, sizeof n); }
  friend bool operator==(const RowLayout&, const RowLayout&) = default;

 private:
  template <class T>
  static T read(const std::byte* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  DType dtype_ = DType::float32;
  std::int64_t units_ = 0;
  std::vector<RowSlot> slots_;
  std::vector<std::size_t> slot_at_;
  std::size_t value_bytes_ = 0, row_bytes_ = 0;
};

// What a save has of one part of a table: all of it, or what has changed since an earlier step.
struct PartRows {
  bool is_all = true;
  // Of `waiting`: an id (u64), the step it occurred last in (u32), how often it has occurred (u32).
  static constexpr std::size_t kWaitingBytes = RowLayout::kValuesAt;
  std::vector<std::byte> rows;         // as RowLayout has them, ascending by mix_row_id()
  std::vector<std::byte> waiting;      // ids that are counted and have no row yet, ascending by mix_row_id()
  std::vector<std::uint64_t> removed;  // ids of which neither is there any more, ascending by mix_row_id()

  bool empty() const { return rows.empty() && waiting.empty() && removed.empty(); }
  void clear() {
    is_all = true;
    rows.clear();
    waiting.clear();
    removed.clear();
  }
};

}  // namespace varscope
