#include "common/transport/mpi/mpi_error.h"

#include <string>

#include "common/base/error.h"

namespace varscope {

void check_mpi(int code, std::string_view call, std::string_view about, std::source_location where) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw Error(ErrorKind::mpi,
              fmt::format("{}{}{}: {}", call, about.empty() ? "" : " ", about,
                          std::string_view(text, static_cast<std::size_t>(length))),
              where);
}

}  // namespace varscope
