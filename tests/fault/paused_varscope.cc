// The whole program `varscope` with one more layer, `pause` (tests/support/jobs/pause_layer.h): its workers
// are as slow as a table says, in each run at the same places.
#include "launch/program.h"
#include "tests/support/jobs/pause_layer.h"

int main(int argc, char** argv) {
  auto layers = varscope::LayerRegistry::built_in();
  layers.add(varscope::testing::pause_layer(varscope::testing::PauseRank::of_environment()));
  return varscope::run_program(argc, argv, layers);
}
