#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/base/error.h"
#include "common/config/yaml_reader.h"
#include "launch/commands/gradcheck.h"
#include "launch/commands/graph.h"
#include "launch/commands/plan.h"
#include "launch/job/check_config.h"
#include "launch/job/loaded_model.h"
#include "launch/observe/graph_def.h"
#include "tests/support/temp_dir.h"

// Commands on a model with a sparse table.
namespace varscope {
namespace {

using ::testing::HasSubstr;

class TableCommands : public ::testing::Test {
 protected:
  TableCommands() {
    std::ofstream text(dir_ / "words.txt");
    for (int i = 0; i < 600; ++i) text << "w" << i * i % 37 << (i % 12 == 11 ? "\n" : " ");
  }
  JobConfig job(const std::string& table = "table: {ids: int64, parts: 64}, padding: 3") const {
    const std::string text =
        "job: {name: words}\ndata: {train: {type: text, file: " + std::string(dir_ / "words.txt") +
        ", vocabulary: 50, steps: 4}}\ntrain: {batch: 4}\noptimizer: {type: adagrad, learning_rate: 0.1}\n"
        "model:\n  loss: softmax_cross_entropy\n  layers:\n"
        "    - {type: embedding, scope: words, units: 6, initializer: {type: uniform, low: -0.5, high: 0.5}, " +
        table +
        "}\n    - {type: lstm, units: 5}\n    - {type: dense, scope: out, units: 50, each_step: true}\n";
    return parse_job(read_yaml_text(text, "job.yaml"), "job.yaml");
  }
  testing::TempDir dir_;
};

TEST_F(TableCommands, GradcheckChecksTheRowsThatOccur) {
  std::string out;
  EXPECT_EQ(check_gradients(job(), {}, LayerRegistry::built_in(), out), static_cast<int>(ExitCode::ok))
      << out;
  EXPECT_THAT(out, HasSubstr("words/embeddings                               20"));
  EXPECT_THAT(out, HasSubstr("all gradients agree"));
}

TEST_F(TableCommands, GradcheckChecksRowsThatWaitForTheirEntry) {
  std::string out;
  EXPECT_EQ(check_gradients(job("table: {parts: 4, entry: 2}"), {}, LayerRegistry::built_in(), out),
            static_cast<int>(ExitCode::ok))
      << out;
  EXPECT_THAT(out, HasSubstr("all gradients agree"));
}

TEST_F(TableCommands, PlanSaysWhatARowTakes) {
  const std::string out = plan_text(job(), 3, 2, PlanDetail::summary, LayerRegistry::built_in());
  EXPECT_THAT(out, HasSubstr("[rows, 6]          float32       rows      64  0-2\n"));
  // The id, step and count are 16 bytes, values and the slot of adagrad 24 each.
  EXPECT_THAT(out,
              HasSubstr("total: 540 parameters, 2.1 KiB\n"
                        "table words/embeddings: ids: int64, parts: 64, units: 6; a row is 24 B of values, "
                        "64 B on its server\n"
                        "  rows without a limit: a million are up to "));
}

TEST_F(TableCommands, PlanSaysWhatLimitedTablesTake) {
  const std::string out =
      plan_text(job("table: {parts: 4, entry: 2, max_rows: 16384, when_full: lru, max_waiting: 64}"), 1, 2,
                PlanDetail::summary, LayerRegistry::built_in());
  EXPECT_THAT(
      out,
      HasSubstr("table words/embeddings: ids: int64, parts: 4, entry: 2, max_rows: 16384, when_full: lru, "
                "absent: zeros, max_waiting: 64, units: 6; a row is 24 B of values, 64 B on its server\n"
                "  rows up to 16,384 (max_rows), 16,384 on the server with most: 1.2 MiB\n"
                "  waiting ids up to 64 (max_waiting), 64 on the server with most: 1.8 KiB\n"));
  const std::string open =
      plan_text(job("table: {parts: 4, entry: 2}"), 2, 2, PlanDetail::summary, LayerRegistry::built_in());
  EXPECT_THAT(open, HasSubstr("  rows without a limit: a million are up to "));
  EXPECT_THAT(open, HasSubstr("on the server with most, 76 B each\n"));
  EXPECT_THAT(open, HasSubstr("on the server with most, 28 B each\n"));
}

TEST_F(TableCommands, GraphShowsWhatRowsAreLookedUpBy) {
  const std::string dot = dir_ / "graph.dot";
  const std::string out = show_graph(job(), GraphMode::train, dot, LayerRegistry::built_in());
  EXPECT_THAT(out, HasSubstr("  embeddings                         table                    [ragged, 6]\n"));
  EXPECT_THAT(out, ::testing::ContainsRegex("  positions +placeholder +\\[\\?, 4\\] +x\n"));
  EXPECT_THAT(out, HasSubstr("words/embeddings, words/positions"));
}

TEST_F(TableCommands, TensorBoardHasTheServersOfATable) {
  LoadedModel loaded = LoadedModel::initial(job(), {});
  EXPECT_THAT(graph_def(loaded.model().graph, 3), HasSubstr("/job:ps/task:0,1,2"));
}

TEST_F(TableCommands, InitialRowsAreInMemory) {
  LoadedModel loaded = LoadedModel::initial(job(), {});
  const Variable& table = *loaded.store().find("words/embeddings");
  std::vector<float> row(6), wanted(6);
  const std::uint64_t id = 12345678901234567890ULL;
  loaded.rows().read(table, std::span(&id, 1), reinterpret_cast<std::byte*>(row.data()));
  VariableSpec::fill_row(TensorView(DType::float32, {6}, reinterpret_cast<std::byte*>(wanted.data())),
                         table.spec().initial_values(1), id);
  EXPECT_EQ(row, wanted);
  EXPECT_NE(row[0], row[1]);
}

TEST_F(TableCommands, ConfigFindsWhatIsWrongWithATable) {
  EXPECT_NO_THROW(check_without_data(job(), LayerRegistry::built_in()));
  try {
    check_without_data(job("table: {ids: string}"), LayerRegistry::built_in());
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(),
                HasSubstr("table \"words/embeddings\" is asked by string ids, but the input \"x\" has "
                          "int32, which are int64 rows"));
  }
}

// Of data that only files can tell of, the keys of the layers are checked by themselves.
TEST_F(TableCommands, ConfigFindsWrongKeysOfLayersWithoutTheData) {
  const auto error = [](const std::string& data, const std::string& layers) {
    const JobConfig job = parse_job(read_yaml_text("job: {name: t}\ndata: {train: {" + data +
                                                       "}}\nmodel:\n  loss: "
                                                       "sigmoid_cross_entropy\n  layers:\n" +
                                                       layers,
                                                   "job.yaml"),
                                    "job.yaml");
    try {
      check_without_data(job, LayerRegistry::built_in());
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  const std::string dense = "    - {type: dense, units: 1}\n";
  for (const char* data :
       {"type: csv, files: a.csv, schema: {label: {column: y}, features: {u: {columns: u, ids: int64}}}",
        "type: tfrecord, files: a, label: y, features: {u: {feature: u, ids: int64}}",
        "type: skipgram, file: a, vocabulary: 30"}) {
    SCOPED_TRACE(data);
    EXPECT_EQ(error(data, "    - {type: embedding, units: 2, table: {parts: 2, entry: 3}}\n" + dense),
              "no error");
    EXPECT_THAT(
        error(data, "    - {type: embedding, units: 2, table: {parts: 2, max_rows: 100}}\n" + dense),
        HasSubstr("job.yaml:6:63: model.layers.0.table.max_rows: max_rows is 100, but with 2 parts it must "
                  "be at least 8192"));
    EXPECT_THAT(error(data, "    - {type: embedding, unitz: 2, table: {}}\n" + dense),
                HasSubstr("did you mean \"units\""));
    EXPECT_THAT(error(data, "    - {scope: b, layers: [{type: dense, units: 0}]}\n"),
                HasSubstr("model.layers.0.layers.0.units: 0 is out of range"));
    EXPECT_THAT(error(data, "    - {type: dens, units: 2}\n"), HasSubstr("dens"));
  }
}

}  // namespace
}  // namespace varscope
