#include "checkpoint/tools/diff.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>

#include "checkpoint/restore/reader.h"
#include "checkpoint/restore/whole_tensors.h"
#include "common/base/error.h"
#include "common/base/figures.h"

namespace varscope {
namespace {

using Json = nlohmann::json;

TensorDifference compare_tensor(CheckpointReader& a, CheckpointReader& b, const WholeTensor& t) {
  TensorDifference d{"", to_string(t.dtype), t.shape.str(), t.shape.n_elements(), 0, 0, 0, 0};
  for (const Slice& piece : slice_variable(t.shape, t.dtype)) {
    const Tensor x(t.dtype, piece.extent), y(t.dtype, piece.extent);
    a.read(t.variable, t.slot, piece, x.view());
    b.read(t.variable, t.slot, piece, y.view());
    if (std::memcmp(x.view().bytes(), y.view().bytes(), x.n_bytes()) == 0) continue;
    compare_elements(t.dtype, x.view().bytes(), y.view().bytes(), static_cast<std::size_t>(x.n_elements()),
                     d);
  }
  return d;
}

std::map<std::string, WholeTensor> by_name(const CheckpointReader& reader) {
  std::map<std::string, WholeTensor> tensors;
  for (WholeTensor& t : whole_tensors(reader)) {
    std::string name = t.slot.empty() ? t.variable : fmt::format("{} (slot {})", t.variable, t.slot);
    tensors.emplace(std::move(name), std::move(t));
  }
  return tensors;
}

std::string describe(const std::string& name, const WholeTensor& t) {
  return fmt::format("{} {} {}", name, to_string(t.dtype), t.shape.str());
}

std::string describe(const CheckpointReader& reader, const TableRecord& t) {
  const RowLayout layout = reader.row_layout(t.variable);
  return fmt::format("table {} {} of {} units, {} ids", t.variable, to_string(layout.dtype()), layout.units(),
                     to_string(t.spec.ids));
}

void compare_tables(CheckpointReader& a, CheckpointReader& b, CheckpointDifference& result) {
  for (const TableRecord& t : b.tables()) {
    if (find_table(a.manifest(), t.variable) == nullptr) result.added.push_back(describe(b, t));
  }
  for (const TableRecord& t : a.tables()) {
    const TableRecord* other = find_table(b.manifest(), t.variable);
    if (other == nullptr) {
      result.removed.push_back(describe(a, t));
      continue;
    }
    const std::string in_a = describe(a, t), in_b = describe(b, *other);
    if (in_a != in_b) {
      result.changed.push_back(in_a + " -> " + in_b);
      continue;
    }
    TableDifference d = compare_rows(a, b, t.variable);
    std::ranges::move(d.slots_added, std::back_inserter(result.added));
    std::ranges::move(d.slots_removed, std::back_inserter(result.removed));
    std::ranges::move(d.fields, std::back_inserter(result.values));
    if (d.equal()) {
      ++result.n_equal;
    } else {
      result.tables.push_back(std::move(d));
    }
  }
}

CheckpointDifference compare_readers(CheckpointReader& a, CheckpointReader& b) {
  CheckpointDifference result;
  const auto in_a = by_name(a), in_b = by_name(b);
  for (const auto& [name, t] : in_b) {
    if (!in_a.contains(name)) result.added.push_back(describe(name, t));
  }
  for (const auto& [name, t] : in_a) {
    const auto other = in_b.find(name);
    if (other == in_b.end()) {
      result.removed.push_back(describe(name, t));
      continue;
    }
    const WholeTensor& u = other->second;
    if (t.shape != u.shape || t.dtype != u.dtype) {
      result.changed.push_back(fmt::format("{} {} {} -> {} {}", name, to_string(t.dtype), t.shape.str(),
                                           to_string(u.dtype), u.shape.str()));
      continue;
    }
    TensorDifference d = compare_tensor(a, b, t);
    d.name = name;
    if (d.n_different == 0) {
      ++result.n_equal;
    } else {
      result.values.push_back(std::move(d));
    }
  }
  compare_tables(a, b, result);
  std::stable_sort(result.values.begin(), result.values.end(),
                   [](const auto& x, const auto& y) { return x.max_abs > y.max_abs; });
  return result;
}

std::string to_text(const CheckpointDifference& d) {
  std::string text;
  const auto list = [&](const char* what, const std::vector<std::string>& lines) {
    for (const std::string& line : lines) text += fmt::format("{}  {}\n", what, line);
  };
  list("added  ", d.added);
  list("removed", d.removed);
  list("changed", d.changed);
  for (const TableDifference& t : d.tables) text += fmt::format("rows of {}: {}\n", t.name, text_of(t));
  if (!d.values.empty()) {
    std::vector<std::vector<std::string>> rows = {
        {"values differ in", "dtype", "shape", "differing", "max abs", "max relative", "max ULP"}};
    for (const TensorDifference& t : d.values) {
      rows.push_back({t.name, t.dtype, t.shape, fmt::format("{} of {}", t.n_different, t.n_elements),
                      short_number(t.max_abs), short_number(t.max_relative, 3), std::to_string(t.max_ulp)});
    }
    text += text_table(rows);
  }
  return text + fmt::format(
                    "{}: {} equal, {} with other values, {} added, {} removed, {} of another shape or "
                    "dtype\n",
                    d.equal() ? "equal" : "different", d.n_equal, d.values.size(), d.added.size(),
                    d.removed.size(), d.changed.size());
}

Json to_json(const CheckpointDifference& d) {
  Json values = Json::array();
  for (const TensorDifference& t : d.values) {
    values.push_back({{"name", t.name},
                      {"dtype", t.dtype},
                      {"shape", t.shape},
                      {"elements", t.n_elements},
                      {"differing", t.n_different},
                      {"max_abs", t.max_abs},
                      {"max_relative", t.max_relative},
                      {"max_ulp", t.max_ulp}});
  }
  Json json = {{"equal", d.equal()},   {"n_equal", d.n_equal}, {"added", d.added},
               {"removed", d.removed}, {"changed", d.changed}, {"values", values}};
  for (const TableDifference& t : d.tables) json["tables"].push_back(json_of(t));
  return json;
}

}  // namespace

CheckpointDifference diff_checkpoints(Fs& fs, const std::string& a, const std::string& b) {
  CheckpointReader first = CheckpointReader::open(fs, a), second = CheckpointReader::open(fs, b);
  return compare_readers(first, second);
}

int diff_tool(Fs& fs, const std::string& a, const std::string& b, ToolFormat format, std::string& out) {
  CheckpointReader first = CheckpointReader::open(fs, a), second = CheckpointReader::open(fs, b);
  const CheckpointDifference d = compare_readers(first, second);
  const auto facts = [](const CheckpointReader& r) {
    const Manifest& m = r.manifest();
    return Json{{"path", r.path()},
                {"step", m.step},
                {"optimizer", m.optimizer},
                {"values_hash", r.values_hash().hex()}};
  };
  if (format == ToolFormat::json) {
    Json json = to_json(d);
    json["a"] = facts(first);
    json["b"] = facts(second);
    out += json_text(json);
  } else {
    for (const auto& [letter, r] : {std::pair("a", &first), std::pair("b", &second)}) {
      out += fmt::format("{}  {}  step {}, {}, values hash {}\n", letter, r->path(), r->manifest().step,
                         r->manifest().optimizer, r->values_hash().hex());
    }
    out += to_text(d);
  }
  return d.equal() ? 0 : static_cast<int>(ExitCode::difference);
}

}  // namespace varscope
