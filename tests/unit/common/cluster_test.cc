#include "common/placement/cluster.h"

#include <gtest/gtest.h>

#include "common/base/serialize.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::thrown;

template <class Id>
std::vector<int> values(const IdVector<Id, Rank>& ranks) {
  std::vector<int> all;
  for (Rank r : ranks) all.push_back(r.value);
  return all;
}

using Ints = std::vector<int>;

struct RoleCase {
  const char* name;
  std::vector<std::string> hosts;
  int n_servers;
  Ints servers, workers;
};

TEST(AssignRoles, SpreadsServersOverHosts) {
  const RoleCase cases[] = {
      {"one host", {"a", "a", "a"}, 1, {0}, {1, 2}},
      {"one host, two servers", {"a", "a", "a", "a"}, 2, {0, 1}, {2, 3}},
      {"ranks by slot", {"a", "a", "b", "b"}, 2, {0, 2}, {1, 3}},
      {"ranks by node", {"a", "b", "a", "b"}, 2, {0, 1}, {2, 3}},
      {"more servers than hosts", {"a", "a", "a", "b", "b", "b"}, 3, {0, 3, 1}, {2, 4, 5}},
      {"unequal hosts", {"a", "b", "b", "b", "b"}, 3, {0, 1, 2}, {3, 4}},
      {"all but one", {"a", "b", "c"}, 2, {0, 1}, {2}},
      {"first appearance, not alphabet", {"z", "z", "a", "a"}, 2, {0, 2}, {1, 3}},
  };
  for (const RoleCase& c : cases) {
    const ClusterMap map = assign_roles(c.hosts, c.n_servers, 0);
    EXPECT_EQ(values(map.servers), c.servers) << c.name;
    EXPECT_EQ(values(map.workers), c.workers) << c.name;
    EXPECT_EQ(map.logical_workers, static_cast<int>(c.workers.size())) << c.name;
    EXPECT_EQ(map.rank_of(ServerId(0)), Rank(0)) << c.name;  // the coordinator
  }
}

TEST(AssignRoles, EveryRankHasOneRole) {
  for (int n = 2; n <= 12; ++n) {
    std::vector<std::string> hosts;
    for (int r = 0; r < n; ++r) hosts.push_back("host" + std::to_string(r * r % 4));
    for (int s = 1; s < n; ++s) {
      const ClusterMap map = assign_roles(hosts, s, 0);
      EXPECT_EQ(map.n_servers(), s);
      EXPECT_EQ(map.n_workers(), n - s);
      for (int r = 0; r < n; ++r) {
        const auto server = map.server_at(Rank(r));
        const auto worker = map.worker_at(Rank(r));
        EXPECT_NE(server.has_value(), worker.has_value()) << n << " " << s << " " << r;
        if (server) {
          EXPECT_EQ(map.rank_of(*server), Rank(r));
        }
        if (worker) {
          EXPECT_EQ(map.rank_of(*worker), Rank(r));
        }
      }
    }
  }
}

TEST(AssignRoles, SaysWhenNoWorkerIsLeft) {
  EXPECT_EQ(thrown([] { assign_roles({"a"}, 1, 0); }),
            "config: cluster.servers is 1, but the job has 1 rank: at least one must be left as a worker; "
            "start 2 ranks or "
            "more (mpirun -n), or lower cluster.servers");
  EXPECT_NE(thrown([] { assign_roles({"a", "a"}, 5, 0); }).find("start 6 ranks"), std::string::npos);
}

TEST(AssignRoles, SaysWhenLogicalWorkersAreTooFew) {
  EXPECT_EQ(thrown([] {
              assign_roles({"a", "a", "a", "a"}, 1, 2);
            }),
            "config: cluster.logical_workers is 2, but the job has 3 workers: it must be 0 (one per worker) "
            "or at least 3");
  EXPECT_EQ(assign_roles({"a", "a", "a", "a"}, 1, 3).logical_workers, 3);
  EXPECT_EQ(assign_roles({"a", "a", "a", "a"}, 1, 8).logical_workers, 8);
}

TEST(LeavesOf, AreContiguousAndEqual) {
  for (int v = 1; v <= 40; ++v) {
    for (int w = 1; w <= v; ++w) {
      ClusterMap map;
      for (int r = 0; r < w; ++r) map.workers.push_back(Rank(r + 1));
      map.logical_workers = v;
      int next = 0;
      for (int i = 0; i < w; ++i) {
        const LeafRange leaves = map.leaves_of(WorkerId(i));
        EXPECT_EQ(leaves.begin, next);
        EXPECT_GE(leaves.size(), v / w);
        EXPECT_LE(leaves.size(), (v + w - 1) / w);
        next = leaves.end;
      }
      EXPECT_EQ(next, v);
    }
  }
}

TEST(ClusterMap, TravelsAsBytes) {
  const ClusterMap map = assign_roles({"a", "a", "b", "b", "b"}, 2, 6);
  const auto copy = from_binary<ClusterMap>(to_binary(map), "a cluster");
  EXPECT_EQ(values(copy.servers), values(map.servers));
  EXPECT_EQ(values(copy.workers), values(map.workers));
  EXPECT_EQ(copy.logical_workers, 6);
}

}  // namespace
}  // namespace varscope
