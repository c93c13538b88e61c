#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/files/random_bytes.h"

namespace varscope {

// One array in NumPy's format .npy [1]: a header, then the data.
//
//   header  = "\x93NUMPY" 1 0 length dict
//   length  = u16 (u32 in versions 2 and 3), bytes of the dict, which is padded with spaces and ends in LF
//   dict    = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }"
//
// [1] https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
struct NpyHeader {
  std::string descr = {};                  // the type of its elements: "<f4" is a little-endian float32
  bool is_fortran = false;                 // the first axis varies fastest
  std::vector<std::int64_t> extents = {};  // none is negative
  std::uint64_t n_bytes = 0;               // of the header: the data are behind them
};

// Of an array in the bytes [begin, begin + n_bytes), which the caller has checked. `what` names it in errors:
// "the member \"x.npy\"". Throws Error(data) "has <what>, which is no array" and the like for anything but a
// header of versions 1 to 3.
NpyHeader read_npy_header(const RandomBytes& bytes, std::uint64_t begin, std::uint64_t n_bytes,
                          const std::string& what);

// A header in C order, a multiple of 64 bytes long.
std::string npy_header(std::string_view descr, std::span<const std::int64_t> extents);

}  // namespace varscope
