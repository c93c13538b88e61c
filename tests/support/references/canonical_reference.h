#pragma once

#include <span>

namespace varscope::testing {

// The definition of the canonical sum, by recursion: left half plus right half of the smallest full tree that
// has room for the leaves; a half without leaves adds nothing.
template <class T>
T canonical_node(std::span<const T> leaves, std::size_t first, std::size_t width) {
  if (width == 1) return leaves[first];
  const T left = canonical_node(leaves, first, width / 2);
  if (first + width / 2 >= leaves.size()) return left;
  return left + canonical_node(leaves, first + width / 2, width / 2);
}

template <class Leaves>
auto canonical_sum(const Leaves& leaves) {
  std::size_t width = 1;
  while (width < leaves.size()) width *= 2;
  return canonical_node(std::span<const typename Leaves::value_type>(leaves), 0, width);
}

}  // namespace varscope::testing
