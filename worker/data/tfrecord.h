#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/config/source_keys.h"
#include "worker/data/array_dataset.h"
#include "worker/data/source_registry.h"

namespace varscope {

// One feature of each record of TFRecord files: what its name is, and what became known of it at the first
// record.
struct ExampleFeature {
  std::string input;                         // what it is called in the model; of the label "y"
  std::string name;                          // in the records
  std::vector<std::int64_t> shape = {};      // of a sample; empty: as many as the first record has
  NumberType bytes_are = NumberType::uint8;  // of a bytes feature: what its bytes are, little-endian
  bool is_ids = false;
  std::optional<IdType> row_ids = {};  // any 64 bits; string: the hash of each text of a bytes feature
  bool is_optional = false;            // the first record decides whether it is there
};

// Gathers numbers of the features of tf.train.Example records [1] in memory, record by record: floats and
// int64 lists as they are, and bytes as numbers of another type. All records have as many of a feature, of
// one kind. Not thread-safe.
//
// [1] https://www.tensorflow.org/tutorials/load_data/tfrecord
class ExampleReader {
 public:
  // Without features: all of the first record's but `label`.
  ExampleReader(std::vector<ExampleFeature> features, ExampleFeature label, LabelType label_type,
                std::int64_t n_classes);
  // `record` is the data of a TFRecord; `where` begins messages: "a.tfrecord: record 3". Throws Error(data),
  // which says where, for what is no Example, for a feature that is missing, or of another kind or length,
  // and for a label that is none; this is of no use then.
  void add(std::string_view record, const std::string& where);
  std::int64_t size() const { return n_; }
  // The arrays, with names that begin with `files`. REQUIRES size() > 0; empties this.
  std::vector<NamedArray> inputs(const std::string& files);
  std::optional<NumberArray> labels(const std::string& files);

 private:
  struct Column {
    ExampleFeature feature;
    bool is_there = true;
    bool is_bytes = false;
    bool is_hashed = false;  // bytes, each text of which becomes a uint64
    NumberType type = NumberType::float32;
    std::int64_t n = 0;  // numbers of a record
    std::vector<std::byte> bytes = {};
  };
  struct Record;
  void begin(const Record& record);
  void begin(Column& column, const Record& record) const;
  void add(Column& column, const Record& record) const;
  void check_label(const Record& record) const;
  NumberArray array_of(Column& column, const std::string& files) const;

  std::vector<Column> columns_;
  Column label_;
  LabelType label_type_;
  std::int64_t n_classes_;
  std::int64_t n_ = 0;
};

// Samples in files of TFRecord records (common/base/record_file.h), plain or compressed by gzip, which are
// read into memory. Throws Error(data), with file, record (from 0) and feature; Error(config) for keys that
// do not fit.
std::unique_ptr<Dataset> open_tfrecord(const TfrecordSource& source, const SourceContext& context);

// The keys of an input of `features`, for --explain.
std::string explain_example_features();

}  // namespace varscope
