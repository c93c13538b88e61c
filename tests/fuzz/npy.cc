// An array of NumPy as inputs and as labels. The first byte says how it is read.
#include "tests/fuzz/fuzz.h"
#include "worker/data/array_source.h"

using namespace varscope;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const testing::MemoryFile file({data + 1, size - 1});
  return testing::expect_data_or_error([&] {
    NpySource source;
    source.inputs = ConfigNode::text(file.path().string());
    source.labels = file.path().string();
    source.rules.label_type = data[0] % 2 == 0 ? LabelType::cls : LabelType::number;
    if (data[0] % 4 < 2) source.rules.ids = {"x"};
    if (data[0] % 4 == 2) {
      source.rules.row_ids = ConfigNode::map();
      source.rules.row_ids.add("x", ConfigNode::plain(data[0] % 16 < 8 ? "int64" : "uint64"));
    }
    if (data[0] % 8 < 4) source.from = 0.5;
    testing::read_all(*open_npy_source(source, {}));
  });
}
