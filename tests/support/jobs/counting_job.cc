#include "tests/support/jobs/counting_job.h"

#include <gtest/gtest.h>

#include <fstream>

namespace varscope::testing {

std::string write_counting_job(const ScratchDir& dir, const CountingJob& job) {
  std::string rows = "id,y\n";
  for (int i = 0; i < job.rows; ++i) rows += std::to_string(i * 7919 + 13) + ",1000000\n";
  write_text(dir / "rows.csv", rows);
  const std::string source =
      "{type: csv, files: rows.csv, schema: {label: {column: y, type: number}, "
      "features: {id: {columns: [id], ids: uint64}}}}\n";
  const std::string batch = std::to_string(CountingJob::kBatch), path = dir / "count.yaml";
  write_text(path, "job: {name: count}\ndata:\n  train: " + source +
                       (job.evaluates ? "  test: " + source : "") + R"(model:
  layers:
    - {type: embedding, scope: id, input: id, units: 1, combiner: sum, table: {ids: uint64}, initializer: zeros, name: row}
)" + (job.pause.empty() ? "" : "    - {type: pause, " + job.pause + "}\n") +
                       "  loss: absolute_error\noptimizer: {type: sgd, learning_rate: " + batch +
                       "}\ntrain: {batch: " + batch + ", epochs: " + std::to_string(job.epochs) +
                       job.of_train + "}\n" + job.sections);
  return path;
}

std::vector<double> counted_rows(const ScratchDir& dir, const std::string& run_dir,
                                 const std::string& program) {
  Command command = varscope({"predict", run_dir, "--in", dir / "rows.csv", "--out", dir / "p.csv"});
  command.argv.front() = program;
  const Ended e = run(command);
  EXPECT_EQ(e.code, 0) << e.all();
  return last_column(dir / "p.csv");
}

std::vector<double> last_column(const std::string& path) {
  std::ifstream in(path);
  std::vector<double> numbers;
  std::string line;
  for (std::getline(in, line); std::getline(in, line);)
    numbers.push_back(std::stod(line.substr(line.rfind(',') + 1)));
  return numbers;
}

}  // namespace varscope::testing
