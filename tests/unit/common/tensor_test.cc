#include "common/base/tensor.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::thrown;

constexpr DType kAllDTypes[] = {DType::float32, DType::float64,  DType::int32,
                                DType::int64,   DType::bfloat16, DType::uint8};

TEST(DType, NamesGoThereAndBack) {
  for (DType d : kAllDTypes) EXPECT_EQ(dtype_from_string(to_string(d)), d);
}

TEST(DType, UnknownNameListsTheNames) {
  const std::string error = thrown([] { dtype_from_string("float16"); });
  EXPECT_TRUE(error.starts_with("argument: ")) << error;
  for (DType d : kAllDTypes) EXPECT_NE(error.find(to_string(d)), std::string::npos) << error;
  EXPECT_NE(error.find("\"float16\""), std::string::npos) << error;
}

TEST(DType, SizesAndKinds) {
  const std::size_t sizes[] = {4, 8, 4, 8, 2, 1};
  const bool floating[] = {true, true, false, false, true, false};
  for (std::size_t i = 0; i < std::size(kAllDTypes); ++i) {
    EXPECT_EQ(size_of(kAllDTypes[i]), sizes[i]) << to_string(kAllDTypes[i]);
    EXPECT_EQ(is_floating(kAllDTypes[i]), floating[i]) << to_string(kAllDTypes[i]);
  }
}

TEST(DType, ANumberThatIsNoneIsRefused) {
  EXPECT_EQ(thrown([] { size_of(static_cast<DType>(77)); }), "argument: dtype 77 is not one of ours");
  EXPECT_NE(thrown([] { size_of(static_cast<DType>(0)); }), "no error");
}

TEST(Shape, CountsElements) {
  EXPECT_EQ(Shape{}.n_elements(), 1);
  EXPECT_EQ(Shape{7}.n_elements(), 7);
  EXPECT_EQ((Shape{3, 4, 5}).n_elements(), 60);
  EXPECT_EQ((Shape{3, 0, 5}).n_elements(), 0);
}

TEST(Shape, Writes) {
  EXPECT_EQ(Shape{}.str(), "[]");
  EXPECT_EQ((Shape{784, 256}).str(), "[784, 256]");
  EXPECT_EQ((Shape{Shape::kUnknown, 10}).str(), "[?, 10]");
  EXPECT_EQ((Shape{Shape::kRagged, 2}).str(), "[ragged, 2]");
  EXPECT_EQ(Shape{Shape::kBounds}.str(), "[?+1]");
}

TEST(Shape, UnknownExtentHasNoCount) {
  const Shape batch{Shape::kUnknown, 10};
  EXPECT_FALSE(batch.fully_known());
  EXPECT_EQ(thrown([&] { batch.n_elements(); }), "argument: shape [?, 10] is not fully known");
  EXPECT_EQ(batch.with_dim(0, 32), (Shape{32, 10}));
  EXPECT_TRUE(batch.with_dim(0, 32).fully_known());
  for (const std::int64_t extent : {Shape::kUnknown, Shape::kRagged, Shape::kBounds}) {
    EXPECT_FALSE((Shape{3, extent}).fully_known());
    EXPECT_TRUE((Shape{3, extent}).has(extent));
    EXPECT_FALSE((Shape{3, 4}).has(extent));
    EXPECT_NE(thrown([&] { Shape{extent}.n_elements(); }), "no error");
  }
}

TEST(Shape, RefusesNegativeExtents) {
  EXPECT_EQ(thrown([] { Shape({4, -4}); }), "argument: shape [4, -4] has a negative extent");
}

TEST(Shape, RefusesMoreThanMemoryHolds) {
  const std::int64_t big = std::int64_t{1} << 31;
  EXPECT_NE(thrown([&] { Shape({big, big}); }).find("more elements than fit"), std::string::npos);
  EXPECT_NE(thrown([&] { Shape({0, std::numeric_limits<std::int64_t>::max()}); }), "no error");
  EXPECT_EQ(thrown([&] { Shape({big, 1 << 20}); }), "no error");
}

TEST(Tensor, IsZeroFilledAndAligned) {
  for (std::int64_t n : {0, 1, 15, 16, 17, 1000}) {
    const Tensor t(DType::float32, Shape{n});
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(t.view().bytes()) % kAlignment, 0U);
    EXPECT_EQ(t.n_bytes(), static_cast<std::size_t>(4 * n));
    for (float x : t.as<float>()) EXPECT_EQ(x, 0.0F);
  }
}

TEST(Tensor, ScalarHasOneElement) {
  const Tensor t = Tensor::of<double>({}, {2.5});
  EXPECT_EQ(t.n_elements(), 1);
  EXPECT_EQ(t.as<double>()[0], 2.5);
}

TEST(Tensor, ReadingAsAnotherTypeNamesBoth) {
  const Tensor t(DType::float32, Shape{2, 3});
  EXPECT_EQ(thrown([&] { t.as<double>(); }),
            "argument: tensor of shape [2, 3] has dtype float32, not float64");
}

TEST(Tensor, OfWantsAsManyValuesAsElements) {
  EXPECT_EQ(thrown([] { Tensor::of<float>({2, 2}, {1, 2, 3}); }), "argument: 3 values for [2, 2]");
}

TEST(Tensor, CloneIsIndependent) {
  const Tensor a = Tensor::of<std::int32_t>({3}, {1, 2, 3});
  const Tensor b = a.clone();
  a.as<std::int32_t>()[1] = 9;
  EXPECT_EQ(b.as<std::int32_t>()[1], 2);
  EXPECT_EQ(b.shape(), a.shape());
  EXPECT_EQ(b.dtype(), DType::int32);
}

TEST(Tensor, MovesKeepTheMemory) {
  Tensor a = Tensor::of<float>({2}, {1, 2});
  const std::byte* memory = a.view().bytes();
  const Tensor b = std::move(a);
  EXPECT_EQ(b.view().bytes(), memory);
}

TEST(TensorView, DefaultIsEmpty) { EXPECT_TRUE(TensorView().empty()); }

}  // namespace
}  // namespace varscope
