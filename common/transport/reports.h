#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <boost/serialization/version.hpp>

#include "common/base/hash.h"
#include "common/base/score_counts.h"
#include "common/transport/compression_report.h"
#include "common/transport/staleness_report.h"

namespace varscope {

// What travels between workers, servers and the coordinator as Boost archives (binary; one job, one program
// version).

// Where a worker's time went, in nanoseconds since the last report.
struct WorkerTimes {
  std::int64_t compute_ns = 0;
  std::int64_t communicate_ns = 0;  // posting and polling
  std::int64_t wait_ns = 0;         // for values or for the go
  std::int64_t data_ns = 0;         // filling batches
  std::int64_t gate_ns = 0;         // of wait_ns: answers waited for other workers' pushes
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& compute_ns& communicate_ns& wait_ns& data_ns& gate_ns;
  }
  WorkerTimes& operator+=(const WorkerTimes& o) {
    compute_ns += o.compute_ns;
    communicate_ns += o.communicate_ns;
    wait_ns += o.wait_ns;
    data_ns += o.data_ns;
    gate_ns += o.gate_ns;
    return *this;
  }
};

// Sums over the targets of one logical worker, or of one eval batch. A target is a sample, or each
// of its labels where it has several (the words of a text).
struct BatchSums {
  double loss = 0;
  double correct = 0;
  std::int64_t samples = 0;  // targets
  double weight = 0;         // of these; 0 where they have no weights: each counts once
  // What a mean divides by.
  double total() const { return weight > 0 ? weight : static_cast<double>(samples); }
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& loss& correct& samples& weight;
  }
  // Adding in a fixed order keeps the bits of `loss`.
  BatchSums& operator+=(const BatchSums& o) {
    loss += o.loss;
    correct += o.correct;
    samples += o.samples;
    weight += o.weight;
    return *this;
  }
};

// worker -> coordinator after the last push of a step.
struct StepReport {
  std::vector<BatchSums> leaves;  // of this worker's logical workers, in order
  WorkerTimes times;
  std::string state;                   // a WorkerState as text, when this step is a cut
  CompressionReport compression = {};  // since the last report
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& leaves& times& state& compression;
  }
};

// One row of a local variable that is carried from step to step, by its row in the global batch, so that it
// finds its logical worker again on any number of workers. The values are hexadecimal digits of the bytes in
// memory order.
struct LocalRows {
  std::string variable;
  std::string dtype;
  std::int64_t row = 0;
  std::string hex;
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& variable& dtype& row& hex;
  }
};

// What a worker needs to go on exactly: its place in the data, and the state of its local variables.
struct WorkerState {
  int worker = 0;
  std::int64_t clock = 0;
  std::int64_t epoch = 0;     // of the next batch
  std::int64_t position = 0;  // samples of that epoch already used
  std::int64_t dataset_size = 0;
  std::uint64_t seed = 0;
  std::vector<LocalRows> locals = {};  // since class version 1
  template <class Archive>
  void serialize(Archive& ar, unsigned version) {
    ar& worker& clock& epoch& position& dataset_size& seed;
    if (version > 0) ar& locals;
  }
};

// worker -> coordinator: its share of one pass over the test set.
struct EvalReport {
  std::vector<std::int64_t> batches;  // indices of the batches below
  std::vector<BatchSums> sums;
  std::vector<std::vector<double>> reals;  // of each batch: the metrics' float64 sums (common/metrics/)
  std::vector<std::int64_t> counts;        // the metrics' integers, over all of these batches
  std::int64_t n_batches = 0;              // of the whole pass
  std::int64_t eval_ns = 0;
  ScoreCounts scores = ScoreCounts();  // where auc is measured
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& batches& sums& reals& counts& n_batches& eval_ns& scores;
  }
};

// What one server, or all together, have of a table at the end, and what has left it since the start.
struct TableReport {
  std::string name;
  std::int64_t rows = 0, waiting = 0;  // ids without a row that are counted
  std::int64_t evicted = 0, expired = 0, waiting_dropped = 0;
  void add(const TableReport& other) {
    rows += other.rows;
    waiting += other.waiting;
    evicted += other.evicted;
    expired += other.expired;
    waiting_dropped += other.waiting_dropped;
  }
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& name& rows& waiting& evicted& expired& waiting_dropped;
  }
};

// server -> coordinator.
struct HashReport {
  struct Entry {
    std::string variable;
    std::int64_t slice = 0;
    Digest digest;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
      ar& variable& slice& digest;
    }
  };
  std::vector<Entry> entries;
  std::vector<TableReport> tables;
  StalenessReport staleness = {};  // where each push is applied by itself
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& entries& tables& staleness;
  }
};

// What a server has found that is NaN or infinite.
struct NotFiniteFinding {
  enum class Where : std::uint8_t { value, gradient_norm, value_norm };
  Where where = Where::value;
  std::int64_t clock = 0;  // the step whose update made it; that of the first values where they are such
  std::string variable;    // norms: "" is all of them together
  std::string slot;        // "" is the value
  std::int64_t element =
      0;                 // of the variable, in row-major order; of a table's row its column; not of a norm
  std::string what;      // "nan", "inf", "-inf"
  std::string row = {};  // of a table: the id, as id_text() has it
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& where& clock& variable& slot& element& what& row;
  }
};

// server -> coordinator: the first finding of each variable or slot, in the order in which they were found.
struct FiniteReport {
  bool is_answer = false;  // to finite_request
  std::vector<NotFiniteFinding> findings;
  std::int64_t n_more = 0;  // findings that are left out
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& is_answer& findings& n_more;
  }
};

}  // namespace varscope

BOOST_CLASS_VERSION(varscope::WorkerState, 1)
