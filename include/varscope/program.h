#pragma once

// The whole program `varscope` as a function, run_program, for a main of one's own with layers of one's own.

#include "launch/program.h"
