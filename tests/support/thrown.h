#pragma once

#include <string>
#include <utility>

#include "common/error.h"

namespace varscope::testing {

// The Error that `f` throws, as "kind: message"; "no error" when it throws none.
template <class F>
std::string thrown(F&& f) {
  try {
    std::forward<F>(f)();
  } catch (const Error& e) {
    return std::string(to_string(e.kind())) + ": " + e.what();
  }
  return "no error";
}

}  // namespace varscope::testing
