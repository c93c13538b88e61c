#pragma once

// What varscope throws: Error, with an ErrorKind, a message for people, and the place that threw it. ExitCode
// is what the program makes of each kind.

#include "common/base/error.h"
