#include "common/variables/placement.h"

#include <gtest/gtest.h>

#include <set>

#include "common/base/hash.h"
#include "common/placement/cluster.h"
#include "tests/support/references/plan_checks.h"

namespace varscope {
namespace {

using testing::expect_balanced;
using testing::make_spec;
using testing::mlp_table;

struct Answer {
  const char* scope;
  std::int64_t slice;
  int n_servers;
  int owner;
};

// Operators compare plans over versions: these must never change.
constexpr Answer kAnswers[] = {
    {"", 0, 1, 0},
    {"", 0, 2, 0},
    {"", 0, 3, 1},
    {"hidden1", 0, 2, 0},
    {"hidden1", 0, 3, 1},
    {"hidden1", 0, 8, 2},
    {"hidden1", 48, 8, 2},
    {"hidden2", 0, 3, 2},
    {"output", 0, 3, 0},
    {"output", 5, 7, 4},
    {"root/foo/bar", 0, 1024, 807},
};

TEST(Placement, KnownAnswersNeverChange) {
  for (const Answer& a : kAnswers) {
    EXPECT_EQ(Placement::owner(a.scope, a.slice, a.n_servers), ServerId(a.owner))
        << "\"" << a.scope << "\" slice " << a.slice << " on " << a.n_servers;
  }
}

TEST(Placement, IsHashPlusSliceModServers) {
  for (int n_servers = 1; n_servers <= 9; ++n_servers) {
    for (const char* scope : {"", "a", "layer1/inner"}) {
      for (std::int64_t slice = 0; slice < 20; ++slice) {
        const auto n = static_cast<std::uint64_t>(n_servers);
        const auto expected = (hash64(scope) % n + static_cast<std::uint64_t>(slice)) % n;
        EXPECT_EQ(Placement::owner(scope, slice, n_servers).value, static_cast<int>(expected));
      }
    }
  }
}

TEST(Placement, ALargeVariableVisitsEveryServerInTurn) {
  for (int n_servers : {2, 3, 8}) {
    const int first = Placement::owner("hidden1", 0, n_servers).value;
    for (std::int64_t slice = 0; slice < 30; ++slice) {
      EXPECT_EQ(Placement::owner("hidden1", slice, n_servers).value, (first + slice) % n_servers);
    }
  }
}

TEST(Placement, ScopesSpreadOverServers) {
  constexpr int kServers = 4, kScopes = 400;
  int counts[kServers] = {};
  for (int i = 0; i < kScopes; ++i)
    ++counts[Placement::owner("layer" + std::to_string(i), 0, kServers).value];
  for (int c : counts) {
    EXPECT_GT(c, kScopes / kServers / 2);
    EXPECT_LT(c, kScopes / kServers * 3 / 2);
  }
}

TEST(Placement, BalancesTheBytesOfAPerceptron) {
  expect_balanced(mlp_table(DType::float32));
  expect_balanced(mlp_table(DType::float64));
}

// The check itself must be able to fail.
TEST(Placement, ImbalanceIsSeen) {
  const VariableTable one({make_spec("only", DType::float32, Shape{16})});
  EXPECT_DOUBLE_EQ(testing::imbalance(one, 1), 1.0);
  EXPECT_DOUBLE_EQ(testing::imbalance(one, 4), 4.0);
}

}  // namespace
}  // namespace varscope
