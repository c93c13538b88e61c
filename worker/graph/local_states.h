#pragma once

#include <cstdint>
#include <vector>

#include "common/transport/reports.h"
#include "worker/graph/executor.h"

namespace varscope {

// The local variables of one worker that carry state from run to run (the h and c of an LSTM): for each of
// its logical workers a value, which a run reads, and the next one, which it writes. [rows, ...], one row for
// each row of the logical worker's part of the batch. Never on a server. A logical worker is called by its
// position among this worker's, from 0. Owns its memory; borrows the graph's variables; not thread-safe.
class LocalStates {
 public:
  // Throws Error(config) when they are too large to be saved.
  LocalStates(const Graph& graph, int n_logical_workers, std::int64_t max_rows, std::uint64_t seed);

  bool empty() const { return variables_.empty(); }
  // Lets the coming runs of the executor read and write the state of one logical worker.
  void bind(Executor& executor, int logical_worker) const;
  // What the run has written becomes the value. Bind again afterwards.
  void advance(int logical_worker);
  // First values: at the start of an epoch.
  void reset();

  // The first n rows of a logical worker, as rows [first_row, first_row + n) of the global batch.
  void save(int logical_worker, std::int64_t first_row, std::int64_t n, std::vector<LocalRows>& out) const;
  // The same back, out of what all workers saved. Throws Error(checkpoint) when a row is missing or does not
  // fit its variable.
  void load(int logical_worker, std::int64_t first_row, std::int64_t n, const std::vector<LocalRows>& saved);

 private:
  static constexpr std::size_t kMaxBytes = std::size_t{24} << 20;
  void check_size() const;
  struct State {
    std::vector<Tensor> value, next;  // by variable
  };
  std::vector<const Variable*> variables_;
  std::vector<State> states_;  // by logical worker
  std::uint64_t seed_;
};

}  // namespace varscope
