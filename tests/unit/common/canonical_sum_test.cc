#include "common/placement/canonical_sum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <numeric>
#include <random>

#include "common/placement/cluster.h"
#include "tests/support/references/canonical_reference.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::canonical_sum;
using testing::thrown;

// Values whose sum depends on the order in almost every bit.
std::vector<float> random_leaves(int n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> leaves;
  for (int i = 0; i < n; ++i) {
    const float magnitude = std::ldexp(1.0F, static_cast<int>(random() % 24) - 12);
    leaves.push_back(magnitude * (static_cast<float>(random()) / 4e9F - 0.5F));
  }
  return leaves;
}

ClusterMap cluster_of(int n_workers, int n_leaves) {
  ClusterMap map;
  map.servers.push_back(Rank(0));
  for (int w = 0; w < n_workers; ++w) map.workers.push_back(Rank(w + 1));
  map.logical_workers = n_leaves;
  return map;
}

// What worker `w` pushes, computed with the plan's few buffers.
std::vector<float> local_sums(const LocalSumPlan& plan, const std::vector<float>& leaves, int first) {
  std::vector<float> buffers(static_cast<std::size_t>(plan.n_buffers), NAN);
  int leaf = first;
  for (const LocalSumPlan::Leaf& step : plan.leaves) {
    buffers[static_cast<std::size_t>(step.buffer)] = leaves[static_cast<std::size_t>(leaf++)];
    for (const auto& [into, from] : step.merges)
      buffers[static_cast<std::size_t>(into)] += buffers[static_cast<std::size_t>(from)];
  }
  buffers.resize(plan.contributions.size());
  return buffers;
}

// The server's side: contributions arrive in the order given.
float tree_sum(const ReductionTree& tree, std::vector<float> buffers, const std::vector<int>& arrival) {
  std::vector<int> seen(tree.merges().size(), 0);
  int completed_root = 0;
  for (int c : arrival) {
    int m = tree.first_merge(c);
    while (m >= 0) {
      const ReductionTree::Merge& merge = tree.merges()[static_cast<std::size_t>(m)];
      if (++seen[static_cast<std::size_t>(m)] < 2) break;
      buffers[static_cast<std::size_t>(merge.left)] += buffers[static_cast<std::size_t>(merge.right)];
      m = merge.next;
    }
    if (m < 0) ++completed_root;
  }
  EXPECT_EQ(completed_root, 1);
  return buffers[0];
}

TEST(CanonicalSum, BitsDependOnLeavesNotOnWorkersOrArrival) {
  std::mt19937 random(1);
  for (int v = 1; v <= 17; ++v) {
    const std::vector<float> leaves = random_leaves(v, static_cast<unsigned>(v));
    const auto expected = std::bit_cast<std::uint32_t>(canonical_sum(leaves));
    for (int w = 1; w <= v; ++w) {
      const ClusterMap cluster = cluster_of(w, v);
      std::vector<float> contributions;
      for (int i = 0; i < w; ++i) {
        const LeafRange range = cluster.leaves_of(WorkerId(i));
        const auto sums = local_sums(LocalSumPlan::make(range, v), leaves, range.begin);
        contributions.insert(contributions.end(), sums.begin(), sums.end());
      }
      const ReductionTree tree(all_contributions(cluster), v);
      ASSERT_EQ(tree.n_contributions(), static_cast<int>(contributions.size()));
      std::vector<int> arrival(contributions.size());
      std::iota(arrival.begin(), arrival.end(), 0);
      for (int round = 0; round < 10; ++round) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(tree_sum(tree, contributions, arrival)), expected)
            << "V " << v << " W " << w << " round " << round;
        std::shuffle(arrival.begin(), arrival.end(), random);
      }
    }
  }
}

// The test above can fail: another order gives other bits.
TEST(CanonicalSum, OrderMatters) {
  const std::vector<float> leaves = random_leaves(16, 16);
  float forwards = 0;
  for (float x : leaves) forwards += x;
  EXPECT_NE(std::bit_cast<std::uint32_t>(forwards), std::bit_cast<std::uint32_t>(canonical_sum(leaves)));
}

TEST(CanonicalSum, ArbitraryCutsGiveTheSameBits) {
  std::mt19937 random(2);
  for (int round = 0; round < 500; ++round) {
    const int v = 1 + static_cast<int>(random() % 40);
    const std::vector<float> leaves = random_leaves(v, random());
    std::vector<TreeNode> nodes;
    std::vector<float> contributions;
    for (int begin = 0; begin < v;) {
      const LeafRange range{begin, begin + 1 + static_cast<int>(random() % static_cast<unsigned>(v - begin))};
      const LocalSumPlan plan = LocalSumPlan::make(range, v);
      const auto sums = local_sums(plan, leaves, range.begin);
      nodes.insert(nodes.end(), plan.contributions.begin(), plan.contributions.end());
      contributions.insert(contributions.end(), sums.begin(), sums.end());
      begin = range.end;
    }
    std::vector<int> arrival(contributions.size());
    std::iota(arrival.begin(), arrival.end(), 0);
    std::shuffle(arrival.begin(), arrival.end(), random);
    const float sum = tree_sum(ReductionTree(nodes, v), contributions, arrival);
    ASSERT_EQ(std::bit_cast<std::uint32_t>(sum), std::bit_cast<std::uint32_t>(canonical_sum(leaves))) << v;
  }
}

TEST(LocalSumPlan, OneWorkerPushesOneNode) {
  for (int v = 1; v <= 64; ++v) EXPECT_EQ(maximal_nodes({0, v}, v).size(), 1U) << v;
}

TEST(LocalSumPlan, AnAlignedSubtreeIsOneNode) {
  for (int w = 0; w < 4; ++w) {
    const auto nodes = maximal_nodes({4 * w, 4 * w + 4}, 16);
    ASSERT_EQ(nodes.size(), 1U);
    EXPECT_EQ(nodes[0], (TreeNode{4 * w, 2}));
  }
}

TEST(LocalSumPlan, BuffersAreFew) {
  for (int v = 1; v <= 200; ++v) {
    const LocalSumPlan plan = LocalSumPlan::make({0, v}, v);
    EXPECT_LE(plan.n_buffers, std::bit_width(static_cast<unsigned>(v)) + 1) << v;
    EXPECT_EQ(plan.leaves.size(), static_cast<std::size_t>(v));
  }
}

TEST(ReductionTree, RefusesGapsAndOverlaps) {
  EXPECT_EQ(thrown([] {
              ReductionTree({{0, 1}, {3, 0}}, 4);
            }),
            "protocol: gradient contributions leave a gap or overlap at logical worker 2");
  EXPECT_EQ(thrown([] {
              ReductionTree({{0, 1}, {1, 0}, {2, 1}}, 4);
            }),
            "protocol: gradient contributions leave a gap or overlap at logical worker 2");
  EXPECT_EQ(thrown([] {
              ReductionTree({{0, 1}}, 4);
            }),
            "protocol: gradient contributions cover 2 of 4 logical workers");
  EXPECT_NE(thrown([] { ReductionTree({}, 4); }), "no error");
}

}  // namespace
}  // namespace varscope
