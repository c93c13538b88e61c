// Samples in NumPy's files and in IDX files of any type and rank.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <numeric>

#include "common/config/job_config.h"
#include "common/config/yaml_reader.h"
#include "tests/support/case_stride.h"
#include "tests/support/references/numpy_files.h"
#include "tests/support/references/source_test.h"
#include "tests/support/thrown.h"
#include "worker/data/array_files.h"
#include "worker/data/array_source.h"
#include "worker/data/batch.h"
#include "worker/data/idx.h"
#include "worker/data/pairs.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;
using testing::idx;
using testing::npy;
using testing::npy_with;
using testing::raw;
using testing::thrown;
using testing::zip;
using Numbers = std::vector<double>;

class ArrayData : public testing::SourceTest {
 protected:
  ArrayData() : SourceTest("") {}
  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  static Numbers elements(const NumberArray& array) {
    const auto width = static_cast<std::size_t>(array.row_shape().n_elements());
    Numbers values(width * static_cast<std::size_t>(array.n_rows()));
    for (std::int64_t i = 0; i < array.n_rows(); ++i)
      array.read(i, Scale{}, values.data() + static_cast<std::size_t>(i) * width);
    return values;
  }
  // [3, 2, 2]: element (i, j, k) is 100 i + 10 j + k, or of bytes 40 i + 10 j + k.
  static Numbers counted(int factor) {
    Numbers values;
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 2; ++j)
        for (int k = 0; k < 2; ++k) values.push_back(factor * i + 10 * j + k);
    return values;
  }
  template <class T>
  void expect_read(const std::string& type, int factor) const {
    const Numbers wanted = counted(factor);
    std::vector<T> c, f;
    for (const double x : wanted) c.push_back(static_cast<T>(x));
    for (int k = 0; k < 2; ++k)
      for (int j = 0; j < 2; ++j)
        for (int i = 0; i < 3; ++i) f.push_back(static_cast<T>(factor * i + 10 * j + k));
    Digest content;
    for (const bool swapped : {false, true}) {
      for (const bool fortran : {false, true}) {
        const std::string descr = (swapped ? ">" : "<") + type;
        SCOPED_TRACE(descr + (fortran ? " Fortran" : " C"));
        const NumberArray a =
            open_npy(write("a.npy", npy(descr, "3, 2, 2", raw(fortran ? f : c, swapped), fortran)));
        EXPECT_EQ(elements(a), wanted);
        EXPECT_EQ(a.row_shape(), (Shape{2, 2}));
        EXPECT_EQ(a.n_rows(), 3);
        EXPECT_EQ(a.n_bytes(), 0) << "mapped";
        if (!swapped && !fortran) content = a.content(0, 3);
        EXPECT_EQ(a.content(0, 3), content) << "the same samples, however they lie";
        std::vector<std::int64_t> integers(4);
        EXPECT_TRUE(a.read(2, integers.data()));
        EXPECT_THAT(integers, ElementsAre(2 * factor, 2 * factor + 1, 2 * factor + 10, 2 * factor + 11));
      }
    }
  }
};

TEST_F(ArrayData, EveryTypeInEveryOrderOfBytesAndAxes) {
  expect_read<std::int8_t>("i1", 40);
  expect_read<std::int16_t>("i2", 100);
  expect_read<std::int32_t>("i4", 100);
  expect_read<std::int64_t>("i8", 100);
  expect_read<std::uint8_t>("u1", 100);
  expect_read<std::uint16_t>("u2", 100);
  expect_read<std::uint32_t>("u4", 100);
  expect_read<std::uint64_t>("u8", 100);
  expect_read<float>("f4", 100);
  expect_read<double>("f8", 100);
}

// The bits of binary16 by the formula of IEEE 754.
TEST_F(ArrayData, HalvesAndBooleans) {
  std::vector<std::uint16_t> halves;
  Numbers wanted;
  for (const int bits : {0x0000, 0x8000, 0x3c00, 0xc000, 0x0001, 0x03ff, 0x0400, 0x7bff, 0x3555}) {
    halves.push_back(static_cast<std::uint16_t>(bits));
    const int e = bits >> 10 & 31, m = bits & 1023;
    const double x = e == 0 ? m * std::pow(2, -24) : (1 + m / 1024.0) * std::pow(2, e - 15);
    wanted.push_back(bits >> 15 != 0 ? -x : x);
  }
  EXPECT_EQ(elements(open_npy(write("h.npy", npy("<f2", "9,", raw(halves))))), wanted);
  EXPECT_EQ(elements(open_npy(write("h.npy", npy(">f2", "9,", raw(halves, true))))), wanted);
  EXPECT_EQ(elements(open_npy(write("b.npy", npy("|b1", "3,", std::string("\0\1\1", 3))))),
            (Numbers{0, 1, 1}));
}

TEST_F(ArrayData, IntegersAreThoseThatFit) {
  const NumberArray f =
      open_npy(write("f.npy", npy("<f8", "4,", raw<double>({3, 2.5, 0x1p63, std::nan("")}))));
  std::int64_t wide = 0;
  EXPECT_TRUE(f.read(0, &wide));
  for (const std::int64_t row : {1, 2, 3}) EXPECT_FALSE(f.read(row, &wide)) << row;
  const NumberArray u = open_npy(write("u.npy", npy("<u8", "2,", raw<std::uint64_t>({7, 1ULL << 63}))));
  EXPECT_TRUE(u.read(0, &wide));
  EXPECT_FALSE(u.read(1, &wide));
  std::int32_t narrow = 0;
  const NumberArray i = open_npy(write("i.npy", npy("<i8", "2,", raw<std::int64_t>({-5, 1LL << 31}))));
  EXPECT_TRUE(i.read(0, &narrow));
  EXPECT_EQ(narrow, -5);
  EXPECT_FALSE(i.read(1, &narrow));
}

TEST_F(ArrayData, OneFileIsTheInputX) {
  write("x.npy", npy("<f4", "3, 2", raw<float>({1, 2, 3, 4, 5, 6})));
  write("y.npy", npy("<i8", "3,", raw<std::int64_t>({0, 2, 1})));
  const auto data = open("type: npy, inputs: x.npy, labels: y.npy");
  EXPECT_EQ(data->size(), 3);
  EXPECT_EQ(data->inputs(), (std::vector<InputSpec>{{.name = "x", .shape = Shape{2}}}));
  EXPECT_EQ(data->n_classes(), 3);
  EXPECT_FALSE(data->knows_classes());
  EXPECT_EQ(data->target(), Target::classes);
  EXPECT_EQ(all(*data), (Numbers{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(all(*data, 0, DType::float32), (Numbers{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(all(*data, 1), (Numbers{0, 2, 1}));
  EXPECT_TRUE(open("type: npy, inputs: x.npy, labels: y.npy, classes: 3")->knows_classes());
}

TEST_F(ArrayData, NumbersToEstimateAreOneOrSeveral) {
  write("x.npy", npy("<f4", "2, 2", raw<float>({1, 2, 3, 4})));
  write("one.npy", npy("<f8", "2,", raw<double>({0.5, -1.5})));
  write("two.npy", npy("<f4", "2, 2", raw<float>({1, 2, 3, 4.5}), true));
  const auto one = open("type: npy, inputs: x.npy, labels: one.npy, label_type: number");
  EXPECT_EQ(one->target(), Target::numbers);
  EXPECT_EQ(one->label_shape(), Shape{1});
  EXPECT_EQ(one->n_classes(), 0);
  EXPECT_EQ(all(*one, 1), (Numbers{0.5, -1.5}));
  const auto two = open("type: npy, inputs: x.npy, labels: two.npy, label_type: number");
  EXPECT_EQ(two->label_shape(), Shape{2});
  EXPECT_EQ(all(*two, 1), (Numbers{1, 3, 2, 4.5})) << "in Fortran order";
  EXPECT_EQ(all(*two, 1, DType::float32), (Numbers{1, 3, 2, 4.5}));
}

TEST_F(ArrayData, SeveralInputsAndIds) {
  write("a.npy", npy("<f4", "3, 2", raw<float>({1, 2, 3, 4, 5, 6})));
  write("u.npy", npy("<u2", "3,", raw<std::uint16_t>({5, 0, 9})));
  write("y.npy", npy("|b1", "3,", std::string("\0\1\1", 3)));
  const auto data = open("type: npy, inputs: {a: a.npy, user: u.npy}, labels: y.npy, ids: [user]");
  EXPECT_EQ(
      data->inputs(),
      (std::vector<InputSpec>{{.name = "a", .shape = Shape{2}},
                              {.name = "user", .shape = Shape{1}, .features = Features::ids, .n_ids = 10}}));
  EXPECT_EQ(all(*data, 1), (Numbers{5, 0, 9}));
  EXPECT_EQ(all(*data, 2), (Numbers{0, 1, 1}));
  EXPECT_EQ(data->n_classes(), 2);
}

TEST_F(ArrayData, OnlyImagesOfBytesAreScaledByThemselves) {
  const std::string bytes("\x00\x33\x66\xff", 4);
  write("y.npy", npy("|u1", "1,", std::string(1, '\0')));
  const auto read = [&](const std::string& shape, const std::string& more = "") {
    write("x.npy", npy("|u1", shape, bytes));
    return all(*open("type: npy, inputs: x.npy, labels: y.npy" + more));
  };
  const Numbers scaled{0, 51 / 255.0, 102 / 255.0, 1}, plain{0, 51, 102, 255};
  EXPECT_EQ(read("1, 2, 2"), scaled);
  EXPECT_EQ(read("1, 2, 2, 1"), scaled);
  EXPECT_EQ(read("1, 1, 1, 4"), scaled);
  EXPECT_EQ(read("1, 4"), plain) << "a table";
  EXPECT_EQ(read("1, 1, 2, 2, 1"), plain) << "no image";
  EXPECT_EQ(read("1, 2, 2", ", scale: 1"), plain);
  EXPECT_EQ(read("1, 4", ", scale: 1/255"), scaled);
  EXPECT_EQ(read("1, 4", ", scale: {x: 2 / 5}"), (Numbers{0, 51 * 2 / 5.0, 102 * 2 / 5.0, 102}));
  EXPECT_EQ(read("1, 4", ", scale: -0.5"), (Numbers{-0.0, -25.5, -51, -127.5}));
  write("x.npy", npy("<f4", "1, 2, 2", raw<float>({1, 2, 3, 4})));
  EXPECT_EQ(all(*open("type: npy, inputs: x.npy, labels: y.npy")), (Numbers{1, 2, 3, 4}));
}

// The same bits as images in IDX files have.
TEST_F(ArrayData, ImagesHaveTheBitsOfIdx) {
  std::string pixels;
  for (int i = 0; i < 256; ++i) pixels += static_cast<char>(i);
  write("x", idx(8, {1, 16, 16}, pixels));
  write("y", idx(8, {1}, std::string(1, '\0')));
  write("x.npy", npy("|u1", "1, 16, 16", pixels));
  write("y.npy", npy("|u1", "1,", std::string(1, '\0')));
  const auto a = open("type: idx, images: x, labels: y"), b = open("type: npy, inputs: x.npy, labels: y.npy");
  for (const DType model : {DType::float32, DType::float64}) EXPECT_EQ(all(*a, 0, model), all(*b, 0, model));
}

TEST_F(ArrayData, APartIsByPositionAndHasTheClassesOfTheWhole) {
  write("x.npy", npy("<i4", "5, 1", raw<std::int32_t>({0, 1, 2, 3, 4})));
  write("y.npy", npy("<i4", "5,", raw<std::int32_t>({0, 1, 0, 1, 2})));
  const std::string keys = "type: npy, inputs: x.npy, labels: y.npy, ";
  const auto train = open(keys + "to: 0.6"), test = open(keys + "from: 0.6");
  EXPECT_EQ(all(*train), (Numbers{0, 1, 2}));
  EXPECT_EQ(all(*test), (Numbers{3, 4}));
  EXPECT_EQ(all(*test, 1), (Numbers{1, 2}));
  EXPECT_EQ(train->n_classes(), 3);
  EXPECT_NE(train->content(), test->content());
  EXPECT_THAT(error(keys + "from: 0.8, to: 0.2"), HasSubstr("config: from is 0.8, to is 0.2"));
}

TEST_F(ArrayData, ASplitPartsTheRows) {
  std::vector<std::int32_t> x(40), y(40);
  std::iota(x.begin(), x.end(), 0);
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = static_cast<std::int32_t>(i % 2);
  write("x.npy", npy("<i4", "40, 1", raw(x)));
  write("y.npy", npy("<i4", "40,", raw(y)));
  const DataSourceConfig source = config("type: npy, inputs: x.npy, labels: y.npy").train;
  SourceContext context{.root = dir_, .split = SplitConfig{.test = 0.3}};
  const auto train = open_source(source, context);
  context.position = DataSplit::test;
  context.train = &source;
  context.schema = train->schema();
  const auto test = open_source(source, context);
  Numbers rows = all(*train), of_test = all(*test);
  EXPECT_GE(of_test.size(), 6U);
  rows.insert(rows.end(), of_test.begin(), of_test.end());
  std::ranges::sort(rows);
  EXPECT_EQ(rows, Numbers(x.begin(), x.end())) << "each row is of one part";
}

TEST_F(ArrayData, ArchivesStoredAndCompressed) {
  const std::string x = npy("<f4", "2, 3", raw<float>({1, 2, 3, 4, 5, 6})),
                    y = npy("<i4", "2,", raw<std::int32_t>({1, 0})),
                    z = npy("<i4", "2,", raw<std::int32_t>({7, 3}));
  Digest content;
  for (const bool compressed : {false, true}) {
    write("d.npz", zip({{"x.npy", x}, {"y.npy", y}}, compressed));
    const auto data = open("type: npz, file: d.npz");
    EXPECT_EQ(data->inputs(), (std::vector<InputSpec>{{.name = "x", .shape = Shape{3}}}));
    EXPECT_EQ(all(*data), (Numbers{1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(all(*data, 1), (Numbers{1, 0}));
    EXPECT_EQ(data->n_bytes(), compressed ? 2 * 4 + 24 + 8 : 2 * 4) << "stored arrays are mapped";
    if (!compressed) content = data->content();
    EXPECT_EQ(data->content(), content);
    write("d.npz", zip({{"x_train.npy", x}, {"who.npy", z}, {"label.npy", y}}, compressed));
    const auto two = open("type: npz, file: d.npz, labels: label, ids: [who]");
    EXPECT_EQ(two->inputs()[0].name, "x_train");
    EXPECT_EQ(two->inputs()[1].n_ids, 8);
    EXPECT_EQ(open("type: npz, file: d.npz, labels: label, inputs: x_train")->inputs()[0].name, "x");
    EXPECT_EQ(open("type: npz, file: d.npz, labels: label, inputs: {a: who}")->inputs()[0].name, "a");
    EXPECT_EQ(open("type: npz, file: d.npz, labels: label, inputs: [who, x_train]")->inputs()[1].name,
              "x_train");
  }
}

TEST_F(ArrayData, AGzippedFileIsUnpacked) {
  const std::string file = npy("<i2", "2, 2", raw<std::int16_t>({1, 2, 3, 4}));
  gzFile gz = gzopen(path("x.npy.gz").c_str(), "wb");
  gzwrite(gz, file.data(), static_cast<unsigned>(file.size()));
  gzclose(gz);
  EXPECT_EQ(elements(open_npy(dir_ / "x.npy.gz")), (Numbers{1, 2, 3, 4}));
}

TEST_F(ArrayData, TestDataAreReadAsTrainingDataAre) {
  write("x.npy", npy("|u1", "2, 1, 2", std::string("\x00\xff\x33\x66", 4)));
  write("y.npy", npy("|u1", "2,", std::string("\0\2", 2)));
  write("f.npy", npy("<f4", "2, 1, 2", raw<float>({0, 1, 2, 3})));
  write("wide.npy", npy("|u1", "2, 1, 3", std::string(6, '\1')));
  write("t.npz", zip({{"xt.npy", npy("|u1", "1, 1, 2", std::string("\x33\x00", 2))},
                      {"y.npy", npy("<i4", "1,", raw<std::int32_t>({4}))}},
                     true));
  const std::string train = "type: npy, inputs: x.npy, labels: y.npy";
  EXPECT_EQ(all(*open_test(train, "type: npz, file: t.npz, inputs: xt")), (Numbers{51 / 255.0, 0}));
  EXPECT_EQ(open_test(train, "type: npz, file: t.npz, inputs: xt")->n_classes(), 5);
  EXPECT_EQ(all(*open_test(train + ", scale: 2", "type: npz, file: t.npz, inputs: xt")), (Numbers{102, 0}));
  const auto error = [&](const std::string& of_train, const std::string& of_test) {
    return thrown([&] { open_test(train + of_train, of_test); });
  };
  EXPECT_THAT(
      error("", "type: npy, inputs: f.npy, labels: y.npy"),
      HasSubstr("f.npy: has numbers of dtype float32, but those of the training data were uint8, divided by "
                "255: give it that dtype, or say scale in data.train"));
  EXPECT_EQ(error(", scale: 1", "type: npy, inputs: f.npy, labels: y.npy"), "no error");
  EXPECT_THAT(error("", "type: npy, inputs: wide.npy, labels: y.npy"),
              HasSubstr("wide.npy: its rows have shape [1, 3], those of the training data [1, 2]"));
  EXPECT_THAT(error("", "type: npy, inputs: {a: x.npy}, labels: y.npy"),
              HasSubstr("input \"x\" is missing, which data.train has; there are a"));
  EXPECT_THAT(error("", "type: npy, inputs: x.npy, labels: y.npy, scale: 3"),
              HasSubstr("scale, ids, label_type and classes are those of data.train; remove them here"));
  EXPECT_THAT(error("", "type: digits"), HasSubstr("must be of type npy or npz"));
  EXPECT_THAT(error(", classes: 3", "type: npz, file: t.npz, inputs: xt"),
              HasSubstr("array \"y\": row 0 has label 4, but classes are 0 to 2"));
}

TEST_F(ArrayData, MistakesNameFileAndRow) {
  write("x.npy", npy("<f4", "3, 2", raw<float>({1, 2, 3, 4, 5, 6})));
  write("y.npy", npy("<i4", "3,", raw<std::int32_t>({0, 1, 2})));
  write("short.npy", npy("<i4", "2,", raw<std::int32_t>({0, 1})));
  const auto with = [&](const std::string& label, const std::string& more = "") {
    write("l.npy", label);
    return error("type: npy, inputs: x.npy, labels: l.npy" + more);
  };
  EXPECT_EQ(error("type: npy, inputs: x.npy, labels: short.npy"),
            "data: " + path("x.npy") + " has 3 rows, but " + path("short.npy") + " has 2");
  EXPECT_THAT(
      with(npy("<i4", "3,", raw<std::int32_t>({1, -1, 1}))),
      HasSubstr("l.npy: row 1 is -1, which is no class: classes are 0, 1, 2, ...; numbers to be answered "
                "with are for label_type: number"));
  EXPECT_THAT(with(npy("<f4", "3,", raw<float>({0, 1, 0.5}))),
              HasSubstr("l.npy: row 2 is 0.5, which is no class"));
  EXPECT_EQ(with(npy("<f4", "3,", raw<float>({0, 1, 1}))), "no error");
  EXPECT_THAT(with(npy("<f4", "3, 2", raw<float>({0, 1, 0, 1, 1, 0}))),
              HasSubstr("l.npy: has shape [3, 2]; classes are [n]. Of one-hot rows save argmax(axis=1)"));
  EXPECT_THAT(with(npy("<i4", "3,", raw<std::int32_t>({0, 3, 1})), ", classes: 3"),
              HasSubstr("l.npy: row 1 has label 3, but classes are 0 to 2: mend the label or raise classes"));
  EXPECT_THAT(with(npy("<f4", "3,", raw<float>({0, NAN, 1})), ", label_type: number"),
              HasSubstr("l.npy: row 1 is to be answered with nan"));
  EXPECT_THAT(with(npy("<f4", "3, 1, 1", raw<float>({0, 1, 1})), ", label_type: number"),
              HasSubstr("the numbers to be answered with are [n] or [n, k]"));
  EXPECT_THAT(error("type: npy, inputs: x.npy, labels: y.npy, ids: [x]"), Eq("no error"));
  write("x.npy", npy("<f4", "3, 2", raw<float>({1, 2, 3, 4.5, 5, 6})));
  EXPECT_THAT(error("type: npy, inputs: x.npy, labels: y.npy, ids: [x]"),
              HasSubstr("x.npy: row 1 has an id that is none: ids are integers from 0"));
  EXPECT_THAT(error("type: npy, inputs: {a: x.npy, b: x.npy}, labels: y.npy, ids: [c]"),
              HasSubstr("config: ids: there is no input \"c\"; there are a, b"));
  EXPECT_THAT(error("type: npy, inputs: {a: x.npy, b: x.npy}, labels: y.npy, scale: 2"),
              HasSubstr("config: scale: there are 2 inputs; say of which it is: scale: {a: 1/255}"));
  for (const char* scale : {"1/0", "fast", "1/2/3", "0", "[1]"})
    EXPECT_THAT(
        error(std::string("type: npy, inputs: x.npy, labels: y.npy, scale: ") + scale),
        HasSubstr("config: scale: expected a number that is not 0, or a fraction such as 1/255, got"));
  EXPECT_THAT(error("type: npy, inputs: {y: x.npy}, labels: y.npy"),
              HasSubstr("y is what the labels are called"));
  EXPECT_THAT(error("type: npy, inputs: [], labels: y.npy"), HasSubstr("config: inputs: name a file"));
  EXPECT_THAT(error("type: npy, inputs: none.npy, labels: y.npy"), HasSubstr("none.npy: no such file"));
}

TEST_F(ArrayData, FilesThatAreNoArraysAreTold) {
  const auto error = [&](const std::string& bytes) {
    return thrown([&] { open_npy(write("a.npy", bytes)); });
  };
  const std::string four = raw<float>({1, 2, 3, 4}), start = "data: " + path("a.npy") + ": ";
  EXPECT_EQ(error(""), start + "is no .npy file: it is empty; numpy.save writes one");
  EXPECT_EQ(error("1,2,3\n"), start + "is no .npy file: it does not begin as one; numpy.save writes one");
  EXPECT_EQ(error(zip({}, false)),
            start + "is a zip archive, as .npz files are: say type: npz and which of its arrays");
  EXPECT_EQ(error(npy("<f4", "2, 2", four.substr(1))),
            start + "has 15 bytes where float32 numbers [2, 2] take 16: it is cut off");
  EXPECT_EQ(error(npy("<f4", "2, 2", four + "x")),
            start + "has 17 bytes where float32 numbers [2, 2] take 16");
  EXPECT_EQ(error(npy("<f4", "", four.substr(0, 4))),
            start + "holds a single number; samples are rows, [n, ...]");
  EXPECT_EQ(error(npy("<f4", "0, 3", "")), start + "has shape [0, 3]: it holds no numbers");
  EXPECT_THAT(error(npy("<f4", "4611686018427387904, 4611686018427387904", "")),
              HasSubstr("more numbers than there can be"));
  EXPECT_EQ(
      error(npy("<U3", "2,", std::string(24, '\0'))),
      start +
          "its elements are of dtype \"<U3\": texts; save an array of integers, bool, float16, float32 or "
          "float64");
  EXPECT_THAT(error(npy("|O", "2,", "")), HasSubstr("dtype \"|O\": Python objects"));
  EXPECT_THAT(error(npy("<c8", "2,", std::string(16, '\0'))), HasSubstr("dtype \"<c8\": complex numbers"));
  EXPECT_THAT(error(npy("<M8[ns]", "2,", std::string(16, '\0'))), HasSubstr("dates or times"));
  EXPECT_THAT(error(npy("", "2,", "")), HasSubstr("dtype \"\""));
  EXPECT_THAT(error(npy_with("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }\n", four)),
              HasSubstr("has an array of records (a structured dtype); save each field as an array"));
  EXPECT_THAT(error(npy_with("{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 2L), }\n", four)),
              Eq("no error"))
      << "as Python 2 has written it";
  EXPECT_THAT(error(npy_with("{'descr': '<f4'", four)), HasSubstr(start + "has a malformed array header"));
  std::string later = npy("<f4", "2, 2", four);
  later[6] = '\4';
  EXPECT_EQ(error(later), start + "has the array a.npy, which is no array");
}

TEST_F(ArrayData, DamagedArchivesAreTold) {
  const std::string x = npy("<f4", "2, 3", raw<float>({1, 2, 3, 4, 5, 6})),
                    y = npy("<i4", "2,", raw<std::int32_t>({1, 0}));
  const auto error_of = [&](const std::string& bytes, const std::string& more = "") {
    write("d.npz", bytes);
    return error("type: npz, file: d.npz" + more);
  };
  const std::string good = zip({{"x.npy", x}, {"y.npy", y}}, false);
  EXPECT_EQ(error_of(good), "no error");
  EXPECT_THAT(error_of(good, ", labels: z"),
              HasSubstr("data: " + path("d.npz") + ": has no array \"z\"; it has x, y"));
  EXPECT_THAT(error_of(good, ", inputs: xx"), HasSubstr("has no array \"xx\"; it has x, y"));
  EXPECT_THAT(error_of(zip({{"y.npy", y}}, false)),
              HasSubstr("d.npz: has no array besides the labels \"y\""));
  EXPECT_THAT(error_of(zip({{"a.txt", y}}, false)), HasSubstr("d.npz: has no arrays"));
  EXPECT_THAT(error_of(zip({{"x.npy", x}, {"x.npy", x}, {"y.npy", y}}, false)),
              HasSubstr("has two arrays \"x\""));
  EXPECT_THAT(error_of(zip({{"\xe9.npy", x}, {"y.npy", y}}, false)),
              HasSubstr("has an array \"\xe9\" whose name is no"));
  EXPECT_THAT(error_of("nothing"), HasSubstr("d.npz: is no .npz file: it has 7 bytes"));
  std::string flipped = good;
  flipped[good.find("\x93NUMPY") + 80] ^= 1;
  EXPECT_THAT(error_of(flipped), HasSubstr("d.npz: array \"x\": is damaged: \"x.npy\" has crc32"));
  const std::string packed = zip({{"x.npy", x}, {"y.npy", y}}, true);
  flipped = packed;
  flipped[60] = static_cast<char>(flipped[60] ^ 0x55);
  EXPECT_THAT(error_of(flipped), HasSubstr("d.npz: array \"x\": is damaged: "));
}

// Whatever the bytes are: numbers or Error(data), and no others; the sanitizers look at what is read.
TEST_F(ArrayData, NoCutAndNoFlippedBitDoesMoreHarmThanAnError) {
  const std::string x = npy("<i2", "2, 2", raw<std::int16_t>({1, 2, 3, 0})),
                    y = npy("|u1", "2,", std::string("\1\0", 2));
  struct File {
    std::string bytes, keys;
  };
  const std::vector<File> files = {
      {x, "type: npy, inputs: f, labels: y.npy"},
      {zip({{"x.npy", x}, {"y.npy", y}}, false), "type: npz, file: f"},
      {zip({{"x.npy", x}, {"y.npy", y}}, true), "type: npz, file: f"},
      {idx(0x0b, {2, 2}, std::string("\0\1\0\2\0\3\0\4", 8)), "type: idx, images: f, labels: y.idx"}};
  write("y.npy", y);
  write("y.idx", idx(8, {2}, std::string("\0\1", 2)));
  for (const File& file : files) {
    SCOPED_TRACE(file.keys);
    const auto try_with = [&](const std::string& bytes) {
      write("f", bytes);
      try {
        const auto data = open(file.keys);
        all(*data);
        data->content();
      } catch (const Error& e) {
        EXPECT_EQ(e.kind(), ErrorKind::data) << e.what();
      }
    };
    for (std::size_t n = 0; n < file.bytes.size(); n += testing::kCaseStride)
      try_with(file.bytes.substr(0, n));
    for (std::size_t i = 0; i < file.bytes.size(); i += testing::kCaseStride) {
      for (const int bit : {0, 3, 7}) {
        std::string bytes = file.bytes;
        bytes[i] = static_cast<char>(bytes[i] ^ 1 << bit);
        try_with(bytes);
      }
    }
  }
}

TEST_F(ArrayData, RowsToPredictAreFoundByName) {
  write("x.npy", npy("<f4", "2, 2", raw<float>({1, 2, 3, 4})));
  write("d.npz", zip({{"x_train.npy", npy("<f4", "2, 2", raw<float>({1, 2, 3, 4}))},
                      {"l.npy", npy("<i4", "2,", raw<std::int32_t>({1, 0}))}},
                     false));
  const std::string text = open("type: npz, file: d.npz, inputs: x_train, labels: l")->schema();
  const ArraySchema schema = array_schema_from_json(text);
  EXPECT_EQ(to_json(schema), text);
  const auto from_npy = open_arrays_to_predict(dir_ / "x.npy", schema);
  EXPECT_FALSE(from_npy->has_labels());
  EXPECT_EQ(all(*from_npy), (Numbers{1, 2, 3, 4}));
  EXPECT_EQ(all(*from_npy, 1), (Numbers{0, 0}));
  const auto again = open_arrays_to_predict(dir_ / "d.npz", schema);
  EXPECT_TRUE(again->has_labels());
  EXPECT_EQ(all(*again, 1), (Numbers{1, 0}));
  write("p.npz", zip({{"x.npy", npy("<f4", "1, 2", raw<float>({5, 6}))}}, true));
  EXPECT_EQ(all(*open_arrays_to_predict(dir_ / "p.npz", schema)), (Numbers{5, 6}));
  write("p.npz", zip({{"z.npy", npy("<f4", "1, 2", raw<float>({5, 6}))}}, true));
  EXPECT_THAT(thrown([&] { open_arrays_to_predict(dir_ / "p.npz", schema); }),
              HasSubstr("has no array \"x\""));
  EXPECT_THAT(thrown([] { array_schema_from_json("{}"); }), HasSubstr("data: no schema of arrays"));
}

// --- IDX

TEST_F(ArrayData, IdxOfEveryType) {
  const Numbers wanted{1, 2, 3, 4, 5, 100};
  const auto read = [&](std::uint32_t code, const std::string& elements) {
    write("x", idx(code, {3, 2}, elements));
    write("y", idx(8, {3}, std::string("\0\1\0", 3)));
    return all(*open("type: idx, images: x, labels: y"));
  };
  EXPECT_EQ(read(0x08, raw<std::uint8_t>({1, 2, 3, 4, 5, 100})), wanted) << "a table: not scaled";
  EXPECT_EQ(read(0x09, raw<std::int8_t>({1, 2, 3, 4, 5, 100})), wanted);
  EXPECT_EQ(read(0x0b, raw<std::int16_t>({1, 2, 3, 4, 5, 100}, true)), wanted);
  EXPECT_EQ(read(0x0c, raw<std::int32_t>({1, 2, 3, 4, 5, 100}, true)), wanted);
  EXPECT_EQ(read(0x0d, raw<float>({1, 2, 3, 4, 5, 100}, true)), wanted);
  EXPECT_EQ(read(0x0e, raw<double>({1, 2, 3, 4, 5, 100}, true)), wanted);
  for (const std::uint32_t code : {0x00U, 0x0aU, 0x0fU}) {
    EXPECT_THAT(thrown([&] { read(code, ""); }),
                HasSubstr("IDX files begin with 00 00, a type of 08 to 0E, and a rank"));
  }
}

TEST_F(ArrayData, IdxOfColourImages) {
  std::string pixels;
  for (int i = 0; i < 24; ++i) pixels += static_cast<char>(10 * i);
  write("x", idx(8, {2, 2, 2, 3}, pixels));
  write("y", idx(8, {2}, std::string("\0\1", 2)));
  const auto data = open("type: idx, images: x, labels: y");
  EXPECT_EQ(data->sample_shape(), (Shape{2, 2, 3}));
  EXPECT_EQ(all(*data)[23], 230 / 255.0);
  EXPECT_EQ(data->schema(), "") << "images of bytes, as ever";
  EXPECT_EQ(open("type: idx, images: x, labels: y, scale: 1")->sample_shape(), (Shape{2, 2, 3}));
  EXPECT_EQ(all(*open("type: idx, images: x, labels: y, scale: 1"))[23], 230);
  EXPECT_EQ(open("type: idx, images: x, labels: y, pairs: true")->sample_shape(), (Shape{2, 2, 2, 3}));
}

TEST_F(ArrayData, IdxWithNumbersToEstimate) {
  write("x", idx(0x0d, {2, 3}, raw<float>({1, 2, 3, 4, 5, 6}, true)));
  write("y", idx(0x0e, {2, 2}, raw<double>({0.5, 1.5, -2, 8}, true)));
  const std::string keys = "type: idx, images: x, labels: y, label_type: number";
  const auto data = open(keys);
  EXPECT_EQ(data->label_shape(), Shape{2});
  EXPECT_EQ(all(*data, 1), (Numbers{0.5, 1.5, -2, 8}));
  EXPECT_EQ(all(*open_test(keys, "type: idx, images: x, labels: y"), 1), (Numbers{0.5, 1.5, -2, 8}));
  EXPECT_THAT(error("type: idx, images: x, labels: y, label_type: word"),
              HasSubstr("config: label_type: expected one of class, number, got \"word\""));
  EXPECT_THAT(error(keys + ", pairs: true"),
              HasSubstr("pairs can be made of samples with one label each only"));
}

TEST_F(ArrayData, IdxTestDataMeanTheSameAsTrainingData) {
  write("bytes", idx(8, {2, 1, 2}, std::string("\0\1\2\3", 4)));
  write("floats", idx(0x0d, {2, 1, 2}, raw<float>({1, 2, 3, 4}, true)));
  write("y", idx(8, {2}, std::string("\0\1", 2)));
  const auto error_with = [&](const std::string& train, const std::string& test) {
    return thrown([&] {
      open_test("type: idx, labels: y, images: " + train, "type: idx, labels: y, images: " + test);
    });
  };
  EXPECT_EQ(error_with("bytes", "bytes"), "no error");
  EXPECT_EQ(error_with("floats", "floats"), "no error");
  EXPECT_THAT(error_with("bytes", "floats"), HasSubstr("floats: holds no images of bytes, as "));
  EXPECT_THAT(error_with("floats", "bytes"),
              HasSubstr("bytes: has numbers of dtype uint8, but those of the training data were float32"));
}

// --- files that NumPy has written

// The system's Python, to which Debian's packages belong, before any other.
constexpr const char* kPython = "PATH=/usr/bin:$PATH python3";

TEST_F(ArrayData, FilesOfNumPyItself) {
  if (std::system(fmt::format("{} -c 'import numpy' 2>/dev/null", kPython).c_str()) != 0)
    GTEST_SKIP() << "numpy is not installed";
  write("make.py", R"(import numpy, sys
a = (numpy.arange(24) * 5 % 23).reshape(4, 3, 2)
for t in ['?', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8']:
    for order in '<>':
        for axes in 'CF':
            name = (t if t != '?' else 'b') + ('l' if order == '<' else 'b') + axes
            numpy.save(name + '.npy', numpy.asarray(a, dtype=numpy.dtype(t).newbyteorder(order), order=axes))
y = numpy.array([0, 1, 2, 0])
numpy.savez('plain.npz', x=a.astype('f4'), y=y, z=numpy.asfortranarray(a))
numpy.savez_compressed('packed.npz', x=a.astype('f4'), y=y, z=numpy.asfortranarray(a))
)");
  ASSERT_EQ(std::system(fmt::format("cd {} && {} make.py", dir_.string(), kPython).c_str()), 0);
  Numbers wanted, booleans;
  for (int i = 0; i < 24; ++i) wanted.push_back(i * 5 % 23);
  for (const double x : wanted) booleans.push_back(x != 0 ? 1 : 0);
  for (const char* type : {"b", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}) {
    for (const char* layout : {"lC", "lF", "bC", "bF"}) {
      const std::string file = std::string(type) + layout + ".npy";
      SCOPED_TRACE(file);
      EXPECT_EQ(elements(open_npy(dir_ / file)), type[0] == 'b' ? booleans : wanted);
    }
  }
  for (const char* file : {"plain", "packed"}) {
    const auto data = open(std::string("type: npz, file: ") + file + ".npz");
    EXPECT_EQ(all(*data, 0), wanted);
    EXPECT_EQ(all(*data, 1), wanted);
    EXPECT_EQ(all(*data, 2), (Numbers{0, 1, 2, 0}));
  }
}

}  // namespace
}  // namespace varscope
