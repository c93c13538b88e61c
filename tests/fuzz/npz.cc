// Archives of NumPy's arrays.
#include "tests/fuzz/fuzz.h"
#include "worker/data/array_source.h"

using namespace varscope;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const testing::MemoryFile file({data, size});
  return testing::expect_data_or_error([&] {
    NpzSource source;
    source.file = file.path().string();
    testing::read_all(*open_npz_source(source, {}));
  });
}
