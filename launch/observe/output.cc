#include "launch/observe/output.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "common/base/error.h"

namespace varscope {

void warn(const std::vector<std::string>& warnings) {
  for (const std::string& w : warnings) std::fputs(("varscope: warning: " + w + "\n").c_str(), stderr);
}

void print_result(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    fail(ErrorKind::io, "cannot write the result to standard output: {}; the command has done its work",
         std::strerror(errno));
}

}  // namespace varscope
