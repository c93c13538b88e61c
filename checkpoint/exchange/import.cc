#include <algorithm>
#include <map>
#include <memory>

#include "checkpoint/directory/write_checkpoint.h"
#include "checkpoint/exchange/convert.h"
#include "checkpoint/exchange/npz.h"
#include "checkpoint/exchange/safetensors.h"
#include "checkpoint/exchange/tf_bundle.h"
#include "checkpoint/restore/reader.h"
#include "common/base/error.h"
#include "common/variables/scope_names.h"

namespace varscope {
namespace {

std::unique_ptr<TensorSource> open_source(Fs& fs, const std::string& file, ExchangeFormat format,
                                          std::vector<std::string>& skipped) {
  switch (format) {
    case ExchangeFormat::safetensors:
      return open_safetensors(fs, file);
    case ExchangeFormat::npz:
      return open_npz(fs, file);
    case ExchangeFormat::tf:
      return open_tf_bundle(fs, file, skipped);
  }
  fail(ErrorKind::argument, "format {} is not one of ours", static_cast<int>(format));
}

// Which tensors of a file are variables and which are their slots.
class ImportedModel {
 public:
  ImportedModel(const TensorSource& source, const std::vector<std::string>& slots, const std::string& file)
      : tensors_(source.tensors()), slots_(slots), file_(file) {
    for (std::size_t i = 0; i < tensors_.size(); ++i) by_name_[tensors_[i].name] = i;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      if (!is_slot(tensors_[i].name)) add_variable(i);
    }
    if (variables_.empty()) fail(ErrorKind::checkpoint, "{} has no tensors to import", file);
  }

  VariableTable table() const { return VariableTable(variables_); }

  // The values, and for what can be trained every slot.
  std::vector<ShardTensor> slices() const {
    std::vector<ShardTensor> all;
    for (const VariableSpec& v : variables_) {
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

 private:
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
    if (const std::string problem = saved_name_problem(t.name); !problem.empty())
      fail(ErrorKind::checkpoint, "{} has a tensor \"{}\": {}", file_, t.name, problem);
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
  std::map<std::string, std::size_t> by_name_;
  std::vector<VariableSpec> variables_;
  int n_slots_found_ = 0;
};

Manifest manifest_of(const ImportPlan& plan, VariableTable table) {
  Manifest m;
  m.program_version = plan.program_version;
  m.run_id = "import";
  m.step = plan.step;
  m.servers = 1;
  m.variables = std::move(table);
  m.optimizer = plan.optimizer;
  m.slots = plan.slots;
  return m;  // without workers and without a state of the coordinator: no run can go on from it
}

}  // namespace

void import_tool(Fs& fs, const std::string& file, const std::string& dir, ExchangeFormat file_format,
                 const ImportPlan& plan, ToolFormat format, std::string& out) {
  if (plan.step < 0) fail(ErrorKind::argument, "cannot import as step {}", plan.step);
  std::vector<std::string> skipped;
  const std::unique_ptr<TensorSource> source = open_source(fs, file, file_format, skipped);
  const ImportedModel model(*source, plan.slots, file);
  CheckpointDirectory directory(fs, dir);
  directory.lock("(varscope checkpoint import)");
  const std::string path =
      write_checkpoint(fs, directory, {manifest_of(plan, model.table()), model.slices(), {}},
                       [&](const ShardTensor& t, std::span<std::byte> bytes) {
                         const std::size_t* tensor = model.find(t.variable, t.slot);
                         if (tensor == nullptr) {
                           std::fill(bytes.begin(), bytes.end(), std::byte{0});
                         } else {
                           source->read(*tensor, t.box, bytes);
                         }
                       });
  const std::string hash = load_manifest(fs, path).manifest.values_hash.hex();
  const std::size_t n = model.table().size();
  if (format == ToolFormat::json) {
    out += json_text({{"path", path},
                      {"variables", n},
                      {"slots_found", model.n_slots_found()},
                      {"skipped", skipped},
                      {"values_hash", hash},
                      {"warnings", directory.warnings()}});
    return;
  }
  for (const std::string& name : skipped) out += fmt::format("left out, as it is no number: {}\n", name);
  for (const std::string& warning : directory.warnings()) out += "warning: " + warning + "\n";
  out += fmt::format("{}: {} variable{} and {} slots of them from {}, values hash {}\n", path, n,
                     n == 1 ? "" : "s", model.n_slots_found(), file, hash);
}

}  // namespace varscope
