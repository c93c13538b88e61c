#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "common/config/job_config.h"
#include "common/config/yaml_reader.h"
#include "tests/support/temp_dir.h"
#include "tests/support/thrown.h"
#include "worker/data/batch.h"
#include "worker/data/source_registry.h"

namespace varscope::testing {

// A data source over files that a test writes into a directory of its own.
class SourceTest : public ::testing::Test {
 protected:
  // `prefix` stands before the keys of data.train: "type: csv, ".
  explicit SourceTest(std::string prefix) : prefix_(std::move(prefix)) {}

  std::filesystem::path write(const std::string& name, const std::string& bytes) const {
    std::ofstream(dir_ / name, std::ios::binary) << bytes;
    return dir_ / name;
  }
  DataConfig config(const std::string& train, const std::string& test = "") const {
    return parse_job(read_yaml_text("job: {name: t}\ndata: {train: {" + prefix_ + train + "}" +
                                        (test.empty() ? "" : ", test: {" + test + "}") +
                                        "}\nmodel: {loss: softmax_cross_entropy, layers: [{type: dense, "
                                        "units: 2}]}\n",
                                    "job.yaml"),
                     "job.yaml")
        .data;
  }
  std::unique_ptr<Dataset> open(const std::string& keys, const std::string& schema = "") const {
    return open_source(config(keys).train, {.root = dir_, .schema = schema});
  }
  // data.test, read as data.train is.
  std::unique_ptr<Dataset> open_test(const std::string& train, const std::string& test) const {
    const DataConfig both = config(train, test);
    const std::string schema = open_source(both.train, {.root = dir_})->schema();
    return open_source(*both.test,
                       {.position = DataSplit::test, .train = &both.train, .root = dir_, .schema = schema});
  }
  std::string error(const std::string& keys) const {
    return thrown([&] { open(keys); });
  }
  // All numbers of an input, or behind the last one those of y.
  static std::vector<double> all(const Dataset& data, std::size_t input = 0, DType model = DType::float64) {
    const Batch batch(data.spec(), model, data.size());
    std::vector<std::int64_t> rows(static_cast<std::size_t>(data.size()));
    std::iota(rows.begin(), rows.end(), 0);
    const BatchView view = batch.view(data.size());
    data.read(rows, view);
    const TensorView& x = input < view.inputs.size() ? view.inputs[input] : view.y;
    std::vector<double> values;
    for (std::int64_t i = 0; i < x.n_elements(); ++i) {
      values.push_back(x.dtype() == DType::int32     ? x.data<std::int32_t>()[i]
                       : x.dtype() == DType::int64   ? static_cast<double>(x.data<std::int64_t>()[i])
                       : x.dtype() == DType::float32 ? static_cast<double>(x.data<float>()[i])
                                                     : x.data<double>()[i]);
    }
    return values;
  }

 private:
  std::string prefix_;
  TempDir made_;

 protected:
  const std::filesystem::path dir_ = made_.path();
};

}  // namespace varscope::testing
