#include "checkpoint/restore/saver.h"

#include <algorithm>
#include <cstring>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/directory/write_checkpoint.h"
#include "checkpoint/restore/finite.h"
#include "checkpoint/restore/reader.h"
#include "common/base/error.h"
#include "common/variables/scope_names.h"

namespace varscope {
namespace {

std::vector<const Variable*> globals_of(const VariableStore& store) {
  return store.collection(collections::kGlobal);
}

// "variable \"a\" (model.cc:3)"
std::string text_of(const Variable& v) {
  return v.made_at().empty() ? fmt::format("variable \"{}\"", v.name())
                             : fmt::format("variable \"{}\" ({})", v.name(), v.made_at());
}

// A table's rows are on servers, never in this process's memory.
void refuse_table(const Variable& v) {
  if (!v.spec().is_table()) return;
  fail(
      ErrorKind::argument,
      "{} is a table, whose rows a saver does not have; save it by a job, and give the saver the other variables",
      text_of(v));
}

// The checkpoint, and what had to be passed over to find it.
FoundCheckpoint find_checkpoint(Fs& fs, const std::string& path_or_dir) {
  if (fs.exists(join_path(path_or_dir, kManifestName))) return {path_or_dir, {}};
  return newest_checkpoint(fs, path_or_dir);
}

}  // namespace

Saver::Saver(const VariableStore& store, Values values, const Options& options)
    : Saver(std::span<const Variable* const>(), std::move(values), options) {
  store_ = &store;
}

Saver::Saver(std::span<const Variable* const> variables, Values values, const Options& options)
    : own_fs_(options.fs == nullptr ? std::make_unique<PosixFs>() : nullptr),
      fs_(options.fs == nullptr ? own_fs_.get() : options.fs),
      values_(std::move(values)),
      retention_(options.retention) {
  for (const Variable* v : variables) add(v, "");
}

Saver::Saver(const std::map<std::string, const Variable*>& names, Values values, const Options& options)
    : Saver(std::span<const Variable* const>(), std::move(values), options) {
  for (const auto& [name, variable] : names) {
    if (const std::string problem = saved_name_problem(name); !problem.empty())
      fail(ErrorKind::argument, "a saver cannot save a variable as \"{}\": {}", name, problem);
    add(variable, name);
  }
}

// `name` is the whole's in the checkpoint; "": its own.
void Saver::add(const Variable* variable, const std::string& name) {
  if (variable == nullptr) fail(ErrorKind::argument, "a saver was given no variable for \"{}\"", name);
  if (variable->parts().empty()) return add_leaf(*variable, name);
  if (variable->combine() != Combine::concat && !name.empty()) {
    fail(ErrorKind::argument,
         "{} is put together from others and has no values of its own to save as \"{}\"; name its parts",
         text_of(*variable), name);
  }
  for (const Variable* part : variable->parts()) add(part, name);
}

void Saver::add_leaf(const Variable& variable, const std::string& name) {
  refuse_table(variable);
  if (!variable.shape().fully_known()) {
    fail(ErrorKind::argument, "{} has shape {}: what depends on the batch cannot be saved", text_of(variable),
         variable.shape().str());
  }
  Entry entry{renamed(variable.spec(), name.empty() ? variable.spec().full_name() : name), &variable};
  for (const Entry& other : entries_) {
    if (other.variable == &variable) {
      fail(ErrorKind::argument, "{} is given to the saver twice, as \"{}\" and as \"{}\"", text_of(variable),
           other.saved.full_name(), entry.saved.full_name());
    }
    const bool same_whole = other.saved.is_part() && entry.saved.is_part() &&
                            other.variable->spec().full_name() == variable.spec().full_name();
    if (other.saved.name == entry.saved.name ||
        (!same_whole && other.saved.full_name() == entry.saved.full_name())) {
      fail(ErrorKind::argument, "{} and {} would both be saved as \"{}\"", text_of(*other.variable),
           text_of(variable), entry.saved.full_name());
    }
  }
  entries_.push_back(std::move(entry));
}

std::vector<Saver::Entry> Saver::entries() const {
  if (store_ == nullptr) return entries_;
  std::vector<Entry> all;
  for (const Variable* v : globals_of(*store_)) {
    refuse_table(*v);
    all.push_back({v->spec(), v});
  }
  return all;
}

TensorView Saver::memory_of(const Entry& entry) const {
  TensorView memory = values_(*entry.variable);
  if (memory.dtype() != entry.saved.dtype || memory.shape() != entry.saved.shape) {
    fail(ErrorKind::argument, "{} is {} {}, but the saver was given memory for {} {}",
         text_of(*entry.variable), to_string(entry.saved.dtype), entry.saved.shape.str(),
         to_string(memory.dtype()), memory.shape().str());
  }
  return memory;
}

std::string Saver::save(const std::string& dir, std::int64_t step, const SaveExtras& extras) {
  if (step < 0) fail(ErrorKind::argument, "cannot save as step {}", step);
  NewCheckpoint checkpoint;
  std::vector<VariableSpec> specs;
  std::map<std::string, TensorView> memory;
  for (const Entry& entry : entries()) {
    const VariableSpec& v = entry.saved;
    const std::vector<Slice> boxes = slice_variable(v.shape, v.dtype);
    for (std::size_t i = 0; i < boxes.size(); ++i)
      checkpoint.tensors.push_back({v.name, "", static_cast<std::int64_t>(i), v.dtype, boxes[i], {}});
    memory.emplace(v.name, memory_of(entry));
    specs.push_back(v);
  }
  if (specs.empty()) fail(ErrorKind::argument, "the saver has no variables to save");
  Manifest& m = checkpoint.manifest;
  m.run_id = run_id_of(Provenance::saver);
  m.step = step;
  m.servers = 1;
  m.optimizer = "sgd";  // which has no slots
  m.unix_time = extras.unix_time;
  m.variables = VariableTable(std::move(specs));
  checkpoint.evaluation = extras.evaluation;

  CheckpointDirectory directory(*fs_, dir);
  directory.lock("(saver)");
  std::string path = write_checkpoint(
      *fs_, directory, std::move(checkpoint), [&](const ShardTensor& t, std::span<std::byte> out) {
        const auto begin = static_cast<std::size_t>(t.box.linear_begin()) * size_of(t.dtype);
        std::memcpy(out.data(), memory.at(t.variable).bytes() + begin, out.size());
      });
  warnings_ = directory.warnings();
  try {
    directory.go_back_to(step, "save");  // or retention would take the new one for the oldest
    warnings_ = directory.warnings();
    directory.retain(retention_);
    warnings_.insert(warnings_.end(), directory.warnings().begin(), directory.warnings().end());
  } catch (const Error& e) {
    warnings_.push_back(
        fmt::format("{} is committed, but others could not be set aside or removed: {}", path, e.what()));
  }
  return path;
}

Saver::Restored Saver::restore(const std::string& path_or_dir, Missing missing) {
  FoundCheckpoint found = find_checkpoint(*fs_, path_or_dir);
  const std::string path = found.path;
  std::vector<std::string> warnings = std::move(found.warnings);
  CheckpointReader reader = CheckpointReader::open(*fs_, std::move(found));
  const std::vector<Entry> all = entries();
  std::vector<VariableSpec> specs;
  specs.reserve(all.size());
  for (const Entry& entry : all) specs.push_back(entry.saved);
  const RestorePlan plan = plan_values(reader.manifest(), VariableTable(std::move(specs)));
  refuse(path, "the model",
         missing == Missing::stays ? plan.conflicts : plan.problems(RestorePlan::Extra::leave_out),
         "nothing was restored");
  // Everything is read before anything is assigned: a damaged CRC block must not leave half of a model.
  std::vector<std::pair<TensorView, Tensor>> read;
  for (const Entry& entry : all) {
    if (!reader.has(entry.saved.full_name(), "")) continue;
    read.emplace_back(memory_of(entry), Tensor(entry.saved.dtype, entry.saved.shape));
    const Shape& shape = entry.saved.shape;
    const Slice whole{shape, Shape(std::vector<std::int64_t>(shape.rank(), 0)), shape};
    reader.read(entry.saved, "", whole, read.back().second.view());
  }
  for (const auto& [to, from] : read) std::memcpy(to.bytes(), from.view().bytes(), from.n_bytes());
  if (std::string warning = not_finite_warning(reader); !warning.empty())
    warnings.push_back(std::move(warning));
  return {path, reader.manifest().step, plan.extra_names(), plan.missing_names(), std::move(warnings)};
}

std::optional<std::string> latest_checkpoint(Fs& fs, const std::string& dir) {
  if (list_checkpoints(fs, dir).empty()) return std::nullopt;
  return newest_checkpoint(fs, dir).path;
}

std::optional<std::string> latest_checkpoint(const std::string& dir) {
  PosixFs fs;
  return latest_checkpoint(fs, dir);
}

}  // namespace varscope
