// Ids of the rows of tables, any 64 bits, in sources that are no csv: libsvm, arrays, TFRecords.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "common/base/hash.h"
#include "common/base/record_file.h"
#include "tests/support/references/example_writer.h"
#include "tests/support/references/numpy_files.h"
#include "tests/support/references/row_ids.h"
#include "tests/support/references/source_test.h"
#include "worker/data/array_dataset.h"
#include "worker/data/array_source.h"
#include "worker/data/table_schema.h"

namespace varscope {
namespace {

using testing::bag_ids_of;
using testing::bytes_feature;
using ::testing::ElementsAre;
using testing::example;
using testing::float_feature;
using ::testing::HasSubstr;
using testing::int64_feature;
using ::testing::Not;
using testing::npy;
using testing::raw;
using testing::row_ids_of;

constexpr std::uint64_t k2To63 = std::uint64_t{1} << 63U;
constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
constexpr std::int64_t kLeastSigned = std::numeric_limits<std::int64_t>::min();

class RowIdsOfLibsvm : public testing::SourceTest {
 protected:
  RowIdsOfLibsvm() : SourceTest("type: libsvm, files: a, ") {}
};

TEST_F(RowIdsOfLibsvm, IndicesAreIdsAsTheyAre) {
  write("a", "1 18446744073709551615:0.5 0:2 # any order\n0\n0 qid:3 9223372036854775808:-1 7:1 7:2\n");
  const auto data = open("bags: true, ids: uint64");
  ASSERT_EQ(data->inputs().size(), 3U);
  EXPECT_EQ(data->inputs()[0], (InputSpec{.name = "x",
                                          .shape = Shape{Shape::kRagged},
                                          .features = Features::row_ids,
                                          .most = 3,
                                          .id_type = IdType::uint64}));
  const auto bags = bag_ids_of(*data, {0, 1, 2});
  EXPECT_THAT(bags.ids, ElementsAre(kMost, 0, k2To63, 7, 7));
  EXPECT_THAT(bags.offsets, ElementsAre(0, 2, 2, 5));
  EXPECT_THAT(bags.weights, ElementsAre(0.5, 2, -1, 1, 2));
  EXPECT_EQ(schema_from_json(data->schema()).inputs[0].row_ids, IdType::uint64);

  write("a", "1 -9223372036854775808:1 -1:1\n");
  EXPECT_THAT(bag_ids_of(*open("bags: true, ids: int64"), {0}).ids, ElementsAre(k2To63, kMost));
}

TEST_F(RowIdsOfLibsvm, OtherFilesAreReadAsTheTrainingData) {
  write("a", "1 5:1\n0 6:1\n");
  const auto train = open("bags: true, ids: uint64");
  write("a", "1 18446744073709551614:1\n");
  EXPECT_THAT(bag_ids_of(*open("bags: true", train->schema()), {0}).ids, ElementsAre(kMost - 1));
}

TEST_F(RowIdsOfLibsvm, KeptTablesHaveTheSameBits) {
  write("a", "1 18446744073709551615:0.5 3:2\n0\n");
  const auto source = config("bags: true, ids: uint64").train;
  const SourceContext context{.root = dir_, .cache = {.folder = dir_ / "cache", .least_bytes = 0}};
  const auto made = open_source(source, context), mapped = open_source(source, context);
  EXPECT_THAT(bag_ids_of(*mapped, {0, 1}).ids, ElementsAre(kMost, 3));
  EXPECT_EQ(made->identity(), mapped->identity());
}

TEST_F(RowIdsOfLibsvm, WhatDoesNotFitIsTold) {
  const auto told = [&](const std::string& row, const std::string& keys) {
    write("a", "1 5:1\n" + row + "\n");
    return error(keys);
  };
  EXPECT_THAT(
      told("0 -1:1", "bags: true, ids: uint64"),
      HasSubstr("a:2:3: expected an id of type uint64, a whole number from 0 to 18446744073709551615, got "
                "\"-1\""));
  EXPECT_THAT(told("0 9223372036854775808:1", "bags: true, ids: int64"),
              HasSubstr("a:2:3: expected an id of type"));
  EXPECT_THAT(told("0 5", "bags: true, ids: int64"), HasSubstr("a:2:3: expected id:value, got \"5\""));
  EXPECT_THAT(told("0 5:x", "bags: true, ids: int64"), HasSubstr("expected a number behind the colon"));
  for (const char* keys : {"bags: true, ids: int64", "bags: true"}) {
    EXPECT_THAT(
        told("0 5:1 6:1e39", keys),
        HasSubstr("a:2:7: the weight 1e+39 of an id is beyond float32, whose greatest is 3.402823e+38"));
    EXPECT_EQ(told("0 5:3e38 6:-3e38", keys), "no error");
  }
  EXPECT_THAT(told("0", "ids: int64"), HasSubstr("ids: is for bags; say bags: true"));
  EXPECT_THAT(told("0", "bags: true, ids: string"),
              HasSubstr("ids: expected one of int64, uint64, got \"string\""));
  EXPECT_THAT(told("0", "bags: true, ids: int64, features: 5"),
              HasSubstr("features: is for indices; with ids there is no range of them; remove it"));
  EXPECT_THAT(told("0", "bags: true, ids: int64, base: 0"), HasSubstr("base: is for indices"));
}

class RowIdsOfArrays : public testing::SourceTest {
 protected:
  RowIdsOfArrays() : SourceTest("") { write("y.npy", npy("<i8", "2,", raw<std::int64_t>({0, 1}))); }
  std::string keys(const std::string& type) const {
    return "type: npy, inputs: {u: u.npy}, labels: y.npy, row_ids: {u: " + type + "}";
  }
};

TEST_F(RowIdsOfArrays, IntegersOfAnyWidth) {
  write("u.npy", npy("<i8", "2, 2", raw<std::int64_t>({kLeastSigned, -1, 0, kLeastSigned + 1})));
  const auto data = open(keys("int64"));
  EXPECT_EQ(
      data->inputs()[0],
      (InputSpec{.name = "u", .shape = Shape{2}, .features = Features::row_ids, .id_type = IdType::int64}));
  EXPECT_THAT(row_ids_of(*data), ElementsAre(k2To63, kMost, 0, k2To63 + 1));
  write("u.npy", npy("<u8", "2,", raw<std::uint64_t>({kMost, k2To63})));
  EXPECT_THAT(row_ids_of(*open(keys("uint64"))), ElementsAre(kMost, k2To63));
  write("u.npy", npy(">i4", "2,", raw<std::int32_t>({-2, 7}, true)));
  EXPECT_THAT(row_ids_of(*open(keys("int64"))), ElementsAre(kMost - 1, 7)) << "sign-extended";
  write("u.npy", npy("|u1", "2, 2, 2", std::string("\0\1\2\3\4\5\6\xff", 8)));
  EXPECT_THAT(row_ids_of(*open(keys("uint64"))), ElementsAre(0, 1, 2, 3, 4, 5, 6, 255)) << "no image";
}

TEST_F(RowIdsOfArrays, SchemasTravel) {
  write("u.npy", npy("<u8", "2,", raw<std::uint64_t>({kMost, 5})));
  const auto train = open(keys("uint64"));
  const ArraySchema schema = array_schema_from_json(train->schema());
  EXPECT_EQ(schema, array_schema_from_json(to_json(schema)));
  EXPECT_EQ(schema.inputs[0].row_ids, IdType::uint64);
  write("p.npy", npy("<u8", "1,", raw<std::uint64_t>({k2To63})));
  EXPECT_THAT(row_ids_of(*open_arrays_to_predict(dir_ / "p.npy", schema)), ElementsAre(k2To63));
  write("x.npy", npy("<f4", "2,", raw<float>({1, 2})));
  EXPECT_THAT(open("type: npy, inputs: x.npy, labels: y.npy")->schema(), Not(HasSubstr("row_ids")));
}

TEST_F(RowIdsOfArrays, WhatDoesNotFitIsTold) {
  write("u.npy", npy("<u8", "2,", raw<std::uint64_t>({1, k2To63})));
  EXPECT_THAT(error(keys("int64")),
              HasSubstr("u.npy: row 1 has an id that is none of type int64: it is 2^63 or more; "
                        "say uint64"));
  EXPECT_THAT(error(keys("int32")), HasSubstr("row_ids.u: expected one of int64, uint64, got \"int32\""));
  EXPECT_THAT(error(keys("string")), HasSubstr("row_ids.u: expected one of int64, uint64, got \"string\""));
  EXPECT_THAT(error("type: npy, inputs: {u: u.npy}, labels: y.npy, row_ids: [u]"),
              HasSubstr("row_ids: expected a map from inputs to int64 or uint64, such as {user: uint64}"));
  EXPECT_THAT(error("type: npy, inputs: {u: u.npy}, labels: y.npy, row_ids: {v: int64}"),
              HasSubstr("row_ids: there is no input \"v\""));
  EXPECT_THAT(error(keys("uint64") + ", ids: [u]"), HasSubstr("row_ids: input \"u\" is among ids, too"));
  EXPECT_THAT(error(keys("uint64") + ", scale: 1/255"),
              HasSubstr("scale: input \"u\" is ids, which have none"));
  write("u.npy", npy("<i2", "2,", raw<std::int16_t>({-1, 0})));
  EXPECT_THAT(error(keys("uint64")),
              HasSubstr("u.npy: row 0 has an id that is none of type uint64: it is negative"));
  write("u.npy", npy("<f8", "2,", raw<double>({1, 2})));
  EXPECT_THAT(error(keys("uint64")),
              HasSubstr("u.npy: has numbers of dtype float64, which do not hold all ids; save it as uint64"));
}

class RowIdsOfRecords : public testing::SourceTest {
 protected:
  RowIdsOfRecords() : SourceTest("type: tfrecord, files: a, ") {}
  void write_records(const std::vector<std::string>& records) const {
    std::string bytes;
    for (const std::string& r : records) append_record(bytes, r);
    write("a", bytes);
  }
};

TEST_F(RowIdsOfRecords, IntegersAndTexts) {
  const std::string large(std::size_t{1} << 20U, 'x');
  const auto record = [](std::int64_t user, const std::string& word) {
    return example({{"user", int64_feature({user})},
                    {"word", bytes_feature({word, "a"})},
                    {"label", int64_feature({0})}});
  };
  write_records({record(-1, ""), record(kLeastSigned, large)});
  const auto data = open(
      "features: {s: {feature: user, ids: int64}, u: {feature: user, ids: uint64}, w: {feature: word, ids: string}}");
  ASSERT_EQ(data->inputs().size(), 3U);
  EXPECT_EQ(data->inputs()[1].id_type, IdType::uint64);
  EXPECT_EQ(
      data->inputs()[2],
      (InputSpec{.name = "w", .shape = Shape{2}, .features = Features::row_ids, .id_type = IdType::string}));
  EXPECT_THAT(row_ids_of(*data, 0), ElementsAre(kMost, k2To63));
  EXPECT_THAT(row_ids_of(*data, 1), ElementsAre(kMost, k2To63)) << "the records have no other 64 bits";
  EXPECT_THAT(row_ids_of(*data, 2), ElementsAre(hash64(""), hash64("a"), hash64(large), hash64("a")));
  EXPECT_EQ(array_schema_from_json(data->schema()).inputs[2].row_ids, IdType::string);
}

TEST_F(RowIdsOfRecords, WhatDoesNotFitIsTold) {
  write_records(
      {example({{"u", float_feature({1})}, {"n", int64_feature({1})}, {"label", int64_feature({0})}})});
  EXPECT_THAT(error("features: {u: {ids: int64}}"), HasSubstr("which do not hold all ids; save it as int64"));
  EXPECT_THAT(
      error("features: {n: {ids: string}}"),
      HasSubstr("a: record 0: feature \"n\" holds int64, and ids: string is for bytes; say ids: int64"));
  EXPECT_THAT(error("features: {n: {ids: int32}}"),
              HasSubstr("features.n.ids: expected one of true, false, int64, uint64, string, got \"int32\""));
  write_records({example({{"w", bytes_feature({"a"})}, {"label", int64_feature({0})}}),
                 example({{"w", bytes_feature({"a", "b"})}, {"label", int64_feature({0})}})});
  EXPECT_THAT(error("features: {w: {ids: string}}"),
              HasSubstr("a: record 1: feature \"w\" has 2 texts, where the first record has 1"));
}

}  // namespace
}  // namespace varscope
