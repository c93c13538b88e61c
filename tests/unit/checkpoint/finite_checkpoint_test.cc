// Checkpoints say of themselves what in them is NaN or infinite, and the tools tell it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include <nlohmann/json.hpp>

#include "checkpoint/exchange/export.h"
#include "checkpoint/exchange/import.h"
#include "checkpoint/restore/finite.h"
#include "checkpoint/tools/export_import.h"
#include "checkpoint/tools/list_inspect.h"
#include "checkpoint/tools/reshard.h"
#include "checkpoint/tools/verify.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace varscope {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::small_model;

const float kNan = -std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

// In two slices of the value, and in a slot.
testing::Model bad_model() {
  testing::Model model = small_model(1);
  model.value("hidden/weights").as<float>()[4000] = kNan;
  model.value("hidden/weights").as<float>()[5] = -kInf;
  model.value("hidden/biases", "m").as<float>()[60] = kInf;
  return model;
}
constexpr const char* kBad =
    "-inf in hidden/weights (2 elements, from element 5 on), "
    "inf in hidden/biases slot m (1 element, from element 60 on)";

TEST(NotFiniteCheckpoint, TheManifestSaysWhatIsNotFinite) {
  for (const int servers : {1, 3}) {
    testing::Saved saved(bad_model(), servers);
    const Manifest m = load_manifest(saved.fs, saved.path).manifest;
    EXPECT_TRUE(m.knows_not_finite);
    EXPECT_FALSE(m.is_known_finite());
    EXPECT_EQ(not_finite_text(m), kBad) << servers << " servers";
    const json file = json::parse(testing::slurp(saved.path + "/manifest.json"));
    EXPECT_EQ(file["finite"], false);
    EXPECT_EQ(
        file["not_finite"][0],
        json(
            {{"variable", "hidden/weights"}, {"slot", ""}, {"elements", 2}, {"first", 5}, {"what", "-inf"}}));
  }
  testing::Saved good(small_model(1), 2);
  EXPECT_TRUE(load_manifest(good.fs, good.path).manifest.is_known_finite());
  EXPECT_EQ(json::parse(testing::slurp(good.path + "/manifest.json"))["finite"], true);
}

TEST(NotFiniteCheckpoint, AnOlderFormatIsLookedAt) {
  testing::Saved saved(bad_model(), 2);
  Manifest old = load_manifest(saved.fs, saved.path).manifest;
  old.format_minor = 1;
  const std::string bytes = encode_manifest(old);
  const Manifest back = decode_manifest(bytes, "M");
  EXPECT_FALSE(back.knows_not_finite);
  EXPECT_THAT(back.not_finite, IsEmpty());
  testing::spit(saved.path + "/MANIFEST", bytes);
  CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
  EXPECT_EQ(not_finite_text(not_finite_tensors(reader)), kBad);
  EXPECT_EQ(not_finite_warning(reader), "checkpoint " + saved.path + " is not finite: " + kBad);
  EXPECT_THAT(inspect_text(saved.fs, saved.path), HasSubstr(std::string("NO: ") + kBad));
  EXPECT_EQ(json::parse(list_text(saved.fs, saved.dir.path(), ToolFormat::json))["checkpoints"][0]["finite"],
            nullptr);
}

TEST(NotFiniteCheckpoint, ToolsTellAndNeverSayMinusNan) {
  testing::Saved saved(bad_model(), 2);
  const std::string inspected = inspect_text(saved.fs, saved.path);
  EXPECT_THAT(inspected, AllOf(HasSubstr(std::string("NO: ") + kBad), Not(HasSubstr("-nan"))));
  const json facts = json::parse(inspect_text(saved.fs, saved.path, ToolFormat::json));
  EXPECT_EQ(facts["finite"], false);
  EXPECT_EQ(facts["not_finite"].size(), 2U);
  EXPECT_EQ(facts["variables"][0]["norm"], nullptr);  // JSON has no NaN
  EXPECT_THAT(list_text(saved.fs, saved.dir.path()), HasSubstr("committed, not finite"));
  std::string verified;
  EXPECT_EQ(verify_tool(saved.fs, saved.path, verified), 0) << "every byte is right";
  EXPECT_THAT(verified, HasSubstr(std::string("not finite: ") + kBad));
  std::string exported;
  export_tool(saved.fs, saved.path, saved.dir / "x.npz", ExchangeFormat::npz, ExportSlots::leave_out,
              ToolFormat::text, exported);
  EXPECT_THAT(exported, HasSubstr("warning: checkpoint " + saved.path + " is not finite: " + kBad));

  testing::Saved good(small_model(1), 2);
  EXPECT_THAT(inspect_text(good.fs, good.path), HasSubstr("finite      yes"));
  EXPECT_THAT(list_text(good.fs, good.dir.path()), Not(HasSubstr("not finite")));
}

TEST(NotFiniteCheckpoint, ReshardingAndImportingLookAgain) {
  testing::Saved saved(bad_model(), 2);
  std::string out;
  const std::string other = saved.dir / "other";
  reshard_tool(saved.fs, saved.path, other, 5, ToolFormat::text, out);
  EXPECT_EQ(not_finite_text(load_manifest(saved.fs, other + "/step-000000005").manifest), kBad);

  export_checkpoint(saved.fs, saved.path, saved.dir / "x.safetensors", ExchangeFormat::safetensors,
                    ExportSlots::leave_out);
  const Imported imported = import_checkpoint(saved.fs, saved.dir / "x.safetensors", saved.dir / "imported",
                                              ExchangeFormat::safetensors, {3, "sgd", {}, "0.1.0"});
  ASSERT_EQ(imported.warnings.size(), 1U);
  EXPECT_THAT(imported.warnings[0],
              HasSubstr("is not finite: -inf in hidden/weights (2 elements, from element 5 on)"));
}

TEST(NotFiniteCheckpoint, ListsThatMakeNoSenseAreRefused) {
  testing::Saved saved(bad_model(), 2);
  const Manifest good = load_manifest(saved.fs, saved.path).manifest;
  const auto error = [&](const NotFiniteTensor& t, bool knows = true) {
    Manifest m = good;
    m.knows_not_finite = knows;
    m.not_finite = {t};
    return error_of([&] { decode_manifest(encode_manifest(m), "M"); });
  };
  EXPECT_EQ(error({"hidden/biases", "", 61, 0, "nan"}), "no error");
  const std::vector<NotFiniteTensor> senseless = {
      {"nobody", "", 1, 0, "nan"},         {"hidden/biases", "n", 1, 0, "nan"},
      {"hidden/biases", "", 0, 0, "nan"},  {"hidden/biases", "", 62, 0, "nan"},
      {"hidden/biases", "", 1, 61, "nan"}, {"hidden/biases", "", 1, -1, "nan"},
      {"hidden/biases", "", 1, 0, "none"}};
  for (const NotFiniteTensor& t : senseless)
    EXPECT_THAT(error(t), HasSubstr("checkpoint: M says of \"" + t.variable + "\""));
  EXPECT_THAT(error({"hidden/biases", "", 1, 0, "nan"}, false), HasSubstr("are not finite"));
}

TEST(NotFiniteCheckpoint, TheNewestFiniteOneIsFound) {
  testing::TempDir dir;
  PosixFs fs;
  EXPECT_FALSE(newest_finite_checkpoint(fs, dir.path()));
  CheckpointDirectory directory(fs, dir.path());
  directory.lock("run");
  testing::save(fs, directory, small_model(1), 1, 1, "id-1");
  testing::save(fs, directory, small_model(2), 2, 1, "id-2");
  testing::save(fs, directory, bad_model(), 3, 1, "id-3");
  EXPECT_EQ(newest_finite_checkpoint(fs, dir.path())->step, 2);
  std::filesystem::remove(dir / "step-000000002/MANIFEST");
  EXPECT_EQ(newest_finite_checkpoint(fs, dir.path())->step, 1);
}

}  // namespace
}  // namespace varscope
