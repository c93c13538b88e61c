#pragma once

#include <cstdint>
#include <string_view>

#include "common/base/types.h"

namespace varscope {

// Which server owns a slice: (hash(scope) + index of the slice in its variable) mod S. Pure: the same on
// every rank and in every run. Small variables of one scope share a server; a large one spreads over all.
struct Placement {
  static ServerId owner(std::string_view scope, std::int64_t slice_index, int n_servers);
};

}  // namespace varscope
