#include "common/variables/table_spec.h"

#include <array>
#include <bit>

#include "common/base/error.h"
#include "common/variables/table_check.h"

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

TableSpec TableSpec::untrained() const {
  TableSpec spec = *this;
  spec.expire_steps = spec.max_rows = spec.max_waiting = 0;
  spec.when_full = WhenFull::error;
  return spec;
}

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

std::optional<TableProblem> limit_problem(const char* key, std::int64_t value, std::int64_t least_of_part,
                                          int parts) {
  const std::int64_t least = least_of_part * parts;
  if (value == 0 || value >= least) return std::nullopt;
  return TableProblem{
      key, fmt::format("{} is {}, but with {} parts it must be at least {} ({} for each part)", key, value,
                       parts, least, least_of_part)};
}

std::optional<TableProblem> kind_problem(const TableSpec& spec) {
  bool is_known = false;
  for (const IdType type : kIdTypes) is_known = is_known || spec.ids == type;
  if (!is_known)
    return TableProblem{"ids",
                        fmt::format("a table's ids are of unknown type {}", static_cast<int>(spec.ids))};
  if (spec.parts >= 1 && spec.parts <= TableSpec::kMostParts &&
      std::has_single_bit(static_cast<unsigned>(spec.parts)))
    return std::nullopt;
  return TableProblem{"parts", fmt::format("a table has {} parts, but they must be a power of two, 1 to {}",
                                           spec.parts, TableSpec::kMostParts)};
}

}  // namespace

std::optional<TableProblem> problem_of(const TableSpec& spec) {
  if (auto problem = kind_problem(spec)) return problem;
  if (spec.entry < 1 || spec.entry > TableSpec::kMostSteps) {
    return TableProblem{"entry",
                        fmt::format("entry is {}, but must be 1 to {}", spec.entry, TableSpec::kMostSteps)};
  }
  if (spec.expire_steps < 0 || spec.expire_steps > TableSpec::kMostSteps) {
    return TableProblem{"expire_steps", fmt::format("expire_steps is {}, but must be 1 to {}, or 0 for never",
                                                    spec.expire_steps, TableSpec::kMostSteps)};
  }
  if (auto problem = limit_problem("max_rows", spec.max_rows, TableSpec::kLeastRowsPerPart, spec.parts))
    return problem;
  if (auto problem =
          limit_problem("max_waiting", spec.max_waiting, TableSpec::kLeastWaitingPerPart, spec.parts))
    return problem;
  if (spec.when_full != WhenFull::error && spec.max_rows == 0) {
    return TableProblem{"when_full", fmt::format("when_full is {}, but without max_rows no part is ever full",
                                                 to_string(spec.when_full))};
  }
  if (spec.max_waiting > 0 && spec.entry == 1) {
    return TableProblem{"max_waiting",
                        fmt::format("max_waiting is {}, but with entry 1 no id waits", spec.max_waiting)};
  }
  return std::nullopt;
}

void TableSpec::check(std::string_view what) const {
  if (const auto problem = problem_of(*this)) fail(ErrorKind::argument, "{}: {}", what, problem->text);
}

}  // namespace varscope
