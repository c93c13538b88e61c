#include "common/placement/cluster.h"

#include <algorithm>

#include "common/base/error.h"

namespace varscope {
namespace {

template <class Id>
std::optional<Id> find(const IdVector<Id, Rank>& ranks, Rank r) {
  const auto found = std::find(ranks.begin(), ranks.end(), r);
  if (found == ranks.end()) return std::nullopt;
  return Id(static_cast<int>(found - ranks.begin()));
}

}  // namespace

std::optional<ServerId> ClusterMap::server_at(Rank r) const { return find(servers, r); }

std::optional<WorkerId> ClusterMap::worker_at(Rank r) const { return find(workers, r); }

LeafRange ClusterMap::leaves_of(WorkerId w) const {
  const auto at = [&](int i) {
    return static_cast<int>(static_cast<std::int64_t>(i) * logical_workers / n_workers());
  };
  return {at(w.value), at(w.value + 1)};
}

ClusterMap assign_roles(const std::vector<std::string>& hosts, int n_servers, int logical_workers) {
  const int n = static_cast<int>(hosts.size());
  if (n_servers >= n) {
    fail(ErrorKind::config,
         "cluster.servers is {}, but the job has {} rank{}: at least one must be left as a worker; "
         "start {} ranks or more (mpirun -n), or lower cluster.servers",
         n_servers, n, n == 1 ? "" : "s", n_servers + 1);
  }
  std::vector<std::string> names;
  for (const std::string& h : hosts) {
    if (std::find(names.begin(), names.end(), h) == names.end()) names.push_back(h);
  }
  ClusterMap map;
  std::vector<bool> taken(hosts.size(), false);
  for (std::size_t turn = 0; map.n_servers() < n_servers; ++turn) {
    const std::string& host = names[turn % names.size()];
    for (std::size_t r = 0; r < hosts.size(); ++r) {
      if (hosts[r] != host || taken[r]) continue;
      taken[r] = true;
      map.servers.push_back(Rank(static_cast<int>(r)));
      break;
    }
  }
  for (std::size_t r = 0; r < hosts.size(); ++r) {
    if (!taken[r]) map.workers.push_back(Rank(static_cast<int>(r)));
  }
  map.logical_workers = logical_workers == 0 ? map.n_workers() : logical_workers;
  if (map.logical_workers < map.n_workers()) {
    fail(ErrorKind::config,
         "cluster.logical_workers is {}, but the job has {} workers: "
         "it must be 0 (one per worker) or at least {}",
         map.logical_workers, map.n_workers(), map.n_workers());
  }
  return map;
}

}  // namespace varscope
