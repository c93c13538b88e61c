#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace varscope {

// What the rows of a table are asked for by. Inside the program every id has 64 bits: int64 and uint64 as
// they are (int32 inputs sign-extended), a string as the XXH3-64 of its bytes.
enum class IdType : std::uint8_t { int64 = 1, uint64 = 2, string = 3 };

const char* to_string(IdType type);            // "int64", ...
IdType id_type_from_string(std::string_view);  // throws Error(argument) that lists the names
// As a user wrote it: "-1", "18446744073709551615"; of a string its hash, "#00c0ffee00c0ffee".
std::string id_text(IdType type, std::uint64_t id);

// A sparse table: a variable of shape [0, units] whose rows come into being when a step first pushes to them.
// The rows are divided by a hash of their ids into `parts`, the table's slices: what a server owns, a
// checkpoint lists, and a hash sums up. Never changes during a table's life.
struct TableSpec {
  static constexpr int kDefaultParts = 1024;
  static constexpr int kMostParts = 1 << 20;
  IdType ids = IdType::int64;
  int parts = kDefaultParts;  // a power of two

  friend bool operator==(const TableSpec&, const TableSpec&) = default;
  std::string str() const;  // "ids: int64, parts: 1024"
  // Throws Error(argument) that names the key, and begins with `what`.
  void check(std::string_view what) const;
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& ids& parts;
  }
};

}  // namespace varscope
