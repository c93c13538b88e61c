#include "common/base/error.h"

namespace varscope {

const char* to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::config:
      return "config";
    case ErrorKind::argument:
      return "argument";
    case ErrorKind::data:
      return "data";
    case ErrorKind::checkpoint:
      return "checkpoint";
    case ErrorKind::protocol:
      return "protocol";
    case ErrorKind::io:
      return "io";
    case ErrorKind::mpi:
      return "mpi";
    case ErrorKind::stall:
      return "stall";
    case ErrorKind::not_finite:
      return "not finite";
  }
  return "unknown";
}

ExitCode exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::config:
    case ErrorKind::argument:
      return ExitCode::usage;
    case ErrorKind::data:
      return ExitCode::data;
    case ErrorKind::checkpoint:
      return ExitCode::checkpoint;
    case ErrorKind::protocol:
      return ExitCode::protocol;
    case ErrorKind::io:
      return ExitCode::io;
    case ErrorKind::mpi:
      return ExitCode::mpi;
    case ErrorKind::stall:
      return ExitCode::stall;
    case ErrorKind::not_finite:
      return ExitCode::not_finite;
  }
  return ExitCode::internal;
}

}  // namespace varscope
