#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/storage/fs.h"
#include "common/config/job_config.h"
#include "worker/graph/executor.h"
#include "worker/graph/session.h"
#include "worker/layers/layer.h"
#include "worker/layers/model.h"

namespace varscope {

// A job's model in this process: its graph, and the values of its variables, out of a checkpoint or initial
// ones. What `varscope eval` and `gradcheck` run, and what a program of one's own answers with:
//
//   LoadedModel loaded = LoadedModel::open(load_config("job.yaml", {}), "runs/digits/checkpoints");
//   const Model& model = loaded.model();
//   std::vector<Tensor> logits = loaded.session().run({model.output}, {{model.x, images.view()}});
//
// Owns the variables, the graph, and one Session with the values, which are in memory once; what it hands out
// by reference lives as long as it does, also when it is moved. session() is for one thread at a time.
// Executors of several threads may be bound to the same values and run side by side, as long as nobody writes
// any. Rows of tables are for one thread at a time.
class LoadedModel {
 public:
  struct Options {
    // Which graph. That of training is made in any case, since it makes the variables.
    GraphMode mode = GraphMode::evaluate;
    // The shapes and classes of the samples. Unset: those of data.train, which is read or drawn for that.
    std::optional<DataFacts> data = {};
    const LayerRegistry* layers = nullptr;  // null: the built-in ones
    Fs* fs = nullptr;  // null: the real one; not needed after open(), but for rows of tables
  };

  // The values of a checkpoint: `checkpoint` is one, or a directory of them, whose newest whole one is taken;
  // empty means the job's directory (JobConfig::checkpoint_dir()). checkpoint.variables and checkpoint.rename
  // of the job are obeyed; how variables are cut into parts may differ; optimizer slots are not read. All or
  // nothing: throws Error(config) for a model that cannot be built, Error(data) for data.train,
  // Error(checkpoint) when there is no checkpoint, when bytes are damaged, or with every variable that is
  // missing, extra, or of another shape or dtype, and Error(io).
  static LoadedModel open(JobConfig job, const std::string& checkpoint, const Options& options);
  static LoadedModel open(JobConfig job, const std::string& checkpoint = "") {
    return open(std::move(job), checkpoint, Options());
  }
  // The values that a run with the job's seed begins with. Throws Error(config, data).
  static LoadedModel initial(JobConfig job, const Options& options);

  LoadedModel(LoadedModel&&) noexcept;
  LoadedModel& operator=(LoadedModel&&) noexcept;
  ~LoadedModel();

  const JobConfig& job() const;
  const Model& model() const;
  const VariableStore& store() const;
  // Runs the graph with the values. Writing to its memory (Session::value) changes what bound executors read.
  Session& session();
  // Where the rows of its tables come from: the checkpoint, or the session's memory.
  RowReader& rows() const;
  // Lets an executor of model().graph read the values.
  void bind(Executor& executor) const;

  const std::string& path() const;  // of the checkpoint; empty for initial values
  std::int64_t step() const;        // of the checkpoint, else 0
  // Newer checkpoints of the directory that cannot be used, and why; values that are NaN or infinite.
  const std::vector<std::string>& warnings() const;

 private:
  struct Parts;
  explicit LoadedModel(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace varscope
