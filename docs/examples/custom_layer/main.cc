// All of the program `varscope`, with one more layer.
#include <varscope/program.h>

#include "swish.h"

int main(int argc, char** argv) {
  auto layers = varscope::LayerRegistry::built_in();
  layers.add(swish_layer());
  return varscope::run_program(argc, argv, layers);
}
