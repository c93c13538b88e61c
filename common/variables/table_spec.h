#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <boost/serialization/version.hpp>

namespace varscope {

// What the rows of a table are asked for by. Inside the program every id has 64 bits: int64 and uint64 as
// they are (int32 inputs sign-extended), a string as the XXH3-64 of its bytes.
enum class IdType : std::uint8_t { int64 = 1, uint64 = 2, string = 3 };

const char* to_string(IdType type);            // "int64", ...
IdType id_type_from_string(std::string_view);  // throws Error(argument) that lists the names
// As a user wrote it: "-1", "18446744073709551615"; of a string its hash, "#00c0ffee00c0ffee".
std::string id_text(IdType type, std::uint64_t id);

// Which rows leave a part that has too many: none, the run ends instead; those that have occurred the longest
// time ago; those that have occurred in the fewest steps.
enum class WhenFull : std::uint8_t { error = 0, lru = 1, lfu = 2 };
// What is read of a row that is not there: its first values, or zeros.
enum class AbsentRows : std::uint8_t { initial = 0, zeros = 1 };
const char* to_string(WhenFull when_full);
const char* to_string(AbsentRows absent);

// A sparse table: a variable of shape [0, units] whose rows come into being when a step first pushes to them.
// The rows are divided by a hash of their ids into `parts`, the table's slices: what a server owns, a
// checkpoint lists, and a hash sums up. `ids` and `parts` never change during a table's life.
struct TableSpec {
  static constexpr int kDefaultParts = 1024;
  static constexpr int kMostParts = 1 << 20;
  static constexpr std::int64_t kLeastRowsPerPart = 4096;   // of max_rows
  static constexpr std::int64_t kLeastWaitingPerPart = 16;  // of max_waiting
  static constexpr std::int64_t kMostSteps =
      0xfffffffe;  // a row's clock has 32 bits, of which one is no step
  IdType ids = IdType::int64;
  int parts = kDefaultParts;  // a power of two

  // A row comes into being in the step in which its id has occurred so many times in training, all
  // occurrences in a batch counted. Until then it is waiting: its gradients are dropped.
  std::int64_t entry = 1;
  // A row, or a waiting id, that occurred last in step s is there until step s + expire_steps, and afterwards
  // as if it had never been. 0: for ever.
  std::int64_t expire_steps = 0;
  // A part with more than max_rows / parts rows loses some, as when_full says. 0: no limit.
  std::int64_t max_rows = 0;
  WhenFull when_full = WhenFull::error;
  AbsentRows absent = AbsentRows::initial;
  std::int64_t max_waiting = 0;  // as max_rows, of waiting ids; the least recent ones leave. 0: no limit

  // Whether what occurred last in step `last` is gone in step `step`: when that is trained, or after it when
  // values are evaluated, saved or hashed.
  bool is_expired(std::uint32_t last, std::int64_t step) const {
    return expire_steps > 0 && step - static_cast<std::int64_t>(last) > expire_steps;
  }
  // Of a table that is not trained: none of its rows occurs, and all of them stay.
  TableSpec untrained() const;
  std::int64_t most_rows_of_part() const { return max_rows / parts; }        // 0: no limit
  std::int64_t most_waiting_of_part() const { return max_waiting / parts; }  // 0: no limit
  // What a part that has more than `most` rows, or waiting ids, is brought down to.
  static std::int64_t kept_of(std::int64_t most) { return most - most / 16; }

  friend bool operator==(const TableSpec&, const TableSpec&) = default;
  // "ids: int64, parts: 1024", and what is not as by default: ", entry: 3, absent: zeros".
  std::string str() const;
  // Throws Error(argument) that names the key, and begins with `what`.
  void check(std::string_view what) const;
  // Class version 0 (checkpoint format 2.0) has ids and parts only.
  template <class Archive>
  void serialize(Archive& ar, unsigned version) {
    ar& ids& parts;
    if (version > 0) ar& entry& expire_steps& max_rows& when_full& absent& max_waiting;
  }
};

}  // namespace varscope

BOOST_CLASS_VERSION(varscope::TableSpec, 1)
