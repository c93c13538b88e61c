#pragma once

#include <string>
#include <vector>

#include "tests/support/jobs/job.h"

namespace varscope::testing {

// A job that counts: a table with a row for each sample, whose gradient is -1 whatever the values are. A
// visit in a whole batch adds 1 to the sample's row; visits in a shorter one add as much in sum as a whole
// batch. With whole batches and leaves of powers of two all numbers are exact in float32.
struct CountingJob {
  int rows = 2048;
  int epochs = 3;
  bool evaluates = false;     // on the same rows
  std::string pause = {};     // keys of the layer `pause`, of tests' programs; "": none
  std::string of_train = {};  // more keys of it, as ", log_every_steps: 10"
  std::string sections = {};  // others, each with its line end
  static constexpr int kBatch = 64;
};

// Writes dir/rows.csv, and the config, whose path it returns.
std::string write_counting_job(const ScratchDir& dir, const CountingJob& job);
// What each row has counted, in the order of rows.csv, as `program` predicts it from the newest checkpoint.
std::vector<double> counted_rows(const ScratchDir& dir, const std::string& run_dir,
                                 const std::string& program = VARSCOPE_BINARY);
// The numbers in the last column of a csv file with a header.
std::vector<double> last_column(const std::string& path);

}  // namespace varscope::testing
