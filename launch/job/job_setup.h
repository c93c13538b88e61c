#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/restore/reader.h"
#include "common/config/job_config.h"
#include "common/placement/cluster.h"
#include "common/variables/variable_scope.h"
#include "launch/job/load_config.h"
#include "ps/coordinator.h"
#include "ps/record/recorded_order.h"
#include "worker/data/dataset.h"
#include "worker/layers/model.h"

namespace varscope {

// What the command line asks of `varscope train`.
struct TrainOptions {
  std::string config;
  std::vector<std::string> overrides;  // KEY=VALUE
  bool resume = false;
  std::string resume_from;        // a checkpoint, or a directory of them; empty: the newest of the run
  bool fresh = false;             // set an earlier run's files aside
  bool allow_other_data = false;  // resume though data.train is not what it was
  bool check_numerics = false;
  bool profile = false;
  std::string replay;                   // the directory of a recorded run; empty: no replay
  std::optional<std::int64_t> from;     // the step that it begins after; nothing: the newest there is
  std::vector<std::string> words = {};  // of the command line, the program's name first
};

// What rank 0 decides before anything starts, for everyone.
struct StartPacket {
  JobConfig job;
  std::string resume_path;      // empty: a new run
  std::string warm_start_path;  // of a new run; empty: from initial values
  std::string run_id;
  int attempt = 1;
  std::string first_file;  // of a new run that follows a directory: what its schema is made from
  std::string go_on;       // the command that goes on with this run (launch/process/go_on.h)
  std::string start_id;    // random: tells this start from every other, whatever their run and attempt
  bool allow_other_data = false;
  bool check_numerics = false;
  bool profile = false;
  bool is_stopped = false;  // a signal asked to stop before there was any data: nothing is to be done
  RecordedRun replay = {};  // of a replay
  bool is_replay() const { return !replay.dir.empty(); }
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& job& resume_path& warm_start_path& run_id& attempt& first_file& go_on& start_id& allow_other_data&
        check_numerics& profile& is_stopped& replay;
  }
};
struct PreparedStart {
  StartPacket packet;
  std::optional<Manifest> manifest;   // of the checkpoint that the packet names
  std::vector<std::string> warnings;  // a line for each checkpoint that had to be passed over
};
// Rank 0 only: finds the checkpoint to resume from, makes the run's directory. `job` is the config of the
// options. Throws Error(config, checkpoint, io), and Error(not_finite) for a checkpoint that is not finite
// (train.on_nan).
PreparedStart prepare_start(const TrainOptions& options, JobConfig job, Fs& fs, const VerifyFiles& verify,
                            int n_ranks = 1);

// Reads or draws data.train or data.test. Throws Error(data) that begins with the place in the config.
// `schema`: that of the training data, for data.test; where it is empty and needed, data.train is read for
// it. Of a directory that is followed: its first file with samples.
std::unique_ptr<Dataset> load_dataset(const JobConfig& job, const DataSourceConfig& source, DataSplit split,
                                      const std::string& schema = {});

// The job with the files of its data as absolute paths, those that are found on this host.
JobConfig with_found_files(JobConfig job);

// Where a table's files are, in their order. Throws Error(data) as load_dataset does.
std::vector<std::filesystem::path> table_files(const JobConfig& job, const CsvSource& source);

// For --fresh, once everything else is known to be right: renames an earlier run's checkpoints and metrics.
// After a crash in between, the same call completes it. Rank 0 only. Throws Error(checkpoint) while another
// job has the directory, Error(io).
void set_earlier_run_aside(Fs& fs, const JobConfig& job);

// What is wrong with the keys of data.train and data.test, whatever the data are. Throws Error(config) there.
void check_sources(const JobConfig& job);
// data.test must be data for the model of data.train; what would else be found at the first evaluation, after
// an epoch of training. Throws Error(config) at data.test.
void check_test_data(const JobConfig& job, const DataFacts& train, const DataFacts& test);
// Throws Error(config) for classes of data.test that the model has no outputs for. A label that data.train
// just does not show is fine.
void check_test_classes(const JobConfig& job, const Model& model, const DataFacts& train,
                        const DataFacts& test);

// A worker's data and model. The model's variables live in `store`.
struct WorkerModel {
  std::unique_ptr<Dataset> train, test;
  VariableStore store;
  Model model;                             // for training
  std::optional<Model> evaluation;         // with a test set
  std::vector<const Variable*> variables;  // those on servers, in the order of `table`
  VariableTable table;
  std::vector<std::string> warnings;  // launch/job/job_warnings.h
};
// All but the data: graphs and variables. Throws Error(config).
void build_worker_model(WorkerModel& m, const JobConfig& job, const DataFacts& data,
                        const LayerRegistry& layers);
// Throws Error(config, data). `train`: the training data where they are known already; else they are loaded.
std::unique_ptr<WorkerModel> load_worker_model(const JobConfig& job, const LayerRegistry& layers,
                                               std::unique_ptr<Dataset> train = nullptr);

// Records of data.train or data.test that are left out (LeftOut).
struct LeftOutReport {
  std::string source;  // "data.train"
  std::int64_t n = 0, of = 0;
  std::vector<std::string> first;
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& source& n& of& first;
  }
};

// What the workers tell the servers, which load no data: the same on every worker.
struct ModelFacts {
  VariableTable table;
  std::int64_t train_samples = 0;
  std::int64_t test_samples = 0;
  EvaluationSpec evaluation;
  std::vector<std::string> warnings = {};  // for rank 0 to print
  std::string model = {};                  // launch/job/saved_model.h
  DataIdentity train = {}, test = {};      // test is not known without a test set
  std::string graph = {};                  // for TensorBoard, of the first worker; "" where there is none
  std::vector<LeftOutReport> left_out = {};
  bool carries_state = false;  // launch/job/step_rules.h
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    std::vector<std::pair<std::string, TableSpec>> tables = table.tables();
    std::vector<std::pair<std::string, Compression>> compressions = table.compressions();
    ar& table& tables& train_samples& test_samples& evaluation& warnings& model& train& test& graph& left_out&
        carries_state& compressions;
    if constexpr (Archive::is_loading::value) {
      table.set_tables(tables);
      table.set_compressions(compressions);
    }
  }
};

// The step that a run ends with: train.epochs of so many steps, or train.max_steps. Throws Error(config) at
// train.epochs for more steps than are counted.
Clock last_step(const JobConfig& job, std::int64_t steps_per_epoch);

// Where to start and where to end. `resumed` may be null. REQUIRES: it fits the job
// (launch/job/start_values.h).
TrainPlan make_train_plan(const JobConfig& job, const ModelFacts& facts, const Manifest* resumed,
                          CoordinatorState& state);

}  // namespace varscope
