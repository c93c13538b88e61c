#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "worker/data/dataset.h"
#include "worker/data/table_schema.h"

namespace varscope {

// Labelled rows in memory: numbers in float64, ids in int32. Immutable: safe from any thread.
class TableDataset final : public Dataset {
 public:
  // The ids of a bag, row behind row: those of row i begin at offsets[i].
  struct Bags {
    std::vector<std::int64_t> offsets = {0};
    std::vector<std::int32_t> ids = {};
    std::vector<double> weights = {};  // of each id, or none
  };
  struct Columns {
    std::vector<double> numbers;       // of each row: the numbers of all inputs that are numbers
    std::vector<std::int32_t> ids;     // the ids of all inputs that are ids, and no bags
    std::vector<std::int32_t> labels;  // classes, or
    std::vector<double> targets;       // numbers, of all label columns
    std::vector<double> weights = {};  // of each row, or none
    std::vector<Bags> bags = {};       // of the inputs that are bags, in their order
    UnknownWords unknown = {};
  };
  // REQUIRES that the columns have n rows as the schema says, ids and labels within their ranges.
  TableDataset(TableSchema schema, std::int64_t n, Columns columns, LeftOut left_out = {});

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
  std::span<const double> weights() const override { return columns_.weights; }
  void read(std::span<const std::int64_t> indices, const BatchView& batch) const override;
  Digest content() const override;
  Digest vocabulary_digest() const override;

 private:
  void check(std::span<const std::int64_t> indices, const BatchView& batch) const;
  bool fits(const InputSpec& spec, const TensorView& x, std::int64_t n) const;
  void read_bags(std::span<const std::int64_t> indices, const Bags& bags,
                 std::span<const TensorView> to) const;

  TableSchema schema_;
  std::vector<InputSpec> specs_;
  std::int64_t n_;
  Columns columns_;
  LeftOut left_out_;
  Shape first_shape_, label_shape_;
  std::int64_t n_numbers_ = 0, n_ids_ = 0;  // of a row
};

// Makes a table of records, cell by cell, in their order: first all records are added, then the constants are
// fitted to those that are kept (or those of another schema are taken), and the rows are made. One thread.
class TableBuilder {
 public:
  // Rows of weight 0 are as if they were not there, but where each row is to be answered. There a label may
  // be missing, too, or be a class that the model does not know: then the labels of all rows count as absent.
  enum class WithoutWeight : std::uint8_t { left_out, kept };
  // `is_fitted`: the schema's constants, vocabularies and classes are known.
  TableBuilder(TableSchema schema, bool is_fitted, WithoutWeight without = WithoutWeight::left_out);

  // Throws BadCell for a cell that the schema does not allow, and adds nothing then.
  struct BadCell {
    std::int64_t column;  // its place in the record
    std::string what;     // with the column's name
  };
  void add(std::span<const std::string_view> cells);
  std::int64_t size() const { return n_; }
  std::int64_t n_left_out() const { return n_left_out_; }  // of weight 0
  // Of these rows. Classes are those of all rows `answered`, the others included.
  std::unique_ptr<TableDataset> build(std::span<const std::int64_t> rows,
                                      std::span<const std::int64_t> answered, LeftOut left_out);

 private:
  // The words of a column by the order in which they were met.
  struct Words {
    std::unordered_map<std::string, std::int32_t> codes;
    std::vector<const std::string*> words;
    std::int32_t code(std::string word);
  };
  // A column of words as they were added, one for each row; of a bag's column with where each row ends, and
  // the words' weights.
  struct WordColumn {
    bool is_of_bag = false;
    Words words;
    std::vector<std::int32_t> codes;
    std::vector<std::int64_t> ends;
    std::vector<double> weights;
    std::span<const std::int32_t> of_row(std::int64_t row) const;
    std::span<const double> weights_of_row(std::int64_t row) const;
    std::size_t begin_of(std::int64_t row) const;
  };
  bool answers_all() const { return is_fitted_ && without_ == WithoutWeight::kept; }
  double number(const TableColumn& column, std::string_view cell) const;
  void take_words(const TableInput& input, const TableColumn& column,
                  std::span<const std::string_view> cells);
  // The ids of a column's words, by code.
  static std::vector<std::int32_t> ids_of(const TableColumn& column, const Words& words);
  void add_labels(std::span<const std::int64_t> rows, TableDataset::Columns& columns) const;
  void fit_numbers(std::span<const std::int64_t> rows);
  void fit_words(std::span<const std::int64_t> rows);
  void fit_classes(std::span<const std::int64_t> rows);

  TableSchema schema_;
  bool is_fitted_;
  WithoutWeight without_;
  std::int64_t n_ = 0, n_left_out_ = 0;
  std::vector<double> weights_;
  std::vector<std::vector<double>> numbers_;  // by column of numbers; NaN: missing
  std::vector<WordColumn> words_;             // by column of words
  std::vector<std::vector<double>> targets_;  // by label column
  std::vector<std::int32_t> classes_;         // codes
  Words class_words_;
  bool lacks_labels_ = false;  // of some rows
  ClassNames class_names_;
  std::vector<double> row_numbers_, row_targets_;
  std::vector<std::string> row_words_;        // of all columns of words, one behind the other
  std::vector<double> row_word_weights_;      // of each
  std::vector<std::size_t> row_word_counts_;  // by column
};

}  // namespace varscope
