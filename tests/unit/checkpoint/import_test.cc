// Files of other programs made into checkpoints.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "checkpoint/exchange/tf_table.h"
#include "checkpoint/tools/diff.h"
#include "tests/support/references/exported.h"
#include "tests/support/references/partitioned_model.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using testing::error_of;
using testing::export_to;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::make_variable;
using testing::Model;
using testing::Saved;
using testing::small_model;
using testing::TempDir;
using testing::tiny_model;

class Import : public ::testing::TestWithParam<const char*> {
 protected:
  std::string import(const std::string& name, const ImportPlan& plan) {
    std::string out;
    import_tool(fs, file, dir / name, exchange_format(file, ""), plan, ToolFormat::json, out);
    json = nlohmann::json::parse(out);
    return json.at("path");
  }
  TempDir dir;
  PosixFs fs;
  std::string file = dir / "m." + GetParam();
  nlohmann::json json;
};

TEST_P(Import, GivesBackWhatWasExported) {
  Saved saved(testing::partitioned(small_model(3), {3, 2}), 2);
  export_to(saved.fs, saved.path, file);
  const std::string path = import("c", {7, "momentum", {"m"}, "0.1.0"});
  EXPECT_EQ(path, dir / "c/step-000000007");
  EXPECT_EQ(json.at("variables"), 6);
  EXPECT_EQ(json.at("slots_found"), 3);
  EXPECT_THAT(verify_checkpoint(fs, path), IsEmpty());
  EXPECT_EQ(newest_checkpoint(fs, dir / "c").path, path);
  const CheckpointDifference d = diff_checkpoints(fs, saved.path, path);
  EXPECT_THAT(d.values, IsEmpty());
  EXPECT_THAT(d.removed, IsEmpty());
  EXPECT_THAT(d.changed, IsEmpty());
  EXPECT_THAT(d.added, ElementsAre("norm/mean (slot m) float64 [3, 2]")) << "no file says what is trained";
  const Manifest m = load_manifest(fs, path).manifest;
  EXPECT_EQ(values_hash_of(m), testing::values_hash_of(small_model(3)));
  EXPECT_EQ(made_by(m), Provenance::import);
  EXPECT_EQ(m.optimizer, "momentum");
  EXPECT_EQ(m.servers, 1);
  EXPECT_EQ(m.coordinator_state, "");
  EXPECT_EQ(m.variables.find("hidden/weights")->scope, "hidden");
  EXPECT_EQ(m.variables.find("scale")->scope, "");
}

TEST_P(Import, FillsSlotsThatAreNotThereWithZeros) {
  Saved saved(tiny_model(1), 1);
  std::string out;
  export_tool(fs, saved.path, file, exchange_format(file, ""), ExportSlots::leave_out, ToolFormat::text, out);
  const std::string path = import("c", {0, "adam", {"m", "v"}, "0.1.0"});
  CheckpointReader reader = CheckpointReader::open(fs, path);
  testing::expect_box(reader, tiny_model(1), "w", "", testing::whole({4, 3}));
  for (const char* slot : {"m", "v"}) {
    Tensor t = Tensor::of<float>({4, 3}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1});
    reader.read("w", slot, testing::whole({4, 3}), t.view());
    EXPECT_THAT(t.as<float>(), ::testing::Each(0.0F)) << slot;
  }
}

TEST_P(Import, TakesTensorsOfUnknownSlotsAsVariables) {
  Saved saved(tiny_model(1), 1);
  export_to(saved.fs, saved.path, file);
  import("c", {0, "sgd", {}, "0.1.0"});
  EXPECT_EQ(json.at("variables"), 2);
  EXPECT_EQ(json.at("slots_found"), 0);
}

TEST_P(Import, RefusesSlotsThatDoNotFitAndEmptyFiles) {
  const Model model(
      VariableTable({make_variable("w", DType::float32, {4}), make_variable("w/m", DType::float32, {5})}), {},
      1);
  Saved saved(model, 1);
  export_to(saved.fs, saved.path, file);
  EXPECT_THAT(error_of([&] {
                import("c", {0, "momentum", {"m"}, "0.1.0"});
              }),
              HasSubstr("\"w/m\" is float32 [5], but as a slot of \"w\" it must be float32 [4]"));
  EXPECT_FALSE(fs.exists(dir / "c"));
  Saved none(Model(VariableTable(), {}, 1), 1);
  export_to(none.fs, none.path, file);
  EXPECT_THAT(error_of([&] { import("c", {0, "sgd", {}, "0.1.0"}); }), HasSubstr("has no tensors to import"));
}

TEST_P(Import, RefusesADirectoryInUse) {
  Saved saved(tiny_model(1), 1);
  export_to(saved.fs, saved.path, file);
  CheckpointDirectory job(fs, dir / "c");
  job.lock("run-9");
  EXPECT_THAT(error_of([&] { import("c", {0, "sgd", {}, "0.1.0"}); }), HasSubstr("is in use by another job"));
}

INSTANTIATE_TEST_SUITE_P(Formats, Import, ::testing::Values("safetensors", "npz", "ckpt"));

}  // namespace
}  // namespace varscope
