#include "common/placement/canonical_sum.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"
#include "common/placement/cluster.h"

namespace varscope {
namespace {

int root_level(int n_leaves) {
  int level = 0;
  while ((1 << level) < n_leaves) ++level;
  return level;
}

int end_of(TreeNode node, int n_leaves) {
  return static_cast<int>(std::min<std::int64_t>(n_leaves, node.first + (std::int64_t{1} << node.level)));
}

bool is_left_child(TreeNode node) { return (node.first >> node.level) % 2 == 0; }

// A left child whose right sibling has no leaves has the same sum as its parent: climb.
TreeNode climb(TreeNode node, int n_leaves) {
  while (node.level < root_level(n_leaves) && is_left_child(node) && end_of(node, n_leaves) == n_leaves)
    ++node.level;
  return node;
}

}  // namespace

std::vector<TreeNode> maximal_nodes(LeafRange leaves, int n_leaves) {
  return LocalSumPlan::make(leaves, n_leaves).contributions;
}

LocalSumPlan LocalSumPlan::make(LeafRange leaves, int n_leaves) {
  LocalSumPlan plan;
  std::vector<TreeNode>& stack = plan.contributions;
  for (int leaf = leaves.begin; leaf < leaves.end; ++leaf) {
    Leaf step{static_cast<int>(stack.size()), {}};
    stack.push_back(climb({leaf, 0}, n_leaves));
    plan.n_buffers = std::max(plan.n_buffers, static_cast<int>(stack.size()));
    while (stack.size() >= 2) {
      const TreeNode left = stack[stack.size() - 2], right = stack.back();
      if (left.level != right.level || !is_left_child(left) || is_left_child(right)) break;
      const int top = static_cast<int>(stack.size()) - 1;
      step.merges.push_back({top - 1, top});
      stack.pop_back();
      stack.back() = climb({left.first, left.level + 1}, n_leaves);
    }
    plan.leaves.push_back(std::move(step));
  }
  return plan;
}

ReductionTree::ReductionTree(std::vector<TreeNode> contributions, int n_leaves)
    : ReductionTree(std::move(contributions), n_leaves, Absent::refused) {}

ReductionTree ReductionTree::of_present(std::vector<TreeNode> present, int n_leaves) {
  return {std::move(present), n_leaves, Absent::passed_through};
}

ReductionTree::ReductionTree(std::vector<TreeNode> contributions, int n_leaves, Absent absent)
    : contributions_(std::move(contributions)),
      first_merge_(contributions_.size(), -1),
      last_merge_(contributions_.size(), -1) {
  int covered = 0;
  for (const TreeNode& node : contributions_) {
    if (node.first < covered || (node.first > covered && absent == Absent::refused)) {
      fail(ErrorKind::protocol, "gradient contributions leave a gap or overlap at logical worker {}",
           covered);
    }
    covered = end_of(node, n_leaves);
  }
  if ((covered != n_leaves && absent == Absent::refused) || contributions_.empty()) {
    fail(ErrorKind::protocol, "gradient contributions cover {} of {} logical workers", covered, n_leaves);
  }
  build({0, root_level(n_leaves)}, n_leaves, absent);
}

// Returns the buffer that holds `node` once its merges are done; -1 where none of its leaves is present.
int ReductionTree::build(TreeNode node, int n_leaves, Absent absent) {
  if (const int whole = find(climb(node, n_leaves)); whole >= 0) return whole;
  if (node.level == 0 && absent == Absent::refused)
    fail(ErrorKind::protocol, "nobody contributes logical worker {}", node.first);
  if (node.level == 0) return -1;
  const int middle = node.first + (1 << (node.level - 1));
  const int left = build({node.first, node.level - 1}, n_leaves, absent);
  if (middle >= n_leaves) return left;
  const int right = build({middle, node.level - 1}, n_leaves, absent);
  if (left < 0 || right < 0) return std::max(left, right);
  const int merge = static_cast<int>(merges_.size());
  merges_.push_back({left, right, -1});
  for (const int side : {left, right}) {
    const int last = std::exchange(last_merge_[static_cast<std::size_t>(side)], merge);
    if (last >= 0) {
      merges_[static_cast<std::size_t>(last)].next = merge;
    } else {
      first_merge_[static_cast<std::size_t>(side)] = merge;
    }
  }
  return left;
}

int ReductionTree::find(TreeNode node) const {
  const auto found = std::find(contributions_.begin(), contributions_.end(), node);
  return found == contributions_.end() ? -1 : static_cast<int>(found - contributions_.begin());
}

std::vector<TreeNode> all_contributions(const ClusterMap& cluster) {
  std::vector<TreeNode> all;
  for (WorkerId w : cluster.workers.ids()) {
    const auto nodes = maximal_nodes(cluster.leaves_of(w), cluster.logical_workers);
    all.insert(all.end(), nodes.begin(), nodes.end());
  }
  return all;
}

}  // namespace varscope
