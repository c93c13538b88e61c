#include "launch/program.h"

int main(int argc, char** argv) { return varscope::run_program(argc, argv); }
