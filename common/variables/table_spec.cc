#include "common/variables/table_spec.h"

#include <array>
#include <bit>

#include "common/base/error.h"

namespace varscope {
namespace {

constexpr std::array kIdTypes{IdType::int64, IdType::uint64, IdType::string};

}  // namespace

const char* to_string(IdType type) {
  switch (type) {
    case IdType::int64:
      return "int64";
    case IdType::uint64:
      return "uint64";
    case IdType::string:
      return "string";
  }
  return "unknown";
}

IdType id_type_from_string(std::string_view name) {
  for (const IdType type : kIdTypes) {
    if (name == to_string(type)) return type;
  }
  fail(ErrorKind::argument, "unknown type of ids \"{}\"; there are int64, uint64, string", name);
}

std::string id_text(IdType type, std::uint64_t id) {
  switch (type) {
    case IdType::int64:
      return fmt::format("{}", static_cast<std::int64_t>(id));
    case IdType::uint64:
      break;
    case IdType::string:
      return fmt::format("#{:016x}", id);
  }
  return fmt::format("{}", id);
}

const char* to_string(WhenFull when_full) {
  switch (when_full) {
    case WhenFull::error:
      return "error";
    case WhenFull::lru:
      return "lru";
    case WhenFull::lfu:
      return "lfu";
  }
  return "unknown";
}

const char* to_string(AbsentRows absent) { return absent == AbsentRows::initial ? "initial" : "zeros"; }

std::string TableSpec::str() const {
  std::string text = fmt::format("ids: {}, parts: {}", to_string(ids), parts);
  const auto add = [&](const char* key, const auto& value) { text += fmt::format(", {}: {}", key, value); };
  if (entry > 1) add("entry", entry);
  if (expire_steps > 0) add("expire_steps", expire_steps);
  if (max_rows > 0) add("max_rows", max_rows);
  if (when_full != WhenFull::error) add("when_full", to_string(when_full));
  if (absent != AbsentRows::initial) add("absent", to_string(absent));
  if (max_waiting > 0) add("max_waiting", max_waiting);
  return text;
}

namespace {

void check_limit(std::string_view what, const char* key, std::int64_t value, std::int64_t least_of_part,
                 int parts) {
  const std::int64_t least = least_of_part * parts;
  if (value == 0 || value >= least) return;
  fail(ErrorKind::argument, "{}: {} is {}, but with {} parts it must be at least {} ({} for each part)", what,
       key, value, parts, least, least_of_part);
}

}  // namespace

void TableSpec::check(std::string_view what) const {
  bool is_known = false;
  for (const IdType type : kIdTypes) is_known = is_known || ids == type;
  if (!is_known)
    fail(ErrorKind::argument, "{}: a table's ids are of unknown type {}", what, static_cast<int>(ids));
  if (parts < 1 || parts > kMostParts || !std::has_single_bit(static_cast<unsigned>(parts))) {
    fail(ErrorKind::argument, "{}: a table has {} parts, but they must be a power of two, 1 to {}", what,
         parts, kMostParts);
  }
  if (entry < 1 || entry > kMostSteps)
    fail(ErrorKind::argument, "{}: entry is {}, but must be 1 to {}", what, entry, kMostSteps);
  if (expire_steps < 0 || expire_steps > kMostSteps)
    fail(ErrorKind::argument, "{}: expire_steps is {}, but must be 1 to {}", what, expire_steps, kMostSteps);
  check_limit(what, "max_rows", max_rows, kLeastRowsPerPart, parts);
  check_limit(what, "max_waiting", max_waiting, kLeastWaitingPerPart, parts);
  if (when_full != WhenFull::error && max_rows == 0) {
    fail(ErrorKind::argument, "{}: when_full is {}, but without max_rows no part is ever full", what,
         to_string(when_full));
  }
  if (max_waiting > 0 && entry == 1)
    fail(ErrorKind::argument, "{}: max_waiting is {}, but with entry 1 no id waits", what, max_waiting);
}

}  // namespace varscope
