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

std::string TableSpec::str() const { return fmt::format("ids: {}, parts: {}", to_string(ids), parts); }

void TableSpec::check(std::string_view what) const {
  bool is_known = false;
  for (const IdType type : kIdTypes) is_known = is_known || ids == type;
  if (!is_known)
    fail(ErrorKind::argument, "{}: a table's ids are of unknown type {}", what, static_cast<int>(ids));
  if (parts < 1 || parts > kMostParts || !std::has_single_bit(static_cast<unsigned>(parts))) {
    fail(ErrorKind::argument, "{}: a table has {} parts, but they must be a power of two, 1 to {}", what,
         parts, kMostParts);
  }
}

}  // namespace varscope
