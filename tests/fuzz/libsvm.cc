// Rows of label index:value ... The first byte says how they are read.
#include "tests/fuzz/fuzz.h"
#include "worker/data/csv.h"

using namespace varscope;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const testing::MemoryFile file({data + 1, size - 1});
  return testing::expect_data_or_error([&] {
    LibsvmSource source;
    source.files = ConfigNode::text(file.path().string());
    source.base = data[0] % 2;
    source.label = data[0] % 4 < 2 ? LabelType::cls : LabelType::number;
    source.features = data[0] % 8 < 4 ? 0 : 5;
    source.drop_unknown = data[0] % 16 < 8;
    source.bags = data[0] % 32 >= 16;
    if (data[0] % 64 >= 48) {
      source.ids = ConfigNode::plain(data[0] % 4 < 2 ? "int64" : "uint64");
      source.base = 1;
      source.features = 0;
      source.drop_unknown = false;
    }
    testing::read_all(*open_libsvm(source, {}));
  });
}
