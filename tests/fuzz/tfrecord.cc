// Files of TFRecord records.
#include "worker/data/tfrecord.h"

#include "tests/fuzz/fuzz.h"

using namespace varscope;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const testing::MemoryFile file({data, size});
  return testing::expect_data_or_error([&] {
    TfrecordSource source;
    source.files = ConfigNode::text(file.path().string());
    testing::read_all(*open_tfrecord(source, {}));
  });
}
