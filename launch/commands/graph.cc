#include "launch/commands/graph.h"

#include "checkpoint/storage/atomic_file.h"
#include "launch/job/job_setup.h"
#include "launch/job/job_warnings.h"
#include "launch/observe/output.h"
#include "worker/graph/graph_text.h"

namespace varscope {

std::string show_graph(const JobConfig& job, GraphMode mode, const std::string& dot_file,
                       const LayerRegistry& layers) {
  const auto data = load_dataset(job, job.data.train, DataSplit::train);
  VariableStore store;
  const DataFacts facts = DataFacts::of(*data);
  Model model = build_model(store, job, facts, GraphMode::train, layers);
  warn(model_warnings(job, model));
  if (mode == GraphMode::evaluate) model = build_model(store, job, facts, mode, layers);
  if (!dot_file.empty()) {
    PosixFs fs;
    write_named_file(fs, dot_file, graph_dot(model.graph, job.job.name));
  }
  return fmt::format("{}: the graph of {}\n\n", job.job.name,
                     mode == GraphMode::train ? "training" : "evaluation") +
         graph_tree(model.graph);
}

}  // namespace varscope
