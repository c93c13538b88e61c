#include "common/variables/variable_table.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "common/base/error.h"
#include "common/base/serialize.h"
#include "common/variables/placement.h"

namespace varscope {

ServerId VariableSpec::owner(std::int64_t slice, int n_servers) const {
  return Placement::owner(scope, slice + part.index, n_servers);
}

Slice VariableSpec::box() const {
  if (is_part()) return {part.full_shape, part.offset, shape};
  return {shape, Shape(std::vector<std::int64_t>(shape.rank(), 0)), shape};
}

InitialValues VariableSpec::initial_values(std::uint64_t seed) const {
  return {initializer, seed, full_name(), full_shape()};
}

void VariableSpec::fill(TensorView out, std::uint64_t seed, std::int64_t begin) const {
  fill(out, initial_values(seed), begin);
}

void VariableSpec::fill(TensorView out, const InitialValues& values, std::int64_t begin) const {
  if (!is_part()) return values.fill(out, begin);
  // Runs of elements that are contiguous in the whole variable: from the last axis that is divided on.
  const auto item = static_cast<std::int64_t>(size_of(out.dtype()));
  std::size_t axis = shape.rank();
  std::int64_t run = 1;
  while (axis > 0) {
    --axis;
    run *= shape[axis];
    if (shape[axis] != part.full_shape[axis]) break;
  }
  for (std::int64_t i = begin, end = begin + out.n_elements(); i < end;) {
    const std::int64_t n = std::min(run - i % run, end - i);
    std::int64_t rest = i, global = 0, stride = 1;
    for (std::size_t a = shape.rank(); a-- > 0;) {
      global += (rest % shape[a] + part.offset[a]) * stride;
      rest /= shape[a];
      stride *= part.full_shape[a];
    }
    values.fill(TensorView(out.dtype(), Shape{n}, out.bytes() + (i - begin) * item), global);
    i += n;
  }
}

void VariableSpec::fill_row(TensorView out, const InitialValues& values, std::uint64_t id) {
  const auto units = static_cast<std::uint64_t>(out.n_elements());
  values.fill(std::move(out), static_cast<std::int64_t>(id * units));
}

VariableTable::VariableTable(std::vector<VariableSpec> variables) : variables_(std::move(variables)) {
  std::set<std::string_view> names;
  for (const VariableSpec& v : variables_) {
    if (!names.insert(v.name).second) fail(ErrorKind::argument, "two variables have the name \"{}\"", v.name);
  }
}

const VariableSpec* VariableTable::find(std::string_view name) const {
  for (const VariableSpec& v : variables_) {
    if (v.name == name) return &v;
  }
  return nullptr;
}

std::int64_t VariableTable::n_parameters() const {
  std::int64_t n = 0;
  for (const VariableSpec& v : variables_) n += v.shape.n_elements();
  return n;
}

std::int64_t VariableTable::n_bytes() const {
  std::int64_t n = 0;
  for (const VariableSpec& v : variables_)
    n += v.shape.n_elements() * static_cast<std::int64_t>(size_of(v.dtype));
  return n;
}

std::vector<std::pair<std::string, TableSpec>> VariableTable::tables() const {
  std::vector<std::pair<std::string, TableSpec>> tables;
  for (const VariableSpec& v : variables_) {
    if (v.is_table()) tables.emplace_back(v.name, *v.table);
  }
  return tables;
}

void VariableTable::set_tables(const std::vector<std::pair<std::string, TableSpec>>& tables) {
  for (const auto& [name, spec] : tables) {
    const auto v = std::ranges::find(variables_, name, &VariableSpec::name);
    if (v == variables_.end() || v->shape.rank() != 2 || v->shape[0] != 0 || v->is_part())
      fail(ErrorKind::data, "table \"{}\" is no variable of shape [0, units]", name);
    v->table = spec;
  }
}

std::vector<std::pair<std::string, Compression>> VariableTable::compressions() const {
  std::vector<std::pair<std::string, Compression>> all;
  for (const VariableSpec& v : variables_) {
    if (v.compression.exists()) all.emplace_back(v.name, v.compression);
  }
  return all;
}

void VariableTable::set_compressions(const std::vector<std::pair<std::string, Compression>>& compressions) {
  for (const auto& [name, compression] : compressions) {
    const auto v = std::ranges::find(variables_, name, &VariableSpec::name);
    if (v == variables_.end())
      fail(ErrorKind::data, "variable \"{}\", which is compressed, is not there", name);
    v->compression = compression;
  }
}

Digest VariableTable::digest() const {
  std::string text = to_text(*this);
  if (const auto with = tables(); !with.empty()) text += to_text(with);
  if (const auto with = compressions(); !with.empty()) text += to_text(with);
  return digest_of(text);
}

ValuesHash::ValuesHash(const VariableTable& variables) {
  for (const VariableSpec& v : variables.variables())
    variables_[v.name].type = std::string(to_string(v.dtype)) + " " + v.shape.str();
}

void ValuesHash::add(const std::string& variable, std::int64_t slice, const Digest& digest) {
  variables_[variable].slices[slice] = digest;
}

Digest ValuesHash::finish() const {
  Digester digester;
  digester.update("values 2\n");
  for (const auto& [name, entry] : variables_) {
    digester.update(name + "\n" + entry.type + "\n" + std::to_string(entry.slices.size()) + "\n");
    for (const auto& [slice, digest] : entry.slices) {
      digester.update(std::to_string(slice) + "\n");
      digester.update(std::as_bytes(std::span(digest.bytes)));
    }
  }
  return digester.finish();
}

}  // namespace varscope
