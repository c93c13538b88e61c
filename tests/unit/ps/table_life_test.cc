// Which rows a table has: beside its definition in a map, and at the edges of entry, expiry and limits.
#include "tests/support/references/table_life.h"

#include <gtest/gtest.h>

#include <random>

namespace varscope {
namespace {

using testing::TableLife;

TEST(TableLife, IsThatOfItsDefinition) {
  std::int64_t n_evicted = 0, n_expired = 0, n_dropped = 0, n_waited = 0, n_removed = 0, n_full = 0,
               n_changes = 0;
  for (unsigned seed = 0; seed < 600; ++seed) {
    std::mt19937 random(seed);
    TableLife life([&](std::uint64_t n) { return random() % n; });
    try {
      life.steps(60);
    } catch (const std::runtime_error& e) {
      FAIL() << "seed " << seed << ": " << e.what();
    }
    n_evicted += life.n_evicted;
    n_expired += life.n_expired;
    n_dropped += life.n_dropped;
    n_waited += life.n_waited;
    n_removed += life.n_removed;
    n_full += life.n_full;
    n_changes += life.n_changes;
  }
  // All of it has happened, often.
  for (const std::int64_t n : {n_evicted, n_expired, n_dropped, n_waited, n_removed, n_changes})
    EXPECT_GT(n, 100);
  EXPECT_GT(n_full, 10);
}

}  // namespace
}  // namespace varscope
