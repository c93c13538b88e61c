#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/directory/retention.h"
#include "checkpoint/format/evaluation.h"
#include "checkpoint/restore/names.h"
#include "checkpoint/restore/restore_plan.h"
#include "checkpoint/storage/fs.h"
#include "common/base/tensor.h"
#include "common/variables/variable_scope.h"

namespace varscope {

// Saves and restores the values of variables that are in this process's memory, by name, as checkpoints of
// the format that jobs write: `varscope checkpoint`, `eval` and `warm_start` read them, and a Saver reads
// those of jobs. For programs that use varscope as a library; a job saves by its servers.
//
//   Session session(graph, seed);
//   Saver saver(store, [&](const Variable& v) { return session.value(v); }, {.retention = {.keep = 2}});
//   saver.save("checkpoints", 100);
//   saver.restore("checkpoints");          // the newest whole one
//
// Partitioned variables are saved in their parts and restored into any others; their name is that of the
// whole. Borrows the variables, which must outlive it; not thread-safe.
class Saver {
 public:
  struct Options {
    RetentionPolicy retention = {};  // applied after each save
    Fs* fs = nullptr;                // null: the real one
  };
  // Where the values of a variable (never a handle with parts) are: row-major, of its shape and dtype.
  using Values = std::function<TensorView(const Variable&)>;

  // All global variables of the store (collections::kGlobal), as they are when save or restore is called.
  Saver(const VariableStore& store, Values values, const Options& options);
  Saver(const VariableStore& store, Values values) : Saver(store, std::move(values), Options()) {}
  // These, under their own names. A handle stands for its parts.
  Saver(std::span<const Variable* const> variables, Values values, const Options& options);
  Saver(std::span<const Variable* const> variables, Values values)
      : Saver(variables, std::move(values), Options()) {}
  // These, by the names they have in the checkpoint. A handle that is a sum or a product has no name there.
  // All of these throw Error(argument) that names the entries for two of one name, for one variable under two
  // names, for a null pointer, for a local variable without a fixed shape, and for a sparse table, whose rows
  // only servers have; of a store's tables, save() and restore() do. A restore leaves the checkpoint's tables
  // alone, as Restored::extra says.
  Saver(const std::map<std::string, const Variable*>& names, Values values, const Options& options);
  Saver(const std::map<std::string, const Variable*>& names, Values values)
      : Saver(names, std::move(values), Options()) {}

  struct SaveExtras {
    std::optional<EvaluationRecord> evaluation = {};  // for RetentionPolicy::best
    std::int64_t unix_time = 0;                       // 0: now
  };
  // Writes a whole committed checkpoint of this step into the directory, which is made if need be, and
  // applies retention. Those of the same step and of later ones are set aside, as LINEAGE says: the program
  // has gone back. Returns its path. Throws Error(checkpoint) when a job writes there, Error(io); then the
  // directory holds what it held.
  std::string save(const std::string& dir, std::int64_t step, const SaveExtras& extras);
  std::string save(const std::string& dir, std::int64_t step) { return save(dir, step, SaveExtras()); }
  // What failed after the last save was committed, and did no harm.
  const std::vector<std::string>& warnings() const { return warnings_; }

  struct Restored {
    std::string path;
    std::int64_t step = 0;
    std::vector<std::string> extra;     // in the checkpoint, but not among these variables
    std::vector<std::string> missing;   // restore_partial: not in the checkpoint; they are as they were
    std::vector<std::string> warnings;  // newer checkpoints that cannot be used; what is not finite
  };
  // Sets all variables to the values of a checkpoint, or of a directory's newest whole one. All or nothing:
  // throws one Error(checkpoint) with every variable that is missing and every other shape and dtype, or the
  // damage, or Error(io); then nothing has been assigned. Needs memory for the values once more.
  Restored restore(const std::string& path_or_dir) { return restore(path_or_dir, Missing::is_error); }
  // The same, but variables that the checkpoint does not have stay as they are.
  Restored restore_partial(const std::string& path_or_dir) { return restore(path_or_dir, Missing::stays); }

 private:
  enum class Missing : std::uint8_t { is_error, stays };
  struct Entry {
    VariableSpec saved;  // as the checkpoint has it
    const Variable* variable;
  };
  void add(const Variable* variable, const std::string& name);
  void add_leaf(const Variable& variable, const std::string& name);
  std::vector<Entry> entries() const;
  Restored restore(const std::string& path_or_dir, Missing missing);
  TensorView memory_of(const Entry& entry) const;

  std::unique_ptr<Fs> own_fs_;
  Fs* fs_;
  Values values_;
  RetentionPolicy retention_;
  const VariableStore* store_ = nullptr;  // null: entries_ are all
  std::vector<Entry> entries_;
  std::vector<std::string> warnings_;
};

// The newest checkpoint of a directory, found by scanning and verifying every byte: the path, below `dir` as
// it was given, so that a directory may be moved or copied. Nothing when the directory holds none or does not
// exist. Throws Error(checkpoint) with what is wrong with each when none can be used.
std::optional<std::string> latest_checkpoint(Fs& fs, const std::string& dir);
std::optional<std::string> latest_checkpoint(const std::string& dir);

}  // namespace varscope
