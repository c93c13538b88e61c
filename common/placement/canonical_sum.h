#pragma once

#include <cstdint>
#include <vector>

#include "common/placement/cluster.h"

namespace varscope {

// The fixed binary tree over V leaves (logical workers) in which gradients are summed, so that a sum's bits
// depend on V and not on who adds what, or when. The node (first, level) covers the leaves [first, min(first
// + 2^level, V)), `first` being a multiple of 2^level; its sum is left + right, or just left where the right
// half has no leaves.
struct TreeNode {
  int first = 0;
  int level = 0;
  friend auto operator<=>(const TreeNode&, const TreeNode&) = default;
};

// The largest tree nodes that lie wholly inside `leaves`, from left to right: what a worker pushes.
std::vector<TreeNode> maximal_nodes(LeafRange leaves, int n_leaves);

// How a worker sums its own leaves with few buffers. Leaf k (in order) writes its gradient into buffer
// `leaves[k].buffer`; then each merge adds buffer `from` to buffer `into`. At the end buffer i holds the node
// contributions[i].
struct LocalSumPlan {
  struct Merge {
    int into;
    int from;
  };
  struct Leaf {
    int buffer;
    std::vector<Merge> merges;
  };
  std::vector<Leaf> leaves;
  std::vector<TreeNode> contributions;  // == maximal_nodes()
  int n_buffers = 0;

  static LocalSumPlan make(LeafRange leaves, int n_leaves);
};

// How a server completes the tree from the workers' contributions. Contribution i arrives in buffer i, in any
// order; when both buffers of a merge are complete, buffer `right` is added to buffer `left`, which then
// holds the parent.
class ReductionTree {
 public:
  struct Merge {
    int left;
    int right;
    int next;  // the merge that needs this one's result; -1 at the root
  };
  // `contributions` of all workers, in leaf order. Throws Error(protocol) unless they cover the leaves
  // exactly once.
  ReductionTree(std::vector<TreeNode> contributions, int n_leaves);
  // The tree in which only some leaves are present: a node of which one child has no leaves is the other
  // child. With all leaves it is the tree above. `present`: nodes that do not overlap, in leaf order, one at
  // least; throws Error(protocol) otherwise.
  static ReductionTree of_present(std::vector<TreeNode> present, int n_leaves);

  int n_contributions() const { return static_cast<int>(contributions_.size()); }
  const std::vector<Merge>& merges() const { return merges_; }
  int first_merge(int contribution) const { return first_merge_[static_cast<std::size_t>(contribution)]; }
  // The whole sum ends in buffer 0: the contribution with the lowest leaf is the left operand all the way up.

 private:
  enum class Absent : std::uint8_t { refused, passed_through };
  ReductionTree(std::vector<TreeNode> contributions, int n_leaves, Absent absent);
  int build(TreeNode node, int n_leaves, Absent absent);
  int find(TreeNode node) const;  // the index of a contribution; -1: none
  std::vector<TreeNode> contributions_;
  std::vector<Merge> merges_;
  std::vector<int> first_merge_;
  std::vector<int> last_merge_;  // while building: the merge that last wrote a buffer
};

// All workers' contributions, in leaf order.
std::vector<TreeNode> all_contributions(const ClusterMap& cluster);

}  // namespace varscope
