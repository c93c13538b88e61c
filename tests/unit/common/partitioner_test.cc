// How variables are partitioned.
#include "common/variables/partitioner.h"

#include <gtest/gtest.h>

#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::thrown;
using Counts = std::vector<std::int64_t>;

struct PartitionerCase {
  const char* name;
  Partitioner partitioner;
  Shape shape;
  Counts expected;
  DType dtype = DType::float32;
};

class PartitionerCases : public ::testing::TestWithParam<PartitionerCase> {};

TEST_P(PartitionerCases, Gives) {
  const PartitionerCase& c = GetParam();
  const Counts counts = c.partitioner(c.shape, c.dtype);
  EXPECT_EQ(counts, c.expected);
  const Partitioning checked = call_partitioner(c.partitioner, "v", c.shape, c.dtype);
  EXPECT_EQ(checked.counts(c.shape.rank()), c.expected);
}

const PartitionerCase kCases[] = {
    {"FixedSize", fixed_size_partitioner(2), {3, 1, 1}, {2, 1, 1}},
    {"NoMorePartsThanIndices", fixed_size_partitioner(5), {3, 7}, {3, 1}},
    {"AlongAnotherAxis", fixed_size_partitioner(5, 1), {3, 7}, {1, 5}},
    {"NothingToCut", fixed_size_partitioner(5), {0, 7}, {1, 1}},
    {"AllFit", variable_axis_size_partitioner(131072, 0), {4, 8, 16, 32}, {1, 1, 1, 1}},
    {"JustFits", variable_axis_size_partitioner(65536, 0), {4, 8, 16, 32}, {1, 1, 1, 1}},
    {"OneByteLess", variable_axis_size_partitioner(65535, 0), {4, 8, 16, 32}, {2, 1, 1, 1}},
    {"TwoShards", variable_axis_size_partitioner(32768, 2), {4, 8, 16, 32}, {1, 1, 2, 1}},
    {"EveryIndex", variable_axis_size_partitioner(2048, 3), {4, 8, 16, 32}, {1, 1, 1, 32}},
    {"TooSmallForOneIndex", variable_axis_size_partitioner(1, 3), {4, 8, 16, 32}, {1, 1, 1, 32}},
    {"MaxShards", variable_axis_size_partitioner(1024, 3, 5), {4, 8, 16, 32}, {1, 1, 1, 5}},
    {"DTypeCounts", variable_axis_size_partitioner(65536, 0), {4, 8, 16, 32}, {2, 1, 1, 1}, DType::float64},
    {"EmptyByAxisSize", variable_axis_size_partitioner(16, 0), {4, 0}, {1, 1}},
    {"BySize", min_max_variable_partitioner(100, 0, 2 << 10), {2048}, {4}},
    {"AtLeastOne", min_max_variable_partitioner(100, 0), {2048}, {1}},
    {"ByMaxPartitions", min_max_variable_partitioner(16, 0), {16, 128, 1024}, {16, 1, 1}},
    {"ByTheExtent", min_max_variable_partitioner(100, 0, 1), {3, 128}, {3, 1}},
    {"OtherAxis", min_max_variable_partitioner(4, 1), {16, 128, 1024}, {1, 4, 1}},
    {"EmptyByMinMax", min_max_variable_partitioner(4, 0), {0, 8}, {1, 1}},
};
INSTANTIATE_TEST_SUITE_P(Table, PartitionerCases, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

TEST(Partitioner, AnAxisThatIsNotThere) {
  for (const Partitioner& p : {min_max_variable_partitioner(4, 2), fixed_size_partitioner(2, 2),
                               variable_axis_size_partitioner(16, 2)}) {
    EXPECT_EQ(thrown([&] {
                p({3, 4}, DType::float32);
              }),
              "argument: cannot partition along axis 2 a variable of shape [3, 4]");
  }
}

TEST(Partitioner, RefusesSizesBelowOne) {
  EXPECT_EQ(thrown([] { fixed_size_partitioner(0); }),
            "argument: fixed_size_partitioner: the number of parts is 0; it must be 1 or more");
  EXPECT_NE(thrown([] { variable_axis_size_partitioner(0); }), "no error");
  EXPECT_NE(thrown([] { variable_axis_size_partitioner(1, 0, 0); }), "no error");
  EXPECT_NE(thrown([] { min_max_variable_partitioner(0); }), "no error");
  EXPECT_NE(thrown([] { min_max_variable_partitioner(1, 0, 0); }), "no error");
}

struct BadCase {
  const char* name;
  Counts counts;
  const char* words;
};

class BadPartitioners : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadPartitioners, AreRefused) {
  const Partitioner p = [](const Shape&, DType) { return GetParam().counts; };
  const std::string error = thrown([&] { call_partitioner(p, "scope/v", {4, 4}, DType::float32); });
  EXPECT_NE(error.find("\"scope/v\""), std::string::npos) << error;
  EXPECT_NE(error.find("[4, 4]"), std::string::npos) << error;
  EXPECT_NE(error.find(GetParam().words), std::string::npos) << error;
}

INSTANTIATE_TEST_SUITE_P(Table, BadPartitioners,
                         ::testing::Values(BadCase{"WrongRank", {1}, "rank"},
                                           BadCase{"NoEntries", {}, "rank"},
                                           BadCase{"Zero", {0, 1}, "less than one part"},
                                           BadCase{"Negative", {1, -1}, "less than one part"},
                                           BadCase{"TwoAxes", {2, 2}, "one axis only"},
                                           BadCase{"MorePartsThanIndices", {1, 5}, "only 4 indices"}),
                         [](const auto& info) { return info.param.name; });

TEST(CutParts, TheFirstPartsGetOneMore) {
  std::vector<std::int64_t> lengths;
  std::int64_t end = 0;
  for (const Slice& s : cut_parts({20, 43}, {1, 5})) {
    lengths.push_back(s.extent[1]);
    EXPECT_EQ(s.offset, (Shape{0, end}));
    EXPECT_EQ(s.extent[0], 20);
    end += s.extent[1];
  }
  EXPECT_EQ(lengths, (std::vector<std::int64_t>{9, 9, 9, 8, 8}));
  EXPECT_EQ(end, 43);
}

TEST(CutParts, SpecText) {
  const std::vector<Slice> parts = cut_parts({20, 43}, {1, 5});
  EXPECT_EQ(parts[0].spec(), "20 43 0,20:0,9");
  EXPECT_EQ(parts[4].spec(), "20 43 0,20:35,8");
  for (const Slice& s : parts) EXPECT_EQ(Slice::from_spec(s.spec()), s);
}

TEST(CutParts, OnePartIsTheWhole) {
  EXPECT_EQ(cut_parts({3, 4}, {}), (std::vector<Slice>{{{3, 4}, {0, 0}, {3, 4}}}));
}

}  // namespace
}  // namespace varscope
