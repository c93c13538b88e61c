#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/config/data_source.h"

namespace varscope {

// The keys of the built-in data sources. Plain value types; defaults are the member initialisers.

inline constexpr Choice<std::optional<DataSplit>> kDataSplits[] = {
    {std::nullopt, "auto"}, {DataSplit::train, "train"}, {DataSplit::test, "test"}};

// Of images, whatever they come from.
struct PairKeys {
  bool pairs = false;
  std::int64_t pair_seed = 1;
  void describe(Keys& keys);
  bool operator==(const PairKeys&) const = default;
};

struct IdxSource {
  std::string images;
  std::string labels;
  std::int64_t samples = 0;  // 0: all of them
  std::int64_t classes = 0;  // 0: as many as the labels show
  // Nothing unless it is said, so that runs of before these keys have nothing else: as ArrayRules'.
  ConfigNode scale, label_type;
  PairKeys pairs;
  void describe(Keys& keys);
  bool predicts_numbers() const { return label_type.is_scalar() && label_type.scalar == "number"; }
  bool operator==(const IdxSource&) const = default;
};

struct FashionMnistSource {
  std::string folder = "fashion-mnist";
  std::optional<DataSplit> split;  // set after parse_job
  std::int64_t samples = 0;        // 0: all of them
  std::int64_t classes = 0;        // 0: as many as the labels show
  PairKeys pairs;
  void describe(Keys& keys);
  void resolve(DataSplit position) { split = split.value_or(position); }
  bool operator==(const FashionMnistSource&) const = default;
};

// Digits of equal seed differ by data.train or data.test.
struct DigitsSource {
  std::int64_t samples = 0;  // not 0 after parse_job
  double noise = 0.25;
  std::int64_t size = 16;  // pixels of a side
  std::int64_t seed = 7;
  PairKeys pairs;
  void describe(Keys& keys);
  void resolve(DataSplit position);
  bool operator==(const DigitsSource&) const = default;
};

// What data sets without files are drawn from.
enum class Generator : std::uint8_t { friedman1, colour_shapes, ctr };
inline constexpr Choice<Generator> kGenerators[] = {{Generator::friedman1, "friedman1"},
                                                    {Generator::colour_shapes, "colour_shapes"},
                                                    {Generator::ctr, "ctr"}};

// Samples of equal seed differ by data.train or data.test.
struct SyntheticSource {
  Generator generate = Generator::friedman1;
  std::int64_t samples = 0;  // not 0 after parse_job
  double noise = 0.25;
  std::int64_t size = 16;  // of images: pixels of a side
  std::int64_t seed = 7;
  // Of ctr: ids of a sample, ids of a field, the exponent of Zipf's law, numbers of a sample.
  std::int64_t features = 26, vocabulary = 100000, numbers = 0;
  double exponent = 1.1;
  void describe(Keys& keys);
  void resolve(DataSplit position);
  bool predicts_numbers() const { return generate == Generator::friedman1; }
  bool operator==(const SyntheticSource&) const = default;
};

struct TextSource {
  std::string file;
  std::optional<DataSplit> split;  // set after parse_job
  std::int64_t vocabulary = 10000;
  std::int64_t steps = 20;
  double test_fraction = 0.1;
  std::int64_t words = 0;  // 0: all of the part
  void describe(Keys& keys);
  void resolve(DataSplit position) { split = split.value_or(position); }
  bool operator==(const TextSource&) const = default;
};

struct SkipgramSource {
  std::string file;
  std::optional<DataSplit> split;  // set after parse_job
  std::int64_t vocabulary = 50000, min_count = 5;
  std::int64_t window = 5, negatives = 5;
  double subsample = 1e-4;
  double test_fraction = 0.1;
  std::int64_t words = 0;  // 0: all of the part
  std::int64_t seed = 1;
  void describe(Keys& keys);
  void resolve(DataSplit position) { split = split.value_or(position); }
  bool operator==(const SkipgramSource&) const = default;
};

// What a table's label is.
enum class LabelType : std::uint8_t { cls, number };
inline constexpr Choice<LabelType> kLabelTypes[] = {{LabelType::cls, "class"}, {LabelType::number, "number"}};

struct TableLabelKeys {
  std::string column;                // or
  std::vector<std::string> columns;  // several numbers
  LabelType type = LabelType::cls;
  std::vector<std::string> classes;  // in the order of the model's outputs; none: those of the training data
  void describe(Keys& keys);
  bool operator==(const TableLabelKeys&) const = default;
};

struct TableWeightKeys {
  std::string column;
  void describe(Keys& keys);
  bool operator==(const TableWeightKeys&) const = default;
};

// How arrays become samples; those of data.test are read as those of data.train.
struct ArrayRules {
  ConfigNode scale;              // a number, "1/255", or a map from inputs to them
  std::vector<std::string> ids;  // the inputs that are ids
  // A map from inputs that are ids of rows to their type. None unless it is said, so that runs of before this
  // key have nothing else.
  ConfigNode row_ids = {};
  LabelType label_type = LabelType::cls;
  std::int64_t classes = 0;  // 0: as many as the labels show
  void describe(Keys& keys);
  bool operator==(const ArrayRules&) const = default;
};

struct NpySource {
  ConfigNode inputs;  // a file, or a map from an input's name to its file
  std::string labels;
  ArrayRules rules;
  double from = 0, to = 1;  // the part of the rows that is read
  void describe(Keys& keys);
  bool predicts_numbers() const { return rules.label_type == LabelType::number; }
  bool operator==(const NpySource&) const = default;
};

struct NpzSource {
  std::string file;
  ConfigNode inputs;  // an array, a list of them, a map from inputs to arrays; none: all but the labels
  std::string labels = "y";
  ArrayRules rules;
  double from = 0, to = 1;
  void describe(Keys& keys);
  bool predicts_numbers() const { return rules.label_type == LabelType::number; }
  bool operator==(const NpzSource&) const = default;
};

// A directory whose files are learnt from as they come, instead of `files`; of data.train. Null unless they
// are said, so that runs of before these keys have nothing else. check_follow() looks at the values.
struct FollowKeys {
  ConfigNode directory;
  ConfigNode late;        // warn or fail
  ConfigNode consumed;    // keep or delete
  ConfigNode event_time;  // a column
  bool is_on() const { return !directory.is_null(); }
  const std::string& path() const { return directory.scalar; }
  bool late_fails() const { return late.is_scalar() && late.scalar == "fail"; }
  bool deletes() const { return consumed.is_scalar() && consumed.scalar == "delete"; }
  void describe(Keys& keys, bool has_columns);
  bool operator==(const FollowKeys&) const = default;
};

// `features` is bound by worker/data/tfrecord.h.
struct TfrecordSource {
  ConfigNode files;  // a text or a list of them
  FollowKeys follow = {};
  ConfigNode features;  // a map from inputs to features; none: all but the label
  std::string label = "label";
  LabelType label_type = LabelType::cls;
  std::int64_t classes = 0;  // 0: as many as the labels show
  double from = 0, to = 1;   // the part of the records that is read
  void describe(Keys& keys);
  bool predicts_numbers() const { return label_type == LabelType::number; }
  bool operator==(const TfrecordSource&) const = default;
};

enum class BadRecords : std::uint8_t { fail, skip };
inline constexpr Choice<BadRecords> kBadRecords[] = {{BadRecords::fail, "fail"}, {BadRecords::skip, "skip"}};

// How the columns of a table become a sample. `features` is bound by worker/data/table_schema.h.
struct TableSchemaKeys {
  TableLabelKeys label;
  std::optional<TableWeightKeys> weight;
  ConfigNode features;
  void describe(Keys& keys);
  bool operator==(const TableSchemaKeys&) const = default;
};

struct CsvSource {
  ConfigNode files;  // a text or a list of them
  FollowKeys follow = {};
  std::string delimiter;    // "": that of data.train; set in data.train after parse_job
  ConfigNode header;        // true, false, or the columns' names; null: as delimiter
  double from = 0, to = 1;  // the part of the records that is read
  std::optional<TableSchemaKeys> schema;
  BadRecords bad_records = BadRecords::fail;
  double max_bad_share = 0.01;
  void describe(Keys& keys);
  void resolve(DataSplit position);
  bool predicts_numbers() const { return schema && schema->label.type == LabelType::number; }
  bool operator==(const CsvSource&) const = default;
};

struct LibsvmSource {
  ConfigNode files;
  FollowKeys follow = {};
  std::int64_t base = 1;
  std::int64_t features = 0;  // 0: up to the greatest index of the training data
  LabelType label = LabelType::cls;
  bool drop_unknown = false;
  bool bags = false;  // the input is a bag of (index, value), not all features of a row
  ConfigNode ids;     // int64 or uint64: the indices of bags are ids of rows; none: they are from base on
  BadRecords bad_records = BadRecords::fail;
  double max_bad_share = 0.01;
  ConfigNode weights;  // files with the weights of the rows; none: each counts once
  void describe(Keys& keys);
  bool predicts_numbers() const { return label == LabelType::number; }
  bool operator==(const LibsvmSource&) const = default;
};

// Of a source; null where sources of its type read no list of files, or none is followed.
const FollowKeys* follow_of(const DataSourceConfig& source);
// The same source, of these files. REQUIRES: it has a list of files.
DataSourceConfig with_files(DataSourceConfig source, const std::vector<std::string>& files);

std::vector<SourceKeyType> built_in_source_keys();

}  // namespace varscope
