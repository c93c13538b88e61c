// The whole program `varscope` on a file system that kills, stops and holds ranks at named points of the
// commit protocol (tests/support/fs/commit_points.h).
#include <cstdio>
#include <cstdlib>

#include "launch/program.h"
#include "tests/support/fs/commit_points.h"

int main(int argc, char** argv) {
  const char* dir = std::getenv(varscope::testing::kPointsDirVariable);
  if (dir == nullptr) {
    std::fprintf(stderr, "%s is not set\n", varscope::testing::kPointsDirVariable);
    return 2;
  }
  const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
  varscope::testing::CommitPointsFs fs(dir, rank == nullptr ? 0 : std::atoi(rank));
  return varscope::run_program(argc, argv, varscope::LayerRegistry::built_in(), fs);
}
