#include "common/base/ids.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <type_traits>

#include "common/base/serialize.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using Names = IdVector<ServerId, std::string>;

template <class Vector, class Subscript>
concept CanSubscript = requires(Vector v, Subscript s) {
  v[s];
};

static_assert(CanSubscript<Names, ServerId>);
static_assert(!CanSubscript<Names, WorkerId>, "another id names something else");
static_assert(!CanSubscript<Names, int>);
static_assert(!std::is_convertible_v<int, Names>);

TEST(IdVector, ASubscriptIsAnId) {
  Names names(3, "free");
  names[ServerId(1)] = "taken";
  EXPECT_THAT(names, ElementsAre("free", "taken", "free"));
  const Names& same = names;
  EXPECT_EQ(same[ServerId(1)], "taken");
}

TEST(IdVector, KnowsWhichIdsItHas) {
  const Names two{"a", "b"};
  EXPECT_FALSE(two.has(ServerId(-1)));
  EXPECT_TRUE(two.has(ServerId(0)));
  EXPECT_TRUE(two.has(ServerId(1)));
  EXPECT_FALSE(two.has(ServerId(2)));
  EXPECT_FALSE(Names().has(ServerId(0)));
}

TEST(IdVector, IdsGoWithTheirElements) {
  Names names;
  EXPECT_TRUE(names.empty());
  EXPECT_EQ(names.next_id(), ServerId(0));
  names.push_back("a");
  names.emplace_back(2, 'b');
  EXPECT_EQ(names.next_id(), ServerId(2));
  EXPECT_EQ(names.back(), "bb");
  std::string all;
  for (ServerId s : names.ids()) all += std::to_string(s.value) + names[s];
  EXPECT_EQ(all, "0a1bb");
}

TEST(IdVector, HoldsBitsAndWhatCannotBeCopied) {
  IdVector<BucketId, bool> bits(2);
  bits[BucketId(1)] = true;
  EXPECT_THAT(bits, ElementsAre(false, true));
  bits.assign(3, true);
  EXPECT_THAT(bits, ElementsAre(true, true, true));
  IdVector<Rank, std::unique_ptr<int>> owners(1);
  owners.push_back(std::make_unique<int>(7));
  EXPECT_EQ(owners[Rank(0)], nullptr);
  EXPECT_EQ(*owners[Rank(1)], 7);
}

TEST(IdVector, TravelsAsBytes) {
  const IdVector<ServerId, int> numbers{3, 1, 2};
  const auto copy = from_binary<IdVector<ServerId, int>>(to_binary(numbers), "numbers");
  EXPECT_EQ(copy, numbers);
}

TEST(IdRange, IsEmptyForNothing) {
  for (WorkerId w : IdRange<WorkerId>(0)) FAIL() << w.value;
  int sum = 0;
  for (WorkerId w : IdRange<WorkerId>(std::size_t{4})) sum += w.value;
  EXPECT_EQ(sum, 6);
}

}  // namespace
}  // namespace varscope
