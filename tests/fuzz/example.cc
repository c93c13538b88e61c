// The records themselves, without the checksums that would keep everything else out: the first byte says how
// they are read, the second where one record ends and the next begins.
#include "tests/fuzz/fuzz.h"
#include "worker/data/tfrecord.h"

using namespace varscope;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  return testing::expect_data_or_error([&] {
    const unsigned how = data[0];
    const std::string_view all(reinterpret_cast<const char*>(data + 2), size - 2);
    const LabelType type = how % 2 == 0 ? LabelType::cls : LabelType::number;
    std::vector<ExampleFeature> features;
    if (how % 4 >= 2) {
      features.push_back(
          {.input = "x", .name = "x", .bytes_are = how % 8 < 4 ? NumberType::float32 : NumberType::int16});
      if (how % 16 >= 8) features.back().shape = {2, 2};
      features.back().is_ids = how % 32 >= 16;
      if (how % 64 >= 32 && !features.back().is_ids)
        features.back().row_ids = how % 8 < 4 ? IdType::string : IdType::uint64;
    }
    ExampleReader reader(features, {.input = "y", .name = "y", .is_optional = how >= 128}, type, 0);
    reader.add(all.substr(0, data[1]), "record 0");
    if (all.size() > data[1]) reader.add(all.substr(data[1]), "record 1");
    ArrayRules rules{.label_type = type};
    if (how % 32 >= 16 && !features.empty()) rules.ids = {"x"};
    if (!features.empty() && features.back().row_ids) {
      rules.row_ids = ConfigNode::map();
      rules.row_ids.add("x", ConfigNode::plain(to_string(*features.back().row_ids)));
    }
    std::optional<NumberArray> labels = reader.labels("f");
    if (labels) testing::read_all(ArrayDataset(reader.inputs("f"), std::move(*labels), rules, {}));
  });
}
