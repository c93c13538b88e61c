// Samples in TFRecord files of tf.train.Example, whose wire form the test writes by hand.
#include "worker/data/tfrecord.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <fstream>

#include "common/base/record_file.h"
#include "common/config/job_config.h"
#include "common/config/yaml_reader.h"
#include "tests/support/references/example_writer.h"
#include "tests/support/references/numpy_files.h"
#include "tests/support/references/source_test.h"
#include "tests/support/thrown.h"
#include "worker/data/array_source.h"
#include "worker/data/batch.h"

namespace varscope {
namespace {

using testing::bytes_feature;
using testing::example;
using testing::float_feature;
using ::testing::HasSubstr;
using testing::int64_feature;
using testing::raw;
using testing::thrown;
using Numbers = std::vector<double>;

class Tfrecord : public testing::SourceTest {
 protected:
  Tfrecord() : SourceTest("type: tfrecord, ") {}
  std::string write(const std::string& name, const std::vector<std::string>& records) const {
    std::string bytes;
    for (const std::string& r : records) append_record(bytes, r);
    SourceTest::write(name, bytes);
    return bytes;
  }
};

TEST_F(Tfrecord, FloatsIntegersAndBytes) {
  const auto record = [](float x, std::int64_t user, const std::string& image, std::int64_t label) {
    return example({{"x", float_feature({x, -x})},
                    {"user", int64_feature({user})},
                    {"image", bytes_feature({image})},
                    {"label", int64_feature({label})}});
  };
  write("a.tfrecord",
        {record(1, 5, std::string("\0\x33\x66\xff", 4), 0), record(2.5, 0, "\x33\x33\x33\x33", 2)});
  const auto data = open(
      "files: a.tfrecord, features: {numbers: x, who: {feature: user, ids: true}, "
      "image: {shape: [2, 2]}}");
  EXPECT_EQ(data->inputs(),
            (std::vector<InputSpec>{{.name = "numbers", .shape = Shape{2}},
                                    {.name = "who", .shape = Shape{1}, .features = Features::ids, .n_ids = 6},
                                    {.name = "image", .shape = Shape{2, 2}}}));
  EXPECT_EQ(all(*data, 0), (Numbers{1, -1, 2.5, -2.5}));
  EXPECT_EQ(all(*data, 1), (Numbers{5, 0}));
  EXPECT_EQ(all(*data, 2), (Numbers{0, 0.2, 0.4, 1, 0.2, 0.2, 0.2, 0.2})) << "images of bytes, by 255";
  EXPECT_EQ(all(*data, 3), (Numbers{0, 2}));
  EXPECT_EQ(data->n_classes(), 3);
  const auto plain = open("files: a.tfrecord");
  ASSERT_EQ(plain->inputs().size(), 3U) << "all but the label, by name";
  EXPECT_EQ(plain->inputs()[0].name, "image");
  EXPECT_EQ(all(*plain, 0), (Numbers{0, 51, 102, 255, 51, 51, 51, 51})) << "a row of bytes is no image";
}

TEST_F(Tfrecord, SeveralFilesPlainAndGzip) {
  const auto record = [](float x) {
    return example({{"v", float_feature({x})}, {"label", int64_feature({0})}});
  };
  write("p-1.tfrecord", {record(1), record(2)});
  const std::string bytes = write("tmp", {record(3)});
  gzFile gz = gzopen((dir_ / "p-2.tfrecord").c_str(), "wb");
  gzwrite(gz, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(gz);
  const auto data = open("files: 'p-*.tfrecord'");
  EXPECT_EQ(data->inputs()[0].name, "x") << "a single input";
  EXPECT_EQ(all(*data), (Numbers{1, 2, 3}));
  EXPECT_EQ(all(*open("files: [p-1.tfrecord], from: 0.5")), (Numbers{2}));
}

TEST_F(Tfrecord, PackedOrNotAndFeaturesInAnyOrder) {
  write("a",
        {example({{"x", float_feature({1, 2})}, {"label", int64_feature({1})}}),
         example({{"label", int64_feature({0}, false)}, {"x", float_feature({3, 4}, false)}, {"z", ""}})});
  EXPECT_EQ(all(*open("files: a")), (Numbers{1, 2, 3, 4}));
}

TEST_F(Tfrecord, BytesAsNumbersOfAnyType) {
  write("a",
        {example({{"x", bytes_feature({raw<float>({1.5, -2})})}, {"y", float_feature({0.5, 3})}}),
         example({{"x", bytes_feature({raw<float>({7}), raw<float>({8})})}, {"y", float_feature({1, 2})}})});
  const auto data =
      open("files: a, features: {x: {dtype: float32, scale: 1/2}}, label: y, label_type: number");
  EXPECT_EQ(all(*data), (Numbers{0.75, -1, 3.5, 4}));
  EXPECT_EQ(data->label_shape(), Shape{2});
  EXPECT_EQ(all(*data, 1), (Numbers{0.5, 3, 1, 2}));
}

TEST_F(Tfrecord, MistakesNameFileRecordAndFeature) {
  const auto record = [](const std::string& x, const std::string& label) {
    return example({{"x", x}, {"label", label}});
  };
  const std::string good = record(float_feature({1, 2}), int64_feature({1})), name = (dir_ / "a").string();
  const auto with = [&](const std::string& second, const std::string& more = "") {
    write("a", {good, second});
    return error("files: a" + more);
  };
  const std::string start = "data: " + name + ": record 1: ";
  EXPECT_EQ(with("\xff"), start + "is no tf.train.Example");
  EXPECT_EQ(with(example({{"label", int64_feature({1})}})), start + "has no feature \"x\"; it has label");
  EXPECT_EQ(with(example({})), start + "has no feature \"x\"; it has none");
  EXPECT_EQ(with(record(float_feature({1, 2, 3}), int64_feature({1}))),
            start + "feature \"x\" has 3 numbers, where the first record has 2");
  EXPECT_EQ(with(record(int64_feature({1, 2}), int64_feature({1}))),
            start + "feature \"x\" holds int64, where float are expected");
  EXPECT_EQ(with(record("", int64_feature({1}))),
            start + "feature \"x\" holds nothing, where float are expected");
  EXPECT_EQ(
      with(record(float_feature({1, 2}), int64_feature({-1}))),
      start +
          "feature \"label\" is -1, which is no class: classes are 0, 1, 2, ...; numbers to be answered "
          "with are for label_type: number");
  EXPECT_THAT(with(record(float_feature({1, 2}), int64_feature({2})), ", classes: 2"),
              HasSubstr("record 1: feature \"label\" is 2, but classes are less than"));
  EXPECT_THAT(with(good, ", features: {x: y}"), HasSubstr("record 0: has no feature \"y\""));
  EXPECT_THAT(with(good, ", features: {x: {shape: [3]}}"),
              HasSubstr("record 0: feature \"x\" has 2 numbers, and its shape [3] has 3"));
  EXPECT_THAT(with(good, ", features: {x: {shap: [2]}}"),
              HasSubstr("features.x.shap: unknown key; did you mean \"shape\"?"));
  EXPECT_THAT(with(good, ", features: [x]"), HasSubstr("config: features: expected a map"));
  EXPECT_THAT(with(good, ", features: {y: x}"), HasSubstr("y is what the labels are called"));
  write("a", {example({{"\xe9", float_feature({1})}, {"label", int64_feature({1})}})});
  EXPECT_THAT(error("files: a"), HasSubstr("record 0: has a feature \"\xe9\" whose name is no UTF-8"));
  write("a", {});
  EXPECT_EQ(error("files: a"), "data: " + name + ": has no records");
  std::string bytes = write("a", {good, good});
  bytes[bytes.size() - 10] ^= 1;
  std::ofstream(dir_ / "a", std::ios::binary) << bytes;
  EXPECT_THAT(error("files: a"), HasSubstr("a: record 1 at byte "));
  write("a", {record(float_feature({1, 2}), int64_feature({1})),
              record(bytes_feature({"ab"}), int64_feature({1}))});
  EXPECT_THAT(error("files: a"), HasSubstr("holds bytes, where float are expected"));
  write("a", {record(bytes_feature({"abc"}), int64_feature({1}))});
  EXPECT_THAT(error("files: a, features: {x: {dtype: int16}}"),
              HasSubstr("feature \"x\" has 3 bytes, which are no whole numbers of int16"));
}

TEST_F(Tfrecord, TestDataAndRowsToPredictAreReadAsTrainingDataAre) {
  const auto record = [](std::int64_t id, std::int64_t label) {
    return example({{"user", int64_feature({id})}, {"kind", int64_feature({label})}});
  };
  write("train", {record(0, 0), record(4, 1)});
  write("test", {record(3, 1)});
  write("beyond", {record(5, 1)});
  write("bare", {example({{"user", int64_feature({2})}})});
  const std::string train = "files: train, features: {who: {feature: user, ids: true}}, label: kind";
  EXPECT_EQ(all(*open_test(train, "type: tfrecord, files: test")), (Numbers{3}));
  EXPECT_THAT(
      thrown([&] { open_test(train, "type: tfrecord, files: beyond"); }),
      HasSubstr("beyond: feature \"user\": row 0 has the id 5, but those of the training data are 0 to 4"));
  EXPECT_THAT(thrown([&] { open_test(train, "type: tfrecord, files: test, label: other"); }),
              HasSubstr("features, label, label_type and classes are those of data.train; remove them here"));
  EXPECT_THAT(thrown([&] { open_test(train, "type: digits"); }), HasSubstr("must be of type tfrecord"));
  const DataConfig data = config(train);
  TfrecordSource rows = *data.train.get<TfrecordSource>();
  rows.files = ConfigNode::text((dir_ / "bare").string());
  const std::string schema = open_source(data.train, {.root = dir_})->schema();
  const auto bare = open_tfrecord(rows, {.root = {}, .may_lack_labels = true, .schema = schema});
  EXPECT_FALSE(bare->has_labels());
  EXPECT_EQ(all(*bare), (Numbers{2}));
  EXPECT_THAT(thrown([&] { open_tfrecord(rows, {.root = {}, .schema = schema}); }),
              HasSubstr("has no feature \"kind\""));
}

// Whatever the bytes are: numbers or Error(data); the sanitizers look at what is read.
TEST_F(Tfrecord, NoCutAndNoFlippedBitOfARecordDoesMoreHarmThanAnError) {
  const std::string good =
      example({{"x", float_feature({1, 2})}, {"b", bytes_feature({"ab"})}, {"y", int64_feature({1})}});
  const auto try_with = [&](const std::string& record) {
    try {
      ExampleReader reader({}, {.input = "y", .name = "y"}, LabelType::cls, 0);
      reader.add(record, "record 0");
      reader.add(good, "record 1");
      const ArrayDataset data(reader.inputs("f"), reader.labels("f").value(), {}, {});
      EXPECT_EQ(data.size(), 2);
      all(data);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::data) << e.what();
    }
  };
  for (std::size_t n = 0; n <= good.size(); ++n) try_with(good.substr(0, n));
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bytes = good;
      bytes[i] = static_cast<char>(bytes[i] ^ 1 << bit);
      try_with(bytes);
    }
  }
}

}  // namespace
}  // namespace varscope
