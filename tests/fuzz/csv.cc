// Tables of comma separated text. The first byte says how they are read, the second one what the columns are.
#include "worker/data/csv.h"

#include "tests/fuzz/fuzz.h"

using namespace varscope;

namespace {

// Ids of rows of each type, in bags too.
ConfigNode row_ids(unsigned how) {
  ConfigNode x = ConfigNode::map(), w = ConfigNode::map(), all = ConfigNode::map();
  x.add("columns", ConfigNode::plain("0"));
  x.add("ids", ConfigNode::plain(how % 4 < 2 ? "int64" : "uint64"));
  if (how % 2 == 0) x.add("missing", ConfigNode::plain("7"));
  w.add("columns", ConfigNode::plain("1"));
  w.add("ids", ConfigNode::plain(how % 8 < 4 ? "string" : "int64"));
  w.add("split", ConfigNode::plain("|"));
  w.add("weights", ConfigNode::plain("true"));
  all.add("x", std::move(x));
  all.add("w", std::move(w));
  return all;
}

ConfigNode features(unsigned how) {
  if (how % 2 == 0) return {};
  ConfigNode x = ConfigNode::map(), w = ConfigNode::map(), all = ConfigNode::map();
  x.add("columns", ConfigNode::plain("0"));
  x.add("missing", ConfigNode::plain("mean"));
  x.add("transform", ConfigNode::plain(how % 4 == 1 ? "standardize" : "log1p"));
  w.add("columns", ConfigNode::plain("1"));
  if (how % 8 < 4) {
    w.add("hash", ConfigNode::plain("7"));
  } else {
    w.add("vocabulary", ConfigNode::map()).add("size", ConfigNode::plain("5"));
  }
  all.add("x", std::move(x));
  all.add("w", std::move(w));
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const unsigned how = data[0];
  const unsigned what = data[1];
  const testing::MemoryFile file({data + 2, size - 2});
  return testing::expect_data_or_error([&] {
    CsvSource source;
    source.files = ConfigNode::text(file.path().string());
    source.delimiter = how % 16 < 8 ? "," : "tab";
    source.header = ConfigNode::plain(how % 32 < 16 ? "true" : "false");
    source.bad_records = how % 64 < 32 ? BadRecords::fail : BadRecords::skip;
    source.max_bad_share = 1;
    source.schema.emplace();
    source.schema->label.column = "2";
    source.schema->label.type = how < 128 ? LabelType::cls : LabelType::number;
    source.schema->features = what % 2 == 0 ? features(how) : row_ids(what / 2);
    testing::read_all(*open_csv(source, {}));
  });
}
