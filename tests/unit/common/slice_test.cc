#include "common/variables/slice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::thrown;

// The row-major positions of all elements of a box, in the box's own order.
std::vector<std::int64_t> positions(const Slice& s) {
  std::vector<std::int64_t> all;
  std::vector<std::int64_t> at(s.full.rank(), 0);
  for (std::int64_t n = 0; n < s.n_elements(); ++n) {
    std::int64_t position = 0;
    for (std::size_t a = 0; a < at.size(); ++a) position = position * s.full[a] + s.offset[a] + at[a];
    all.push_back(position);
    for (std::size_t a = at.size(); a-- > 0;) {
      if (++at[a] < s.extent[a]) break;
      at[a] = 0;
    }
  }
  return all;
}

void expect_exact_cover(const Shape& shape, DType dtype) {
  const auto item = static_cast<std::int64_t>(size_of(dtype));
  const std::int64_t bytes = shape.n_elements() * item;
  const std::int64_t target = std::clamp(bytes / kSlicesPerVariable, kMinSliceBytes, kMaxSliceBytes);
  std::int64_t next = 0;
  for (const Slice& s : slice_variable(shape, dtype)) {
    ASSERT_EQ(s.full, shape);
    ASSERT_EQ(s.linear_begin(), next);
    ASSERT_GT(s.n_elements(), 0);
    ASSERT_LE(s.n_elements() * item, target) << s.spec();
    for (std::int64_t position : positions(s)) ASSERT_EQ(position, next++) << s.spec();
    ASSERT_EQ(Slice::from_spec(s.spec()), s);
  }
  ASSERT_EQ(next, shape.n_elements()) << shape.str();
}

TEST(Cut, CoversWithoutHoleOrOverlapInOrder) {
  for (const Shape& shape :
       {Shape{}, Shape{1}, Shape{4096}, Shape{4097}, Shape{100'000}, Shape{784, 256}, Shape{1, 50'000},
        Shape{50'000, 1}, Shape{3, 5, 7}, Shape{2, 2, 30'000}, Shape{40, 3, 3, 100}, Shape{7, 9001}}) {
    for (DType dtype : {DType::float32, DType::float64, DType::uint8}) expect_exact_cover(shape, dtype);
  }
}

TEST(Cut, CoversRandomShapes) {
  std::mt19937 random(11);
  for (int round = 0; round < 60; ++round) {
    std::vector<std::int64_t> dims(1 + random() % 4);
    std::int64_t n = 1;
    for (std::int64_t& d : dims) {
      d = 1 +
          static_cast<std::int64_t>(random() % static_cast<unsigned>(std::max<std::int64_t>(1, 60'000 / n)));
      if (random() % 2 == 0) d = std::min<std::int64_t>(d, 9);
      n *= d;
    }
    expect_exact_cover(Shape(dims), random() % 2 == 0 ? DType::float32 : DType::float64);
  }
}

TEST(Cut, AVariableWithoutElementsHasNoSlices) {
  EXPECT_TRUE(slice_variable(Shape{0}, DType::float32).empty());
  EXPECT_TRUE(slice_variable((Shape{3, 0, 5}), DType::float32).empty());
}

TEST(Cut, AScalarIsOneSlice) {
  const auto slices = slice_variable(Shape{}, DType::float32);
  ASSERT_EQ(slices.size(), 1U);
  EXPECT_EQ(slices[0].n_elements(), 1);
  EXPECT_EQ(slices[0].linear_begin(), 0);
}

// These are in every checkpoint: they must never change.
TEST(Cut, BoundariesArePinned) {
  EXPECT_EQ(slice_variable(Shape{1024}, DType::float32).size(), 1U);  // 4 KiB
  const auto two = slice_variable(Shape{1025}, DType::float32);
  ASSERT_EQ(two.size(), 2U);
  EXPECT_EQ(two[1].spec(), "1025 1024,1");
  const auto mlp = slice_variable((Shape{784, 256}), DType::float32);
  ASSERT_EQ(mlp.size(), 66U);
  EXPECT_EQ(mlp[0].spec(), "784 256 0,12:0,256");
  EXPECT_EQ(mlp[65].spec(), "784 256 780,4:0,256");
  const auto rows = slice_variable((Shape{2, 9000}), DType::float32);
  ASSERT_EQ(rows.size(), 18U);
  EXPECT_EQ(rows[8].spec(), "2 9000 0,1:8192,808");
  EXPECT_EQ(rows[9].spec(), "2 9000 1,1:0,1024");
  const auto large = slice_variable((Shape{1 << 16, 1 << 12}), DType::float32);  // 1 GiB: slices of 1 MiB
  ASSERT_EQ(large.size(), 1024U);
  EXPECT_EQ(large[1].spec(), "65536 4096 64,64:0,4096");
  const auto middle = slice_variable((Shape{1 << 12, 1 << 10}), DType::float32);  // 16 MiB: 64 slices
  EXPECT_EQ(middle.size(), 64U);
}

TEST(SliceSpec, IsWrittenAsTensorFlowWritesIt) {
  const Slice s{Shape{20, 43}, Shape{0, 0}, Shape{20, 9}};
  EXPECT_EQ(s.spec(), "20 43 0,20:0,9");
  EXPECT_EQ(Slice::from_spec("20 43 0,20:0,9"), s);
}

TEST(SliceSpec, AScalarIsEmpty) {
  EXPECT_EQ(Slice{}.spec(), "");
  EXPECT_EQ(Slice::from_spec(""), Slice{});
}

TEST(SliceSpec, RefusesHostileText) {
  const std::string_view hostile[] = {"20",
                                      "20 43",
                                      "20 43 ",
                                      "20 43 0,20",
                                      "20 43 0,20:0,9:0,1",
                                      "20 0,20:0,9",
                                      "20 43 0,21:0,9",
                                      "20 43 1,20:0,9",
                                      "20 43 0,20:40,4",
                                      "20 43 -1,20:0,9",
                                      "-20 43 0,20:0,9",
                                      "20  43 0,20:0,9",
                                      "a",
                                      "20 b 0,20:0,9",
                                      "20 43 0,20:0",
                                      "20 43 0,20:0,",
                                      "20 43 0:20,0:9",
                                      "20 43 0,20;0,9",
                                      "20 43 0,20:0,9 ",
                                      " 20 43 0,20:0,9",
                                      "20 43 0,20:0,9x",
                                      "20 43 0,20:0,9:",
                                      "+20 43 0,20:0,9",
                                      "020 43 0,20:0,9",
                                      "0,4",
                                      ",",
                                      ":",
                                      " ",
                                      "4 ,",
                                      "4 0,4,",
                                      "9223372036854775807 0,1",
                                      "9223372036854775808 0,1",
                                      "4294967296 4294967296 0,1:0,1",
                                      "4 9223372036854775807,1",
                                      "4 1,9223372036854775807"};
  for (const std::string_view text : hostile) {
    EXPECT_NE(thrown([&] { Slice::from_spec(text); }), "no error") << "\"" << text << "\"";
  }
  const std::string error = thrown([] { Slice::from_spec("20 43 0,21:0,9"); });
  EXPECT_EQ(error, "data: slice \"20 43 0,21:0,9\" reaches outside its variable on axis 0");
}

TEST(SliceSpec, RandomTextNeverCrashes) {
  std::mt19937 random(3);
  const std::string_view alphabet = "0123456789 ,:-";
  int accepted = 0, refused = 0;
  for (int round = 0; round < 50'000; ++round) {
    std::string text = round % 2 == 0 ? "20 43 0,20:0,9" : "";
    for (std::size_t i = random() % 12; i-- > 0;) {
      const char c = alphabet[random() % alphabet.size()];
      if (text.empty() || random() % 2 == 0) {
        text.insert(random() % (text.size() + 1), 1, c);
      } else {
        text[random() % text.size()] = c;
      }
    }
    try {
      const Slice s = Slice::from_spec(text);
      ++accepted;
      for (std::size_t axis = 0; axis < s.full.rank(); ++axis) {
        ASSERT_LE(s.offset[axis] + s.extent[axis], s.full[axis]) << text;
      }
      ASSERT_EQ(s.spec(), text);
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(accepted, 100);
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace varscope
