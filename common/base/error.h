#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <source_location>
#include <stdexcept>
#include <string>

namespace varscope {

// What kind of thing went wrong; it decides the exit code, and with it whether a launcher may restart the
// job.
enum class ErrorKind : std::uint8_t {
  config,      // the YAML file or the command line: the user must edit something
  argument,    // a wrong call of the C++ interface
  data,        // a data set is missing or malformed
  checkpoint,  // no checkpoint to resume from, or it does not fit the model
  protocol,    // ranks disagree, or a message makes no sense
  io,          // the file system
  mpi,         // an MPI call
  stall,       // somebody did not answer in time
  not_finite,  // a loss or value is NaN or infinite
};

const char* to_string(ErrorKind kind);

// The one exception type. Thrown inside a rank; caught only in the rank's outermost function, which prints
// one line and ends the job. The message says what, where (file:line, rank, variable) and what to do.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message,
        std::source_location where = std::source_location::current())
      : std::runtime_error(message), kind_(kind), where_(where) {}

  ErrorKind kind() const { return kind_; }
  // Where in the program it was thrown; for developers, printed at log level debug only.
  const std::source_location& where() const { return where_; }

 private:
  ErrorKind kind_;
  std::source_location where_;
};

// The process exit codes; documented in docs/failures.md and in `varscope --help`.
enum class ExitCode : int {
  ok = 0,
  internal = 1,    // a defect of varscope, or MPI ended the rank
  usage = 2,       // command line or config; do not restart
  data = 3,        // data set missing or malformed; do not restart
  checkpoint = 4,  // nothing to resume from, or it does not fit; do not restart
  difference = 5,  // a comparison or verification found a difference
  not_finite = 6,  // a loss or value is NaN or infinite (train.on_nan); do not restart as it is
  protocol = 10,   // restartable from here on
  io = 11,
  mpi = 12,
  stall = 13,
  stopped = 75,  // not an error: ended early, with a checkpoint, because a signal asked for it (EX_TEMPFAIL)
};

ExitCode exit_code(ErrorKind kind);

namespace detail {
// A format string that remembers where it was written, so that `fail` needs no macro.
template <class... Args>
struct LocatedFormat {
  template <class S>
  consteval LocatedFormat(const S& s, std::source_location l = std::source_location::current())
      : format(s), where(l) {}
  fmt::format_string<Args...> format;
  std::source_location where;
};
}  // namespace detail

// Throws Error(kind) with an fmt-formatted message.
template <class... Args>
[[noreturn]] void fail(ErrorKind kind, detail::LocatedFormat<std::type_identity_t<Args>...> f,
                       Args&&... args) {
  throw Error(kind, fmt::format(f.format, std::forward<Args>(args)...), f.where);
}

}  // namespace varscope
