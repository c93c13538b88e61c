// IDX files, plain and gzip, as images, or as images and labels. The first byte says how they are read.
#include "tests/fuzz/fuzz.h"
#include "worker/data/array_source.h"

using namespace varscope;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const testing::MemoryFile file({data + 1, size - 1});
  const std::uint8_t two_labels[] = {0, 0, 8, 1, 0, 0, 0, 2, 0, 1};
  const testing::MemoryFile labels(two_labels);
  return testing::expect_data_or_error([&] {
    IdxSource source;
    source.images = file.path().string();
    source.labels = data[0] % 2 == 0 ? labels.path().string() : source.images;
    if (data[0] % 4 >= 2) source.label_type = ConfigNode::plain("number");
    if (data[0] % 8 >= 4) source.scale = ConfigNode::plain("1/255");
    testing::read_all(*open_idx_source(source, {}, 0));
  });
}
