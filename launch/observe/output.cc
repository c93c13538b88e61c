#include "launch/observe/output.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "common/base/error.h"

namespace varscope {

void warn(const std::vector<std::string>& warnings) {
  for (const std::string& w : warnings) std::fputs(("varscope: warning: " + w + "\n").c_str(), stderr);
}

void print_result(const std::string& text, ResultTo to) {
  const bool to_output = to == ResultTo::output;
  std::FILE* file = to_output ? stdout : stderr;
  if (std::fwrite(text.data(), 1, text.size(), file) != text.size() || std::fflush(file) != 0)
    fail(ErrorKind::io, "cannot write the result to standard {}: {}; the command has done its work",
         to_output ? "output" : "error", std::strerror(errno));
}

ResultTo result_beside(const std::string& file) {
  struct stat of_file = {}, of_output = {};
  const bool is_output = ::stat(file.c_str(), &of_file) == 0 && ::fstat(STDOUT_FILENO, &of_output) == 0 &&
                         of_file.st_dev == of_output.st_dev && of_file.st_ino == of_output.st_ino;
  return is_output ? ResultTo::error : ResultTo::output;
}

}  // namespace varscope
