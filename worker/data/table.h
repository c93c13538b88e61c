#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "worker/data/dataset.h"
#include "worker/data/growing_array.h"
#include "worker/data/table_schema.h"

namespace varscope {

// What a table holds, array by array: in memory, or in files of a folder.
struct TableColumns {
  // The ids of a bag, row behind row: those of row i begin at offsets[i].
  struct Bags {
    GrowingArray<std::int64_t> offsets;  // one more than rows
    GrowingArray<std::int32_t> ids;
    GrowingArray<std::int64_t> row_ids;  // or these
    GrowingArray<double> weights;        // of each id, or none
  };
  GrowingArray<double> numbers;        // of each row: the numbers of all inputs that are numbers
  GrowingArray<std::int32_t> ids;      // the ids of all inputs that are ids, and no bags
  GrowingArray<std::int64_t> row_ids;  // the ids of rows of all inputs that are such, and no bags
  GrowingArray<std::int32_t> labels;   // classes, or
  GrowingArray<double> targets;        // numbers, of all label columns
  GrowingArray<double> weights;        // of each row, or none
  std::vector<Bags> bags;              // of the inputs that are bags, in their order
  Dataset::UnknownWords unknown = {};

  // Empty ones. An empty `folder`: in memory; else in new files of this folder, which is there.
  static TableColumns make(const TableSchema& schema, const std::filesystem::path& folder = {});
  // Those that make() has put there. Throws Error(data) unless they are of n rows.
  static TableColumns open(const TableSchema& schema, std::int64_t n, const std::filesystem::path& folder);
  void finish();  // no more rows
  bool are_in_files() const { return labels.is_in_file(); }
  // Over all of them: equal wherever they are.
  Digest content() const;

 private:
  template <class Make>
  static TableColumns of(const TableSchema& schema, const Make& make);
  // f(GrowingArray<T>&) for each array of `columns`, in the order of content().
  template <class Columns, class F>
  static void for_each(Columns& columns, const F& f);
};

// Labelled rows, in memory or in files: numbers in float64, ids in int32, ids of rows in
// int64. Immutable: safe from any thread.
class TableDataset final : public Dataset {
 public:
  // REQUIRES that the columns are finished and have n rows as the schema says, ids and labels within their
  // ranges.
  TableDataset(TableSchema schema, std::int64_t n, TableColumns columns, LeftOut left_out = {});

  std::int64_t size() const override { return n_; }
  const Shape& sample_shape() const override { return first_shape_; }
  const Shape& label_shape() const override { return label_shape_; }
  std::int64_t n_classes() const override { return static_cast<std::int64_t>(schema_.label.classes.size()); }
  Target target() const override {
    return schema_.label.type == LabelType::cls ? Target::classes : Target::numbers;
  }
  Features features() const override { return specs_.front().features; }
  std::vector<InputSpec> inputs() const override { return specs_; }
  std::vector<std::string> class_names() const override { return schema_.label.classes; }
  std::string schema() const override { return to_json(schema_); }
  const LeftOut& left_out() const override { return left_out_; }
  UnknownWords unknown_words() const override { return columns_.unknown; }
  std::vector<std::string> warnings() const override;
  std::optional<std::int64_t> only_class() const override;
  bool has_labels() const override { return !schema_.label.is_absent; }
  std::int64_t n_bytes() const override;
  std::span<const double> weights() const override { return columns_.weights.view(); }
  void add_warning(std::string line) { warnings_.push_back(std::move(line)); }
  void read(std::span<const std::int64_t> indices, const BatchView& batch) const override;
  Digest content() const override;
  Digest vocabulary_digest() const override;

 private:
  void check(std::span<const std::int64_t> indices, const BatchView& batch) const;
  bool fits(const InputSpec& spec, const TensorView& x, std::int64_t n) const;
  std::int64_t& n_of(const TableInput& input);  // of the three
  void read_bags(std::span<const std::int64_t> indices, const TableColumns::Bags& bags,
                 std::span<const TensorView> to) const;

  TableSchema schema_;
  std::vector<InputSpec> specs_;
  std::int64_t n_;
  TableColumns columns_;
  LeftOut left_out_;
  std::vector<std::string> warnings_;
  Shape first_shape_, label_shape_;
  std::int64_t n_numbers_ = 0, n_ids_ = 0, n_row_ids_ = 0;  // of a row
};

}  // namespace varscope
