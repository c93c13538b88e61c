#include "checkpoint/exchange/import.h"

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <span>

#include "checkpoint/directory/write_checkpoint.h"
#include "checkpoint/exchange/import_rows.h"
#include "checkpoint/restore/finite.h"
#include "common/base/error.h"
#include "common/variables/scope_names.h"

namespace varscope {
namespace {

// Which tensors of a file are variables and which are their slots.
class ImportedModel {
 public:
  ImportedModel(TensorSource& source, const ImportPlan& plan, const std::string& file)
      : tensors_(source.tensors()), slots_(plan.slots), file_(file) {
    const std::set<std::size_t> of_tables = add_tables(source, plan);
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (!of_tables.contains(i)) by_name_[tensors_[i].name] = i;
    }
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (!of_tables.contains(i) && !is_slot(tensors_[i].name)) add_variable(i);
    }
    for (const ImportedTable& t : tables_) variables_.push_back(t.variable());
    if (variables_.empty()) fail(ErrorKind::checkpoint, "{} has no tensors to import", file);
  }

  VariableTable table() const { return VariableTable(variables_); }

  // The values, and for what can be trained every slot.
  std::vector<ShardTensor> slices() const {
    std::vector<ShardTensor> all;
    for (const VariableSpec& v : variables_) {
      if (v.is_table()) continue;
      const std::vector<Slice> boxes = slice_variable(v.shape, v.dtype);
      const auto add = [&](const std::string& slot) {
        for (std::size_t i = 0; i < boxes.size(); ++i)
          all.push_back({v.name, slot, static_cast<std::int64_t>(i), v.dtype, boxes[i], {}});
      };
      add("");
      if (!v.trainable) continue;
      for (const std::string& slot : slots_) add(slot);
    }
    return all;
  }

  // Index of the value or slot in the source; nullptr for a slot that the file does not have.
  const std::size_t* find(const std::string& variable, const std::string& slot) const {
    const auto it = by_name_.find(slot.empty() ? variable : variable + "/" + slot);
    return it == by_name_.end() ? nullptr : &it->second;
  }
  int n_slots_found() const { return n_slots_found_; }
  const std::vector<std::string>& warnings() const { return warnings_; }
  std::vector<RowFileTable> tables() const {
    std::vector<RowFileTable> all;
    all.reserve(tables_.size());
    for (const ImportedTable& t : tables_) all.push_back(t.row_file_table());
    return all;
  }
  void read_part(std::size_t table, int part, std::vector<std::byte>& rows) {
    tables_[table].read_part(part, rows);
  }

 private:
  // T.ids or T.values that are of no table: as variables they would be of no use.
  void look_at_halves(const std::map<std::string, std::vector<std::size_t>>& tables) {
    constexpr std::string_view kIds = ".ids", kValues = ".values";
    for (const NamedTensor& t : tensors_) {
      const bool is_ids = t.name.ends_with(kIds);
      if (!is_ids && !t.name.ends_with(kValues)) continue;
      const std::string name = t.name.substr(0, t.name.size() - (is_ids ? kIds : kValues).size());
      if (name.empty() || tables.contains(name)) continue;
      const std::string other = name + std::string(is_ids ? kValues : kIds);
      const auto beside = std::ranges::find(tensors_, other, &NamedTensor::name);
      if (beside == tensors_.end()) {
        warnings_.push_back(
            fmt::format("tensor \"{}\" is imported as a variable; of a table it would need \"{}\" "
                        "beside it",
                        t.name, other));
      } else if (is_ids) {
        fail(
            ErrorKind::data,
            "{}: \"{}\" is {} {} and \"{}\" {} {}: the ids of a table are int64 or uint64 [n], its values float32 "
            "or float64 [n, units]; save them so, or under names that do not end in .ids and .values",
            file_, t.name, t.is_unsigned ? "uint64" : to_string(t.dtype), t.shape.str(), other,
            to_string(beside->dtype), beside->shape.str());
      }
    }
  }

  // Returns the indices of their tensors.
  std::set<std::size_t> add_tables(TensorSource& source, const ImportPlan& plan) {
    std::set<std::size_t> taken;
    const auto found = ImportedTable::find(tensors_);
    look_at_halves(found);
    for (const auto& [name, tensors] : found) {
      check_name(name);
      TableSpec spec;
      const auto ids = std::ranges::find(tensors_, name + ".ids", &NamedTensor::name);
      if (ids->is_unsigned) spec.ids = plan.string_ids.contains(name) ? IdType::string : IdType::uint64;
      if (!ids->is_unsigned && plan.string_ids.contains(name)) {
        fail(ErrorKind::config,
             "--string-ids {}: its ids in {} are int64, not the uint64 hashes of strings; leave it out", name,
             file_);
      }
      tables_.emplace_back(source, file_, name, tensors, spec);
      n_slots_found_ += tables_.back().n_slots();
      taken.insert(tensors.begin(), tensors.end());
    }
    for (const std::string& name : plan.string_ids) {
      const bool is_one =
          std::ranges::any_of(tables_, [&](const ImportedTable& t) { return t.variable().name == name; });
      if (!is_one)
        fail(ErrorKind::config, "{} has no table \"{}\" whose ids could be those of strings", file_, name);
    }
    return taken;
  }

  void check_name(const std::string& name) const {
    if (const std::string problem = saved_name_problem(name); !problem.empty())
      fail(ErrorKind::checkpoint, "{} has a tensor \"{}\": {}", file_, name, problem);
  }

  // "<variable>/<slot>" beside a tensor "<variable>" that it fits.
  bool is_slot(const std::string& name) {
    const std::size_t slash = name.rfind('/');
    if (slash == std::string::npos) return false;
    const std::string slot = name.substr(slash + 1);
    if (std::find(slots_.begin(), slots_.end(), slot) == slots_.end()) return false;
    const auto variable = by_name_.find(name.substr(0, slash));
    if (variable == by_name_.end()) return false;
    const NamedTensor &v = tensors_[variable->second], &s = tensors_[by_name_.at(name)];
    if (v.shape != s.shape || v.dtype != s.dtype) {
      fail(ErrorKind::checkpoint, "{}: \"{}\" is {} {}, but as a slot of \"{}\" it must be {} {}", file_,
           name, to_string(s.dtype), s.shape.str(), v.name, to_string(v.dtype), v.shape.str());
    }
    ++n_slots_found_;
    return true;
  }

  void add_variable(std::size_t i) {
    const NamedTensor& t = tensors_[i];
    check_name(t.name);
    if (t.is_unsigned)
      fail(
          ErrorKind::checkpoint,
          "{}: tensor \"{}\" is of dtype uint64, which varscope has as a table's ids only, and there is no \"{}\" "
          "beside it; save it as another one, or leave it out",
          file_, t.name, t.name.substr(0, t.name.size() - 4) + ".values");
    VariableSpec v;
    v.name = t.name;
    const std::size_t slash = t.name.rfind('/');
    v.scope = slash == std::string::npos ? "" : t.name.substr(0, slash);
    v.dtype = t.dtype;
    v.shape = t.shape;
    v.trainable = is_floating(t.dtype);
    variables_.push_back(std::move(v));
  }

  const std::vector<NamedTensor>& tensors_;
  const std::vector<std::string>& slots_;
  const std::string& file_;
  std::vector<std::string> warnings_;
  std::map<std::string, std::size_t> by_name_;
  std::vector<VariableSpec> variables_;
  std::vector<ImportedTable> tables_;
  int n_slots_found_ = 0;
};

Manifest manifest_of(const ImportPlan& plan, VariableTable table) {
  Manifest m;
  m.program_version = plan.program_version;
  m.run_id = run_id_of(Provenance::import);
  m.step = plan.step;
  m.servers = 1;
  m.variables = std::move(table);
  m.optimizer = plan.optimizer;
  m.slots = plan.slots;
  return m;  // without workers and without a state of the coordinator: no run can go on from it
}

}  // namespace

Imported import_checkpoint(Fs& fs, const std::string& file, const std::string& dir, ExchangeFormat format,
                           const ImportPlan& plan) {
  if (plan.step < 0) fail(ErrorKind::argument, "cannot import as step {}", plan.step);
  Imported imported;
  const std::unique_ptr<TensorSource> source =
      open_exchange_file(fs, file, format, plan.widen, imported.notes);
  ImportedModel model(*source, plan, file);
  imported.n_variables = model.table().size();
  imported.n_slots_found = model.n_slots_found();
  CheckpointDirectory directory(fs, dir);
  directory.lock("(varscope checkpoint import)");
  const auto fill = [&](const ShardTensor& t, std::span<std::byte> bytes) {
    const std::size_t* tensor = model.find(t.variable, t.slot);
    if (tensor == nullptr) {
      std::fill(bytes.begin(), bytes.end(), std::byte{0});
    } else {
      source->read(*tensor, t.box, bytes);
    }
  };
  const auto read = [&](std::size_t table, int part, PartRows& rows) {
    model.read_part(table, part, rows.rows);
  };
  imported.path = write_checkpoint(
      fs, directory, {manifest_of(plan, model.table()), model.slices(), {}, {}, model.tables()}, fill, read);
  const Manifest manifest = load_manifest(fs, imported.path).manifest;
  imported.values_hash = values_hash_of(manifest);
  imported.warnings = model.warnings();
  imported.warnings.insert(imported.warnings.end(), directory.warnings().begin(), directory.warnings().end());
  if (std::string warning = not_finite_warning(imported.path, manifest); !warning.empty())
    imported.warnings.push_back(std::move(warning));
  return imported;
}

}  // namespace varscope
