#include "common/variables/placement.h"

#include "common/base/hash.h"

namespace varscope {

ServerId Placement::owner(std::string_view scope, std::int64_t slice_index, int n_servers) {
  const auto n = static_cast<std::uint64_t>(n_servers);
  return ServerId(static_cast<int>((hash64(scope) % n + static_cast<std::uint64_t>(slice_index) % n) % n));
}

}  // namespace varscope
