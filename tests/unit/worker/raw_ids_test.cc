// Ids of the rows of tables, any 64 bits, in csv files: what a cell becomes, and that no bit is lost.
#include "worker/data/raw_ids.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "common/base/hash.h"
#include "common/base/row_id.h"
#include "tests/support/references/row_ids.h"
#include "tests/support/references/source_test.h"
#include "tests/support/thrown.h"
#include "worker/data/table_schema.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using testing::bag_ids_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::row_ids_of;
using testing::thrown;

constexpr std::uint64_t k2To63 = std::uint64_t{1} << 63U;
constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();

TEST(RawIds, NumbersAreAllOf64Bits) {
  const auto i64 = [](std::string_view text) { return number_id_in(IdType::int64, text); };
  const auto u64 = [](std::string_view text) { return number_id_in(IdType::uint64, text); };
  EXPECT_EQ(i64("-9223372036854775808"), k2To63);
  EXPECT_EQ(i64("-1"), kMost);
  EXPECT_EQ(i64("0"), 0U);
  EXPECT_EQ(i64("-0"), 0U);
  EXPECT_EQ(i64(" +7 "), 7U);
  EXPECT_EQ(i64("9223372036854775807"), k2To63 - 1);
  EXPECT_EQ(u64("9223372036854775808"), k2To63);
  EXPECT_EQ(u64("18446744073709551615"), kMost);
  EXPECT_EQ(u64("+0009007199254740993"), 9007199254740993U) << "no double holds it";
  for (const char* text : {"", " ", "+", "-", "+-1", "++1", "1.0", "1.5", "1e3", "0x10", "1 2", "1,2", "nan",
                           "9223372036854775808", "-9223372036854775809", "99999999999999999999"})
    EXPECT_FALSE(i64(text)) << text;
  for (const char* text : {"", "-1", "-0", "18446744073709551616", "1.5", "NA"})
    EXPECT_FALSE(u64(text)) << text;
}

TEST(RawIds, WordsAreKeptApartByColumn) {
  EXPECT_EQ(word_id("a", 0), hash64("a"));
  EXPECT_EQ(word_id("", 0), 0x2d06800538d394c2U) << "XXH3-64 of nothing";
  EXPECT_EQ(word_id("a", 1), string_row_id("a", 1));
  EXPECT_NE(word_id("a", 0), word_id("a", 1));
  const std::string large(std::size_t{1} << 20U, 'x');
  EXPECT_EQ(word_id(large, 0), hash64(large));
}

class RowIdsOfCsv : public testing::SourceTest {
 protected:
  RowIdsOfCsv() : SourceTest("type: csv, ") {}
  static std::string keys(const std::string& input, const std::string& more = "") {
    return "files: a.csv, " + more + "schema: {label: {column: y}, features: {x: {" + input + "}}}";
  }
};

TEST_F(RowIdsOfCsv, NumbersAsTheyAre) {
  write("a.csv", "u,v,y\n-9223372036854775808,-1,0\n0,9223372036854775807,1\n");
  const auto data = open(keys("columns: [u, v], ids: int64"));
  ASSERT_EQ(data->inputs().size(), 1U);
  EXPECT_EQ(
      data->inputs()[0],
      (InputSpec{.name = "x", .shape = Shape{2}, .features = Features::row_ids, .id_type = IdType::int64}));
  EXPECT_THAT(row_ids_of(*data), ElementsAre(k2To63, kMost, 0, k2To63 - 1));
  EXPECT_EQ(data->n_bytes(), 2 * (2 * 8 + 4));
  write("a.csv", "u,y\n18446744073709551615,0\n9223372036854775808,1\n0,1\n");
  const auto unsigned_ids = open(keys("columns: u, ids: uint64"));
  EXPECT_EQ(unsigned_ids->inputs()[0].id_type, IdType::uint64);
  EXPECT_THAT(row_ids_of(*unsigned_ids), ElementsAre(kMost, k2To63, 0));
}

TEST_F(RowIdsOfCsv, WhatIsNoIdIsToldInPlace) {
  const auto told = [&](const std::string& type, const std::string& cell) {
    write("a.csv", "y,u\n0,1\n1," + cell + "\n");
    return error(keys("columns: u, ids: " + type));
  };
  EXPECT_THAT(
      told("uint64", "-1"),
      AllOf(HasSubstr("data: "), HasSubstr("a.csv:3:3: column \"u\": expected an id of type uint64, a whole "
                                           "number from 0 to 18446744073709551615, got \"-1\"")));
  EXPECT_THAT(told("int64", "9223372036854775808"),
              HasSubstr("a.csv:3:3: column \"u\": expected an id of type int64, a whole number from "
                        "-9223372036854775808 to 9223372036854775807, got \"9223372036854775808\""));
  EXPECT_THAT(told("int64", "1.5"), HasSubstr("got \"1.5\""));
  EXPECT_THAT(told("int64", "1.0"), HasSubstr("got \"1.0\""));
  EXPECT_THAT(
      told("int64", "NA"),
      HasSubstr("a.csv:3:3: column \"u\": has no value (\"NA\"); say which id it counts as, missing: 0"));
  EXPECT_EQ(open(keys("columns: u, ids: int64", "bad_records: skip, max_bad_share: 1, "))->size(), 1);
}

TEST_F(RowIdsOfCsv, AMissingNumberIsAnIdThatIsNamed) {
  write("a.csv", "u,v,y\n,5,0\n6,NA,1\n");
  EXPECT_THAT(row_ids_of(*open(keys("columns: [u, v], ids: uint64, missing: 18446744073709551615"))),
              ElementsAre(kMost, 5, 6, kMost));
  EXPECT_THAT(row_ids_of(*open(keys("columns: [u, v], ids: int64, missing: -1"))),
              ElementsAre(kMost, 5, 6, kMost));
}

TEST_F(RowIdsOfCsv, WordsAreTheirHashesByColumn) {
  const std::string large(std::size_t{1} << 20U, 'x');
  write("a.csv", "u,v,y\na,a,0\n,NA,1\n" + large + ",\"q \"\"\",1\n\xff\xfe,b,0\n");
  const auto data = open(keys("columns: [u, v], ids: string"));
  EXPECT_THAT(row_ids_of(*data), ElementsAre(hash64("a"), string_row_id("a", 1), hash64(""),
                                             string_row_id("NA", 1), hash64(large), string_row_id("q \"", 1),
                                             hash64("\xff\xfe"), string_row_id("b", 1)));
  EXPECT_EQ(data->unknown_words().of, 0);
}

TEST_F(RowIdsOfCsv, BagsOfNumbersAndOfWords) {
  write("a.csv", "t,u,y\n-9223372036854775808:0.5|-1,3,0\n,NA,1\n9223372036854775807:-2,,1\n");
  const auto data = open(keys("columns: [t, u], ids: int64, split: '|', weights: true"));
  ASSERT_EQ(data->inputs().size(), 3U);
  EXPECT_EQ(data->inputs()[0], (InputSpec{.name = "x",
                                          .shape = Shape{Shape::kRagged},
                                          .features = Features::row_ids,
                                          .most = 3,
                                          .id_type = IdType::int64}));
  EXPECT_EQ(data->inputs()[1].features, Features::offsets);
  const auto bags = bag_ids_of(*data, {0, 1, 2});
  EXPECT_THAT(bags.ids, ElementsAre(k2To63, kMost, 3, k2To63 - 1));
  EXPECT_THAT(bags.offsets, ElementsAre(0, 3, 3, 4));
  EXPECT_THAT(bags.weights, ElementsAre(0.5, 1, 1, -2));
  EXPECT_THAT(bag_ids_of(*data, {2, 0}).ids, ElementsAre(k2To63 - 1, k2To63, kMost, 3));

  write("a.csv", "t,u,y\nb|a,a,0\n,,1\n");
  const auto words = open(keys("columns: [t, u], ids: string, split: '|'"));
  EXPECT_THAT(bag_ids_of(*words, {0, 1}).ids, ElementsAre(hash64("b"), hash64("a"), string_row_id("a", 1)));
  EXPECT_THAT(bag_ids_of(*words, {0, 1}).offsets, ElementsAre(0, 3, 3));
  write("a.csv", "t,y\n1|x,0\n");
  EXPECT_THAT(error(keys("columns: t, ids: int64, split: '|'")),
              HasSubstr("a.csv:2:1: column \"t\": expected an id of type int64"));
}

TEST_F(RowIdsOfCsv, CrossesAreHashedAsOneWord) {
  write("a.csv", "p,q,y\na,bc,0\nab,c,1\n");
  const auto data = open(keys("cross: [p, q], ids: string"));
  EXPECT_THAT(row_ids_of(*data), ElementsAre(hash64("1:a2:bc"), hash64("2:ab1:c")));
}

// Beside inputs of every other kind, whose elements are in arrays of their own.
TEST_F(RowIdsOfCsv, BesideOtherInputs) {
  write("a.csv", "n,w,u,v,t,y\n1.5,a,7,8,9|10,0\n2.5,b,-7,-8,,1\n");
  const std::string features =
      "n: {columns: n}, u: {columns: u, ids: int64}, w: {columns: w, vocabulary: {}}, t: {columns: t, ids: uint64, "
      "split: '|'}, v: {columns: v, ids: int64}";
  const auto data = open("files: a.csv, schema: {label: {column: y}, features: {" + features + "}}");
  EXPECT_THAT(all(*data, 0), ElementsAre(1.5, 2.5));
  EXPECT_THAT(all(*data, 1), ElementsAre(7, -7));
  EXPECT_THAT(all(*data, 2), ElementsAre(1, 2));
  EXPECT_THAT(bag_ids_of(*data, {0, 1}, 3).ids, ElementsAre(9, 10));
  EXPECT_THAT(all(*data, 5), ElementsAre(8, -8));
}

TEST_F(RowIdsOfCsv, SchemasTravel) {
  write("a.csv", "u,y\n18446744073709551615,0\nNA,1\n");
  const auto train = open(keys("columns: u, ids: uint64, missing: 18446744073709551614"));
  const TableSchema schema = schema_from_json(train->schema());
  EXPECT_EQ(schema, schema_from_json(to_json(schema)));
  EXPECT_EQ(schema.inputs[0].row_ids, IdType::uint64);
  EXPECT_EQ(schema.inputs[0].missing_id, kMost - 1);
  write("b.csv", "y,u\n1,\n0,9223372036854775808\n");
  EXPECT_THAT(row_ids_of(*open("files: b.csv", train->schema())), ElementsAre(kMost - 1, k2To63));
  std::string other = train->schema();
  other.replace(other.find("uint64"), 6, "int128");
  EXPECT_THAT(thrown([&] { schema_from_json(other); }), HasSubstr("there are no ids of type \"int128\""));
  other = train->schema();
  other.replace(other.find("18446744073709551614"), 20, "-1");
  EXPECT_THAT(thrown([&] { schema_from_json(other); }), HasSubstr("\"-1\" is no id of type uint64"));
}

TEST_F(RowIdsOfCsv, WhatASchemaOfBeforeSaysIsAsBefore) {
  write("a.csv", "u,y\na,0\n");
  EXPECT_THAT(open(keys("columns: u, hash: 10"))->schema(), Not(HasSubstr("row_ids")));
}

TEST_F(RowIdsOfCsv, KeptTablesHaveTheSameBits) {
  std::string text = "u,t,y\n";
  for (int i = 0; i < 500; ++i)
    text += fmt::format("{},{}|{},{}\n", mix_row_id(i), mix_row_id(i + 1), mix_row_id(i + 2), i % 2);
  write("a.csv", text);
  const std::string both =
      "files: a.csv, schema: {label: {column: y}, features: {x: {columns: u, ids: uint64}, "
      "t: {columns: t, ids: uint64, split: '|'}}}";
  const SourceContext context{.root = dir_, .cache = {.folder = dir_ / "cache", .least_bytes = 0}};
  const auto read = open(both);
  const auto made = open_source(config(both).train, context),
             mapped = open_source(config(both).train, context);
  EXPECT_EQ(row_ids_of(*read)[3], mix_row_id(3));
  for (const Dataset* kept : {made.get(), mapped.get()}) {
    EXPECT_EQ(row_ids_of(*kept), row_ids_of(*read));
    EXPECT_EQ(bag_ids_of(*kept, {499, 7}, 1).ids,
              (std::vector<std::uint64_t>{mix_row_id(500), mix_row_id(501), mix_row_id(8), mix_row_id(9)}));
    EXPECT_EQ(kept->identity(), read->identity());
    EXPECT_EQ(kept->inputs(), read->inputs());
    EXPECT_EQ(kept->n_bytes(), 0);
  }
}

TEST_F(RowIdsOfCsv, KeysThatDoNotFit) {
  write("a.csv", "u,v,y\n1,2,0\n");
  const auto told = [&](const std::string& input) { return error(keys(input)); };
  EXPECT_THAT(told("columns: u, ids: int32"), HasSubstr("ids: expected one of none, int64, uint64, string"));
  EXPECT_THAT(told("columns: u, ids: int64, hash: 5"),
              HasSubstr("hash and ids are two ways to make ids; remove one"));
  EXPECT_THAT(told("columns: u, ids: int64, vocabulary: {}"), HasSubstr("vocabulary and ids are two ways"));
  EXPECT_THAT(told("columns: u, ids: int64, indicator: true"),
              HasSubstr("schema.features.x: indicator and transform are for numbers, not for ids"));
  EXPECT_THAT(told("columns: u, ids: int64, transform: log1p"), HasSubstr("not for ids"));
  EXPECT_THAT(told("columns: u, ids: int64, missing: mean"),
              HasSubstr("schema.features.x.missing: expected an id of type int64"));
  EXPECT_THAT(told("columns: u, ids: uint64, missing: -1"), HasSubstr("got \"-1\""));
  EXPECT_THAT(told("columns: u, ids: string, missing: 0"),
              HasSubstr("of strings an empty cell is an id as any other"));
  EXPECT_THAT(told("columns: u, ids: int64, missing: 0, split: '|'"),
              HasSubstr("with split a cell without a value is an empty bag"));
  EXPECT_THAT(told("cross: [u, v], ids: int64"), HasSubstr("or ids: string"));
}

}  // namespace
}  // namespace varscope
