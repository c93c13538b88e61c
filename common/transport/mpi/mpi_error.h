#pragma once

#include <mpi.h>

#include <source_location>
#include <string_view>

namespace varscope {

// Throws Error(mpi) that names the call and MPI's own text unless `code` is MPI_SUCCESS. `about` says with
// whom or why.
void check_mpi(int code, std::string_view call, std::string_view about = {},
               std::source_location where = std::source_location::current());

}  // namespace varscope
