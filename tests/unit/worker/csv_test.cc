#include "worker/data/csv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>

#include "common/config/job_config.h"
#include "common/config/yaml_reader.h"
#include "tests/support/references/source_test.h"
#include "tests/support/thrown.h"
#include "worker/data/csv_reader.h"
#include "worker/data/table_schema.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing::thrown;

class CsvTest : public testing::SourceTest {
 protected:
  CsvTest() : SourceTest("type: csv, ") {}
  DataSourceConfig source(const std::string& keys) const { return config(keys).train; }
  // All of a table's input, in its order.
  static std::vector<double> numbers(const Dataset& data, std::size_t input = 0) { return all(data, input); }
  static std::vector<double> labels(const Dataset& data) { return all(data, 99); }
};

TEST_F(CsvTest, ReadsNumbersAndClassesByName) {
  write("a.csv", "a,y,b\n1,cat,2\n3,dog,4.5\n-5e1,cat,+6\n");
  const auto data = open("files: a.csv, schema: {label: {column: y}}");
  EXPECT_EQ(data->size(), 3);
  EXPECT_EQ(data->sample_shape(), Shape{2});
  EXPECT_THAT(data->class_names(), ElementsAre("cat", "dog"));
  EXPECT_THAT(numbers(*data), ElementsAre(1, 2, 3, 4.5, -50, 6));
  EXPECT_THAT(labels(*data), ElementsAre(0, 1, 0));
}

// RFC 4180, and what programs write beside it.
TEST_F(CsvTest, QuotesLineEndsAndMarks) {
  write("a.csv", "\xef\xbb\xbf\"a\",\"the \"\"y\"\"\"\r\n\r\n\"1\",\"x,\ny\"\r\n\n2,z\r\n3,\"\"\"\"");
  const auto data = open("files: a.csv, schema: {label: {column: 'the \"y\"'}}");
  EXPECT_THAT(numbers(*data), ElementsAre(1, 2, 3));
  EXPECT_THAT(data->class_names(), ElementsAre("\"", "x,\ny", "z"));
}

TEST_F(CsvTest, ManyFilesInTheOrderOfTheirNamesGzipToo) {
  write("b-2.csv", "3,1\n4,0\n");
  write("b-1.csv", "1,0\n2,1\n");
  gzFile z = gzopen((dir_ / "a.csv.gz").c_str(), "wb");
  gzputs(z, "0,1\n");
  gzclose(z);
  const auto data = open("files: [a.csv.gz, 'b-*.csv'], header: [v, y], schema: {label: {column: y}}");
  EXPECT_THAT(numbers(*data), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(labels(*data), ElementsAre(1, 0, 1, 1, 0));
  EXPECT_THAT(thrown([&] { open("files: 'c-*.csv', schema: {label: {column: y}}"); }),
              HasSubstr("matches no file"));
}

TEST_F(CsvTest, ColumnsByRangeAndNumberAndDelimiters) {
  write("a.tsv", "1\t2\t3\t4\t-1\n5\t6\t7\t8\t1\n");
  const auto data = open(
      "files: a.tsv, delimiter: tab, header: false, schema: {label: {column: 4}, features: {"
      "left: {columns: [\"0..1\"]}, right: {columns: 3}}}");
  ASSERT_EQ(data->inputs().size(), 2U);
  EXPECT_EQ(data->inputs()[0].name, "left");
  EXPECT_THAT(numbers(*data, 0), ElementsAre(1, 2, 5, 6));
  EXPECT_THAT(numbers(*data, 1), ElementsAre(4, 8));
  EXPECT_THAT(data->class_names(), ElementsAre("-1", "1"));
}

TEST_F(CsvTest, NumbersAsLabels) {
  write("a.csv", "a,p,q\n1,2,3\n4,5,6\n");
  const auto data = open("files: a.csv, schema: {label: {columns: [q, p], type: number}}");
  EXPECT_EQ(data->target(), Target::numbers);
  EXPECT_EQ(data->label_shape(), Shape{2});
  EXPECT_THAT(labels(*data), ElementsAre(3, 2, 6, 5));
}

TEST_F(CsvTest, ClassesOfNumbersAreOneHoweverTheyAreWritten) {
  write("a.csv", "a,y\n1,+1\n2,1.0\n3,10\n4,9\n5, 1\n");
  const auto data = open("files: a.csv, schema: {label: {column: y}}");
  EXPECT_THAT(data->class_names(), ElementsAre("1", "9", "10"));
  EXPECT_THAT(labels(*data), ElementsAre(0, 0, 2, 1, 0));
  const auto other = open("files: a.csv, schema: {label: {column: y, classes: [10, 1, 9]}}");
  EXPECT_THAT(labels(*other), ElementsAre(1, 1, 0, 2, 1));
}

TEST_F(CsvTest, AMissingLabelIsNoClassUnlessItIsNamed) {
  write("a.csv", "a,y\n1,EU\n2,NA\n");
  EXPECT_THAT(
      error("files: a.csv, schema: {label: {column: y}}"),
      AllOf(
          HasSubstr(
              "a.csv:3:3: column \"y\": has no class (\"NA\"); rows without an answer cannot be learnt from"),
          HasSubstr("where that is a class, name all of them, classes: [...]")));
  EXPECT_THAT(labels(*open("files: a.csv, schema: {label: {column: y, classes: [NA, EU]}}")),
              ElementsAre(1, 0));
  EXPECT_EQ(open("files: a.csv, bad_records: skip, max_bad_share: 1, schema: {label: {column: y}}")->size(),
            1);
}

// No double tells them apart.
TEST_F(CsvTest, LargeIdsThatAreNextToEachOtherAreClassesOfTheirOwn) {
  write("a.csv",
        "a,y\n1,9007199254740993\n2,9007199254740992\n3,+09007199254740993\n4,-9007199254740993\n5,7\n");
  const auto data = open("files: a.csv, schema: {label: {column: y}}");
  EXPECT_THAT(data->class_names(),
              ElementsAre("-9007199254740993", "7", "9007199254740992", "9007199254740993"));
  EXPECT_THAT(labels(*data), ElementsAre(3, 2, 3, 0, 1));
}

TEST_F(CsvTest, MissingNumbers) {
  write("a.csv", "a,b,y\n1,,0\nNA,2,1\n3,4,0\n");
  EXPECT_THAT(thrown([&] { open("files: a.csv, schema: {label: {column: y}}"); }),
              AllOf(StartsWith("data: " + (dir_ / "a.csv:2:3: column \"b\": has no value (\"\")").string()),
                    HasSubstr("missing: mean")));
  const auto zero =
      open("files: a.csv, schema: {label: {column: y}, features: {x: {columns: [a, b], missing: -7}}}");
  EXPECT_THAT(numbers(*zero), ElementsAre(1, -7, -7, 2, 3, 4));
  const auto mean = open(
      "files: a.csv, schema: {label: {column: y}, features: {x: {columns: [a, b], missing: mean, indicator: true}}}");
  EXPECT_EQ(mean->sample_shape(), Shape{4});
  EXPECT_THAT(numbers(*mean), ElementsAre(1, 3, 0, 1, 2, 2, 1, 0, 3, 4, 0, 0));
}

TEST_F(CsvTest, TransformsAreOfTheTrainingDataAndTravel) {
  write("a.csv", "a,b,c,y\n1,2,7,0\n3,6,7,1\n");
  const std::string keys =
      "files: a.csv, schema: {label: {column: y}, features: {s: {columns: [a, c], transform: standardize}, "
      "m: {columns: [b], transform: min_max}, l: {columns: [b], transform: [log1p, min_max]}}}";
  const auto train = open(keys);
  EXPECT_THAT(numbers(*train, 0), ElementsAre(-1, 0, 1, 0));
  EXPECT_THAT(numbers(*train, 1), ElementsAre(0, 1));
  EXPECT_THAT(numbers(*train, 2), ElementsAre(0, 1));
  write("b.csv", "y,c,b,a\n0,8,10,5\n");
  const auto test = open("files: b.csv", train->schema());
  EXPECT_THAT(numbers(*test, 0), ElementsAre(3, 1));
  EXPECT_THAT(numbers(*test, 1), ElementsAre(2));
  EXPECT_DOUBLE_EQ(numbers(*test, 2)[0], (std::log1p(10) - std::log1p(2)) / (std::log1p(6) - std::log1p(2)));
  EXPECT_EQ(schema_from_json(train->schema()), schema_from_json(to_json(schema_from_json(train->schema()))));
}

TEST_F(CsvTest, WordsBecomeIdsByFrequencyThenByBytes) {
  write("a.csv", "w,v,y\nb,u,0\na,u,1\nb,u,0\nc,t,1\n");
  const auto train = open(
      "files: a.csv, schema: {label: {column: y}, features: {x: {columns: [w, v], vocabulary: {size: 3}}}}");
  ASSERT_EQ(train->inputs()[0].features, Features::ids);
  EXPECT_EQ(train->inputs()[0].n_ids, 6);
  EXPECT_THAT(numbers(*train), ElementsAre(1, 4, 2, 4, 1, 4, 0, 5));
  write("b.csv", "w,v,y\nnew,t,0\n");
  EXPECT_THAT(numbers(*open("files: b.csv", train->schema())), ElementsAre(0, 5));
  const auto hashed =
      open("files: a.csv, schema: {label: {column: y}, features: {x: {columns: [w, v], hash: 10}}}");
  const std::vector<double> ids = numbers(*hashed);
  EXPECT_EQ(hashed->inputs()[0].n_ids, 20);
  EXPECT_EQ(ids[0], ids[4]);
  EXPECT_LT(ids[0], 10);
  EXPECT_GE(ids[1], 10);
}

TEST_F(CsvTest, PartsByPosition) {
  write("a.csv", "a,y\n0,0\n1,1\n2,0\n3,1\n4,0\n");
  EXPECT_THAT(numbers(*open("files: a.csv, to: 0.6, schema: {label: {column: y}}")), ElementsAre(0, 1, 2));
  EXPECT_THAT(numbers(*open("files: a.csv, from: 0.6, schema: {label: {column: y}}")), ElementsAre(3, 4));
}

// 0.1 + 0.1 + 0.1 is not 3 * 0.1: a rounded mean would be beside the constant.
TEST_F(CsvTest, AConstantColumnBecomesZero) {
  write("c.csv", "a,g,y\n0.1,0.7,0\n0.1,,1\n0.1,0.7,0\n0.1,0.7,1\n0.1,0.7,0\n0.1,0.7,1\n");
  const auto data = open(
      "files: c.csv, schema: {label: {column: y}, features: {a: {columns: [a], transform: standardize}, "
      "g: {columns: [g], missing: mean, transform: standardize}}}");
  EXPECT_EQ(numbers(*data, 0), std::vector<double>(6, 0.0));
  EXPECT_EQ(numbers(*data, 1), std::vector<double>(6, 0.0));
}

TEST_F(CsvTest, NumbersThatAreTooLargeForATransformAreTold) {
  write("c.csv", "a,y\n1e308,0\n-1e308,1\n1.5e308,0\n,1\n");
  const auto told = [&](const std::string& how) {
    return thrown([&] {
      open(
          "files: c.csv, to: 0.75, schema: {label: {column: y}, features: {a: {columns: [a], missing: 0, transform: " +
          how + "}}}");
    });
  };
  EXPECT_EQ(told("standardize"),
            "data: column \"a\": its numbers, -1e+308 to 1.5e+308, are too large for "
            "standardize; bring them to a smaller scale first");
  EXPECT_THAT(told("min_max"), HasSubstr("are too large for min_max"));
  EXPECT_EQ(told("log1p"), "no error");
  write("c.csv", "a,y\n1e308,0\n1.5e308,1\n,1\n");
  EXPECT_THAT(
      thrown([&] {
        open("files: c.csv, schema: {label: {column: y}, features: {a: {columns: [a], missing: mean}}}");
      }),
      HasSubstr("are too large for missing: mean"));
}

TEST_F(CsvTest, BadRecordsAreToldInPlace) {
  const std::string schema = ", schema: {label: {column: y}}";
  const auto told = [&](const std::string& text) {
    write("a.csv", text);
    return thrown([&] { open("files: a.csv" + schema); });
  };
  const std::string at = "data: " + (dir_ / "a.csv").string();
  EXPECT_EQ(told("a,y\n1,0\n2\n"), at + ":3: 1 cells where 2 are expected: \"2\"");
  EXPECT_EQ(told("a,y\n1,0\n2,0,9\n"), at + ":3: 3 cells where 2 are expected: \"2 | 0 | 9\"");
  EXPECT_EQ(told("a,y\n1,0\n0x3,1\n"), at + ":3:1: column \"a\": expected a number, got \"0x3\"");
  EXPECT_EQ(told("a,y\n1,0\n1e999,1\n"), at + ":3:1: column \"a\": expected a number, got \"1e999\"");
  EXPECT_EQ(
      told("a,y\n1,0\n2,\n"),
      at +
          ":3:3: column \"y\": has no class; rows without an answer cannot be learnt from: take them out, or say "
          "bad_records: skip");
  EXPECT_THAT(told("a,y\n1,0\n\"2,1\n3,1\n"),
              StartsWith(at + ":3:1: a quote that is not closed by the end of the file"));
  EXPECT_EQ(told("a,y\n1,0\n\"2\"x,1\n"), at + ":3:4: text behind a closing quote");
  EXPECT_THAT(told(std::string("a,y\n1,0\n2\0,1\n", 13)), StartsWith(at + ":3:2: a NUL byte"));
  EXPECT_EQ(told("a,y\n"), at + ": has no samples; is there more than a header?");
  EXPECT_EQ(told(""), at + ": has no records");
  EXPECT_EQ(told("a,y\n1,0\n2,\xe9t\xe9\n"),
            at + ":3:3: column \"y\": \"\xe9t\xe9\" is no UTF-8; convert the file: iconv -f latin1 -t utf-8");
  EXPECT_THAT(told("\xe9,y\n1,0\n"),
              StartsWith(at + ":1:1: the name \"\xe9\" is no UTF-8; convert the file"));
  EXPECT_EQ(told("a,y\n1,\u00e9\n"), "no error");
  EXPECT_EQ(told("a,a\n1,0\n"), at + ":1:1: two columns are called \"a\"; rename one of them");
  EXPECT_THAT(told("a,x\n1,0\n"),
              HasSubstr("config: schema.label: the table has no column \"y\"; it has 2 columns: a, x"));
}

// What spreadsheets and other programs write, and what is said of what cannot be read.
TEST_F(CsvTest, OddTables) {
  const auto read = [&](const std::string& text, const std::string& more = "") {
    write("a.csv", text);
    return open("files: a.csv, schema: {label: {column: y}}" + more);
  };
  const auto told = [&](const std::string& text, const std::string& more = "") {
    return thrown([&] { read(text, more); });
  };
  // Spaces around quotes; columns without a name, such as the index that pandas writes, are no features.
  EXPECT_THAT(numbers(*read("a, \"b\" ,y\n1, \"2\" ,\"p\"\n3,  4,q\n")), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(numbers(*read(",a,y,\n0,5,p,\n1,6,q,\n")), ElementsAre(5, 6));
  EXPECT_THAT(numbers(*open("files: a.csv, schema: {label: {column: y}, features: {x: {columns: [0, a]}}}")),
              ElementsAre(0, 5, 1, 6));
  EXPECT_THAT(
      told("a;b;y\n1;2;p\n"),
      HasSubstr("its first line is one cell, \"a;b;y\"; say what stands between cells, delimiter: ';'"));
  EXPECT_THAT(told("a\tb\ty\n1\t2\tp\n"),
              HasSubstr("\"a?b?y\"; say what stands between cells, delimiter: tab"));
  EXPECT_THAT(told(std::string("\xff\xfe"
                               "a\0,\0y\0\n\0",
                               10)),
              HasSubstr("a.csv: is text in UTF-16; save it as UTF-8"));
  EXPECT_THAT(told("a,y\r1,p\r2,q\r"),
              HasSubstr("a.csv:1:4: a carriage return (CR) within a line; lines end with LF or CRLF"));
  EXPECT_THAT(told("1,1,0\n2,3,1\n"),
              HasSubstr("two columns are called \"1\"; if the first line is no header, say header: false"));
  write("a.csv", "a,y\n1,2\n2,NA\n");
  EXPECT_THAT(
      thrown([&] { open("files: a.csv, schema: {label: {column: y, type: number}}"); }),
      HasSubstr(
          "a.csv:3:3: column \"y\": has no value (\"NA\"); rows without an answer cannot be learnt from"));
}

TEST_F(CsvTest, TestDataAreReadAsTheTrainingDataAreUnlessTheySayOtherwise) {
  write("a.csv", "1;0\n2;1\n");
  write("b.csv", "0,1\n5,0\n");
  const DataSourceConfig train =
      source("files: a.csv, delimiter: ';', header: false, schema: {label: {column: 1}}");
  const std::string schema = open_source(train, {.root = dir_})->schema();
  const auto test = [&](const std::string& keys) {
    const JobConfig job = parse_job(
        read_yaml_text("job: {name: t}\ndata: {train: {type: csv, files: a}, test: {type: csv, " + keys +
                           "}}\nmodel: {loss: softmax_cross_entropy, layers: [{type: "
                           "dense, units: 2}]}\n",
                       "job.yaml"),
        "job.yaml");
    return numbers(*open_source(
        *job.data.test, {.position = DataSplit::test, .train = &train, .root = dir_, .schema = schema}));
  };
  EXPECT_THAT(test("files: a.csv"), ElementsAre(1, 2));
  EXPECT_THAT(test("files: b.csv, delimiter: ',', header: [column 0, column 1]"), ElementsAre(0, 5));
}

TEST_F(CsvTest, BadRecordsMayBeSkippedAndAreCounted) {
  write("a.csv", "a,y\n1,0\nx,1\n3,1\n4\n");
  const auto data = open("files: a.csv, bad_records: skip, max_bad_share: 0.5, schema: {label: {column: y}}");
  EXPECT_THAT(numbers(*data), ElementsAre(1, 3));
  ASSERT_EQ(data->warnings().size(), 1U);
  EXPECT_THAT(data->warnings()[0],
              AllOf(HasSubstr("2 of 4 records are left out (bad_records: skip); the first: "),
                    HasSubstr("a.csv:3:1: column \"a\": expected a number")));
  EXPECT_THAT(thrown([&] { open("files: a.csv, bad_records: skip, schema: {label: {column: y}}"); }),
              HasSubstr("2 of 4 records are bad, more than max_bad_share 0.01; the first: "));
}

TEST_F(CsvTest, TheFirstHundredBadRecordsAreTold) {
  std::string text = "a,y\n";
  for (int i = 0; i < 150; ++i) text += "1,0\nx,1\n";
  write("a.csv", text);
  const auto data = open("files: a.csv, bad_records: skip, max_bad_share: 0.5, schema: {label: {column: y}}");
  EXPECT_EQ(data->left_out().n, 150);
  EXPECT_EQ(data->left_out().of, 300);
  ASSERT_EQ(data->left_out().first.size(), LeftOut::kMostTold);
  EXPECT_THAT(data->left_out().first.back(),
              HasSubstr("a.csv:201:1: column \"a\": expected a number, got \"x\""));
  EXPECT_EQ(data->only_class(), 0);
}

// The constants are those of the samples that are trained on, the classes those of all.
TEST_F(CsvTest, APartOfTheRowsIsForTests) {
  std::string text = "n,y\n";
  for (int i = 0; i < 60; ++i) text += fmt::format("{},{}\n", i, i);
  write("a.csv", text);
  const DataSourceConfig keys =
      source("files: a.csv, schema: {label: {column: y}, features: {x: {columns: n, transform: min_max}}}");
  SourceContext context{.position = DataSplit::train, .root = dir_, .split = SplitConfig{.test = 0.3}};
  const auto train = open_source(keys, context);
  context.position = DataSplit::test;
  context.schema = train->schema();
  const auto test = open_source(source("files: a.csv"), context);
  EXPECT_EQ(train->size() + test->size(), 60);
  EXPECT_EQ(train->n_classes(), 60);
  std::vector<double> all = labels(*train);
  EXPECT_EQ(std::ranges::min(numbers(*train)), 0);
  EXPECT_EQ(std::ranges::max(numbers(*train)), 1);
  EXPECT_TRUE(std::ranges::is_sorted(all));
  for (const double label : labels(*test)) all.push_back(label);
  std::ranges::sort(all);
  for (std::size_t i = 0; i < 60; ++i) EXPECT_EQ(all[i], static_cast<double>(i));
}

TEST_F(CsvTest, OtherDataMustHaveTheColumnsAndClasses) {
  write("a.csv", "a,bb,y\n1,2,u\n3,4,v\n");
  const std::string schema = open("files: a.csv, schema: {label: {column: y}}")->schema();
  write("b.csv", "a,b,y\n1,2,u\n");
  EXPECT_THAT(thrown([&] { open("files: b.csv", schema); }),
              HasSubstr("has no column \"bb\", which the training data have"));
  write("c.csv", "a,bb,y\n1,2,w\n");
  EXPECT_THAT(thrown([&] { open("files: c.csv", schema); }),
              HasSubstr("c.csv:2:5: column \"y\": \"w\" is no class; there are u, v"));
}

TEST_F(CsvTest, MistakesOfTheSchemaAreTold) {
  write("a.csv", "aa,width,y\n1,2,0\n");
  const auto told = [&](const std::string& features) {
    return thrown(
        [&] { open("files: a.csv, schema: {label: {column: y}, features: {x: {" + features + "}}}"); });
  };
  EXPECT_THAT(told("columns: [widht]"),
              HasSubstr("schema.features.x: the table has no column \"widht\"; did you mean \"width\"?"));
  EXPECT_THAT(told("columns: [aa, aa]"), HasSubstr("column \"aa\" is named twice"));
  EXPECT_THAT(told("columns: [y]"),
              HasSubstr("column \"y\" is the label: the answer would be among the features"));
  EXPECT_THAT(told("columns: [width..aa]"), HasSubstr("range \"width..aa\" ends before it begins"));
  EXPECT_THAT(told("columns: [aa], transform: log"),
              HasSubstr("expected one of none, log1p, standardize, min_max"));
  EXPECT_THAT(told("columns: [aa], missing: some"),
              HasSubstr("expected error, mean or a number, got \"some\""));
  EXPECT_THAT(told("columns: [aa], indicator: true"), HasSubstr("needs missing"));
  EXPECT_THAT(told("columns: [aa], hash: 4, transform: log1p"), HasSubstr("are for numbers, not for words"));
  EXPECT_THAT(told("columns: [aa], split: '|'"), HasSubstr("schema.features.x.split: is for words"));
  EXPECT_THAT(told("columns: [aa], hash: 4, weights: true"),
              HasSubstr("say what stands between them, split: \"|\""));
  EXPECT_THAT(told("columns: [aa], hash: 4, weights: true, split: ':'"),
              HasSubstr("stands before the weights"));
  EXPECT_THAT(told("cross: [aa, width]"), HasSubstr("schema.features.x.cross: needs hash"));
  EXPECT_THAT(told("cross: [aa], hash: 4"), HasSubstr("names one column; it takes two or more"));
  EXPECT_THAT(told("cross: [aa, width], columns: aa, hash: 4"), HasSubstr("remove one of them"));
  EXPECT_THAT(told("cross: [aa, width], split: '|', hash: 4"), HasSubstr("cannot be crossed"));
  EXPECT_THAT(told("hash: 4"), HasSubstr("schema.features.x.columns: missing"));
  EXPECT_THAT(told("columns: [aa], hsah: 4"), HasSubstr("did you mean \"hash\"?"));
  EXPECT_THAT(thrown([&] { open("files: a.csv"); }),
              HasSubstr("schema: missing; it says which column is the label"));
  EXPECT_THAT(thrown([&] { open("files: a.csv, delimiter: ';;', schema: {label: {column: y}}"); }),
              HasSubstr("delimiter: expected one character, or tab"));
  EXPECT_THAT(thrown([&] { open("files: none.csv, schema: {label: {column: y}}"); }),
              HasSubstr("no such file"));
}

TEST(Numbers, AreReadAsPeopleWriteThem) {
  EXPECT_EQ(number_in(" +1.5e3 "), 1500);
  EXPECT_EQ(number_in("-.5"), -0.5);
  EXPECT_EQ(number_in("5."), 5);
  EXPECT_EQ(number_in("1e-999"), 0);
  for (const char* text :
       {"", " ", "+", "nan", "inf", "-inf", "0x10", "1,5", "1 2", "1e999", "--1", "+-1", "1e"})
    EXPECT_FALSE(number_in(text)) << text;
}

// Arrays of a bag: ids, offsets, weights.
struct BagArrays {
  std::vector<double> ids, offsets, weights;
};
BagArrays bag_of(const Dataset& data, const std::vector<std::int64_t>& rows, std::size_t first = 0) {
  const auto n = std::ssize(rows);
  const Batch batch(data.spec(), DType::float64, n);
  const BatchView view = batch.view(n);
  data.read(rows, view);
  BagArrays arrays;
  for (const std::int64_t at : view.inputs[first + 1].as<std::int64_t>())
    arrays.offsets.push_back(static_cast<double>(at));
  for (std::int64_t i = 0; i < view.inputs[first + 1].as<std::int64_t>().back(); ++i) {
    arrays.ids.push_back(view.inputs[first].data<std::int32_t>()[i]);
    if (view.inputs.size() > first + 2) arrays.weights.push_back(view.inputs[first + 2].data<double>()[i]);
  }
  return arrays;
}

TEST_F(CsvTest, ACellOfSeveralWordsIsABag) {
  write("a.csv", "t,y\nb|a,0\n,1\n b | c||b,0\n");
  const auto data = open(
      "files: a.csv, schema: {label: {column: y}, features: {t: {columns: t, split: '|', vocabulary: {size: 3}}}}");
  ASSERT_EQ(data->inputs().size(), 2U);
  EXPECT_EQ(data->inputs()[0], (InputSpec{"t", Shape{Shape::kRagged}, Features::ids, 3, 3}));
  EXPECT_EQ(data->inputs()[1], (InputSpec{"t/offsets", Shape{Shape::kBounds}, Features::offsets}));
  // b is met three times, a and c once: of these a is the first by its bytes, and c has no id.
  const BagArrays all = bag_of(*data, {0, 1, 2});
  EXPECT_THAT(all.ids, ElementsAre(1, 2, 1, 0, 1));
  EXPECT_THAT(all.offsets, ElementsAre(0, 2, 2, 5));
  const BagArrays some = bag_of(*data, {2, 0});
  EXPECT_THAT(some.ids, ElementsAre(1, 0, 1, 1, 2));
  EXPECT_THAT(some.offsets, ElementsAre(0, 3, 5));
  EXPECT_EQ(schema_from_json(data->schema()), schema_from_json(to_json(schema_from_json(data->schema()))));
  write("b.csv", "y,t\n0,new|a|b|newer\n");
  const auto other = open("files: b.csv", data->schema());
  EXPECT_THAT(bag_of(*other, {0}).ids, ElementsAre(0, 2, 1, 0));
  EXPECT_EQ(other->unknown_words().n, 2);
  EXPECT_EQ(other->unknown_words().of, 4);
}

TEST_F(CsvTest, WordsOfABagHaveWeights) {
  write("a.csv", "t,u,y\nb:0.5|http://x:2,p,0\nb,,1\n");
  const auto data = open(
      "files: a.csv, schema: {label: {column: y}, features: {t: {columns: [t, u], split: '|', weights: true, hash: 10}}}");
  ASSERT_EQ(data->inputs().size(), 3U);
  EXPECT_EQ(data->inputs()[2], (InputSpec{"t/weights", Shape{Shape::kRagged}, Features::real, 0, 3}));
  const BagArrays all = bag_of(*data, {0, 1});
  EXPECT_THAT(all.weights, ElementsAre(0.5, 2, 1, 1));
  EXPECT_THAT(all.offsets, ElementsAre(0, 3, 4));
  EXPECT_EQ(all.ids[0], all.ids[3]);
  EXPECT_GE(all.ids[2], 10) << "each column has ids of its own";
  write("c.csv", "t,u,y\nb,p,0\nc:2|b:-1e39,p,1\n");
  EXPECT_THAT(
      thrown([&] { open("files: c.csv", data->schema()); }),
      HasSubstr("c.csv:3:1: column \"t\": the weight -1e+39 of an id is beyond float32, whose greatest is "
                "3.402823e+38"));
  for (const char* cell : {"b:", "b:x", "b:nan", ":2"}) {
    write("c.csv", std::string("t,u,y\nb,p,0\n") + cell + ",p,1\n");
    EXPECT_THAT(
        thrown([&] { open("files: c.csv", data->schema()); }),
        HasSubstr(std::string("c.csv:3:1: column \"t\": expected words, or word:weight, got \"") + cell));
  }
}

TEST_F(CsvTest, WordsOfSeveralColumnsAreCrossed) {
  write("a.csv", "p,q,y\na,bc,0\nab,c,1\na,bc,1\n");
  const auto data =
      open("files: a.csv, schema: {label: {column: y}, features: {pq: {cross: [p, q], hash: 1000}}}");
  const std::vector<double> ids = numbers(*data);
  EXPECT_EQ(data->inputs()[0].n_ids, 1000);
  EXPECT_EQ(ids[0], ids[2]);
  EXPECT_NE(ids[0], ids[1]);
  EXPECT_EQ(schema_from_json(data->schema()), schema_from_json(to_json(schema_from_json(data->schema()))));
  write("b.csv", "y,q,p\n0,bc,a\n");
  EXPECT_THAT(numbers(*open("files: b.csv", data->schema())), ElementsAre(ids[0]));
  write("c.csv", "y,q\n0,bc\n");
  EXPECT_THAT(thrown([&] { open("files: c.csv", data->schema()); }), HasSubstr("has no column \"p\""));
}

TEST_F(CsvTest, RowsHaveWeights) {
  write("a.csv", "a,w,y\n1,0.5,u\n2,0,never\n3,2,v\n");
  const auto data = open("files: a.csv, schema: {label: {column: y}, weight: {column: w}}");
  // A row of weight 0 is as if it were not there: no class, no constant, no sample.
  EXPECT_THAT(numbers(*data), ElementsAre(1, 3));
  EXPECT_THAT(data->class_names(), ElementsAre("u", "v"));
  EXPECT_THAT(data->weights(), ElementsAre(0.5, 2));
  const Batch batch(data->spec(), DType::float32, 2);
  data->read_weighted(std::vector<std::int64_t>{1, 0}, batch.view(2));
  EXPECT_THAT(batch.view(2).weights->as<double>(), ElementsAre(2, 0.5));
  EXPECT_EQ(batch.view(2).total_weight(), 2.5);
  EXPECT_EQ(schema_from_json(data->schema()), schema_from_json(to_json(schema_from_json(data->schema()))));
  write("b.csv", "w,y,a\n3,v,9\n");
  EXPECT_THAT(open("files: b.csv", data->schema())->weights(), ElementsAre(3));
}

TEST_F(CsvTest, WhatIsNoWeightIsToldInPlace) {
  const auto told = [&](const std::string& weight) {
    write("a.csv", "a,y,w\n1,0,1\n2,1," + weight + "\n");
    return thrown([&] { open("files: a.csv, schema: {label: {column: y}, weight: {column: w}}"); });
  };
  for (const char* weight : {"-1", "nan", "inf", "", "x", "1e31", "1e-31"}) {
    EXPECT_EQ(told(weight),
              "data: " + (dir_ / "a.csv").string() +
                  ":3:5: column \"w\": expected a weight, 0 or a number from 1e-30 to 1e+30, got \"" +
                  weight + "\"");
  }
  write("a.csv", "a,y,w\n1,0,0\n");
  EXPECT_THAT(thrown([&] { open("files: a.csv, schema: {label: {column: y}, weight: {column: w}}"); }),
              HasSubstr("a.csv: all of its rows have weight 0"));
  const auto schema = [&](const std::string& more) {
    return thrown([&] { open("files: a.csv, schema: {label: {column: y}, " + more + "}"); });
  };
  EXPECT_THAT(schema("weight: {column: y}"), HasSubstr("schema.weight: column \"y\" is the label"));
  EXPECT_THAT(schema("weight: {column: ww}"), HasSubstr("schema.weight: the table has no column \"ww\""));
  EXPECT_THAT(schema("weight: {column: a..w}"), HasSubstr("schema.weight: "));
  EXPECT_THAT(schema("weight: {column: w}, features: {x: {columns: [a, w]}}"),
              HasSubstr("schema.features.x: column \"w\" is the weight of the rows"));
}

class LibsvmTest : public CsvTest {
 protected:
  std::unique_ptr<Dataset> open_svm(const std::string& text, const std::string& keys = "",
                                    const std::string& schema = "") const {
    write("a", text);
    const JobConfig job = parse_job(
        read_yaml_text("job: {name: t}\ndata: {train: {type: libsvm, files: a" + keys +
                           "}}\nmodel: {loss: softmax_cross_entropy, layers: [{type: dense, units: 2}]}\n",
                       "job.yaml"),
        "job.yaml");
    return open_source(job.data.train, {.root = dir_, .schema = schema});
  }
};

TEST_F(LibsvmTest, ReadsRowsAsTheyAreFound) {
  const auto data = open_svm("+1 1:0.5 3:2 \n-1 qid:7 2:1 # a comment\n\n# none\n-1\n");
  EXPECT_EQ(data->sample_shape(), Shape{3});
  EXPECT_THAT(numbers(*data), ElementsAre(0.5, 0, 2, 0, 1, 0, 0, 0, 0));
  EXPECT_THAT(data->class_names(), ElementsAre("-1", "1"));
  EXPECT_THAT(labels(*data), ElementsAre(1, 0, 0));
  EXPECT_THAT(numbers(*open_svm("1 0:1 1:2\n0 1:3\n", ", base: 0")), ElementsAre(1, 2, 0, 3));
  EXPECT_THAT(labels(*open_svm("1.5 1:1\n-2 1:2\n", ", label: number")), ElementsAre(1.5, -2));
}

TEST_F(LibsvmTest, ATestSetMayHaveFewerFeaturesAndNotMore) {
  const std::string schema = open_svm("0 1:1 3:1\n1 2:1\n")->schema();
  EXPECT_THAT(numbers(*open_svm("0 1:5\n", "", schema)), ElementsAre(5, 0, 0));
  EXPECT_THAT(thrown([&] { open_svm("0 1:5\n1 2:1 7:1\n", "", schema); }),
              HasSubstr("a:2:7: feature 7 is beyond those of the training data, which end at 3"));
  EXPECT_THAT(numbers(*open_svm("0 1:5 7:1\n", ", drop_unknown: true", schema)), ElementsAre(5, 0, 0));
  EXPECT_THAT(thrown([&] { open_svm("2 1:5\n", "", schema); }),
              HasSubstr("a:1: \"2\" is no class; there are 0, 1"));
}

// One number a line in a file beside the data, as LightGBM and XGBoost read them.
TEST_F(LibsvmTest, RowsHaveWeights) {
  write("w", "2\n0\n\n0.25\n");
  const auto data = open_svm("1 1:1\n0 7:1\n0 2:1\n", ", weights: w");
  EXPECT_THAT(numbers(*data), ElementsAre(1, 0, 0, 1));
  EXPECT_THAT(data->weights(), ElementsAre(2, 0.25));
  const auto told = [&](const std::string& weights) {
    write("w", weights);
    return thrown([&] { open_svm("1 1:1\n0 7:1\n0 2:1\n", ", weights: w"); });
  };
  EXPECT_THAT(told("1\n-2\n1\n"),
              HasSubstr("w:2: expected a weight, 0 or a number from 1e-30 to 1e+30, got \"-2\""));
  EXPECT_THAT(told("1\n2\n"), AllOf(HasSubstr("w:2: there are 2 weights for 3 rows; the row at "),
                                    HasSubstr("a:3 has none")));
  EXPECT_THAT(told("1\n2\n3\n4\n"), HasSubstr("w:4: a weight more than there are rows, which are 3"));
  EXPECT_THAT(told("0\n0\n0\n"), HasSubstr("all weights are 0"));
}

TEST_F(LibsvmTest, TooManyFeaturesForNumbersAreAskedForAsBags) {
  EXPECT_THAT(
      thrown([&] { open_svm("1 3:1\n0 100001:2\n"); }),
      HasSubstr(
          "the rows have features up to 100001, and all of a row as numbers would be 781.3 KiB; say bags: "
          "true: ids and values, for a layer of type embedding"));
  EXPECT_EQ(open_svm("1 3:1\n0 100001:2\n", ", bags: true")->size(), 2);
}

TEST_F(LibsvmTest, RowsMayBeBags) {
  const auto data = open_svm("1 1:0.5 7:2\n0\n0 2:-1\n", ", bags: true");
  ASSERT_EQ(data->inputs().size(), 3U);
  EXPECT_EQ(data->inputs()[0], (InputSpec{"x", Shape{Shape::kRagged}, Features::ids, 7, 2}));
  const BagArrays all = bag_of(*data, {2, 1, 0});
  EXPECT_THAT(all.ids, ElementsAre(1, 0, 6));
  EXPECT_THAT(all.offsets, ElementsAre(0, 1, 1, 3));
  EXPECT_THAT(all.weights, ElementsAre(-1, 0.5, 2));
  EXPECT_THAT(bag_of(*open_svm("1 3:4\n", ", bags: true", data->schema()), {0}).ids, ElementsAre(2));
  EXPECT_THAT(thrown([&] { open_svm("1 8:4\n", ", bags: true", data->schema()); }),
              HasSubstr("a:1:3: feature 8 is beyond those of the training data, which end at 7"));
}

TEST_F(LibsvmTest, BadRowsMayBeSkippedAndAreCounted) {
  const auto data = open_svm("1 1:1\nx y\n0 2:1\n1 3:1 2:1\n", ", bad_records: skip, max_bad_share: 0.5");
  EXPECT_EQ(data->size(), 2);
  EXPECT_EQ(data->left_out().n, 2);
  EXPECT_EQ(data->left_out().of, 4);
  EXPECT_THAT(data->left_out().first[1], HasSubstr("a:4:7: index 2 is not greater than the one before"));
  EXPECT_THAT(thrown([&] { open_svm("1 1:1\nx y\n", ", bad_records: skip, max_bad_share: 0.1"); }),
              HasSubstr("1 of 2 records are bad, more than max_bad_share 0.1; the first: "));
}

TEST_F(LibsvmTest, WhatIsNoRowIsToldInPlace) {
  const auto told = [&](const std::string& text) { return thrown([&] { open_svm(text); }); };
  EXPECT_THAT(told("1 2\n"), HasSubstr("a:1:3: expected index:value, got \"2\""));
  EXPECT_THAT(told("1 x:2\n"), HasSubstr("a:1:3: expected index:value"));
  EXPECT_THAT(told("1 2:x\n"), HasSubstr("a:1:3: expected a number behind the colon, got \"2:x\""));
  EXPECT_THAT(told("1 0:1\n"), HasSubstr("a:1:3: index 0 is out of range; with base: 1 allowed are 1 to "));
  EXPECT_THAT(told("1 99999999999:1\n"), HasSubstr("is out of range"));
  EXPECT_THAT(told("1 99999999999999999999999:1\n"), HasSubstr("expected index:value"));
  EXPECT_THAT(told("0 1:1\n1 3:1 2:1\n"), HasSubstr("a:2:7: index 2 is not greater than the one before"));
  EXPECT_THAT(told("1:2 2:3\n"), HasSubstr("a:1:1: expected a label before the first index:value"));
  EXPECT_THAT(told("\xe9 1:1\n"), HasSubstr("a:1:1: the label \"\xe9\" is no UTF-8; convert the file"));
  EXPECT_THAT(told(""), HasSubstr("has no rows"));
}

}  // namespace
}  // namespace varscope
