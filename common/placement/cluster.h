#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/base/types.h"

namespace varscope {

// A half-open range of logical workers, the leaves of the canonical sum.
struct LeafRange {
  int begin = 0;
  int end = 0;
  int size() const { return end - begin; }
  friend bool operator==(LeafRange, LeafRange) = default;
};

// Who plays which role. Rank 0 is always server 0, the coordinator.
struct ClusterMap {
  IdVector<ServerId, Rank> servers;
  IdVector<WorkerId, Rank> workers;
  int logical_workers = 1;  // V >= W

  int n_servers() const { return static_cast<int>(servers.size()); }
  int n_workers() const { return static_cast<int>(workers.size()); }
  Rank rank_of(ServerId s) const { return servers[s]; }
  Rank rank_of(WorkerId w) const { return workers[w]; }
  std::optional<ServerId> server_at(Rank r) const;
  std::optional<WorkerId> worker_at(Rank r) const;
  // The logical workers of one worker: contiguous, as equal as can be.
  LeafRange leaves_of(WorkerId w) const;

  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    const auto exchange = [&ar](auto& list) {
      std::vector<int> ranks;
      for (Rank r : list) ranks.push_back(r.value);
      ar& ranks;
      list = {};
      for (int r : ranks) list.push_back(Rank(r));
    };
    exchange(servers);
    exchange(workers);
    ar& logical_workers;
  }
};

// Spreads `n_servers` server ranks over the hosts: first the lowest rank of each host in order of first
// appearance, then the second lowest, and so on. `hosts` has one name per rank. `logical_workers` 0 means one
// per worker. Throws Error(config) when no worker would be left, or when there are fewer logical workers than
// workers.
ClusterMap assign_roles(const std::vector<std::string>& hosts, int n_servers, int logical_workers);

}  // namespace varscope
