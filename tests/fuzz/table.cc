// The life of a table, beside its definition: the bytes say what is done.
#include <cstdio>

#include "tests/fuzz/fuzz.h"
#include "tests/support/references/table_life.h"

using namespace varscope;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::size_t at = 0;
  testing::TableLife life([&](std::uint64_t n) { return at < size ? data[at++] % n : std::uint64_t{0}; });
  try {
    while (at < size && life.steps(1)) {
    }
    life.steps(2);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "the table differs from its definition: %s\n", e.what());
    std::abort();
  }
  return 0;
}
