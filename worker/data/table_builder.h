#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "worker/data/growing_array.h"
#include "worker/data/split.h"
#include "worker/data/table.h"
#include "worker/data/table_schema.h"

namespace varscope {

// Which rows become samples, by their numbers.
struct RowSelection {
  std::int64_t begin = 0, end = std::numeric_limits<std::int64_t>::max();
  std::optional<PartOfSplit> part = {};  // of [begin, end), numbered from 0 on
  bool is_between(std::int64_t row) const { return row >= begin && row < end; }
  bool has(std::int64_t row) const { return is_between(row) && (!part || part->has(row - begin)); }
};

// Makes a table of records, cell by cell, in their order: first all records are added, then the constants are
// fitted to those that are kept (or those of another schema are taken), and the rows are made. Where the rows
// go to files, memory does not grow with them, but with the different words of vocabularies. One thread.
class TableBuilder {
 public:
  // Rows of weight 0 are as if they were not there, but where each row is to be answered. There a label may
  // be missing, too, or be a class that the model does not know: then the labels of all rows count as absent.
  enum class WithoutWeight : std::uint8_t { left_out, kept };
  // `is_fitted`: the schema's constants, vocabularies and classes are known. `folder`: where rows and samples
  // are kept; empty: in memory. Throws Error(io), as all functions do with a folder.
  TableBuilder(TableSchema schema, bool is_fitted, WithoutWeight without = WithoutWeight::left_out,
               const std::filesystem::path& folder = {});

  // Throws BadCell for a cell that the schema does not allow, and adds nothing then.
  struct BadCell {
    std::int64_t column;  // its place in the record
    std::string what;     // with the column's name
  };
  void add(std::span<const std::string_view> cells);
  std::int64_t size() const { return spool_.size(); }
  std::int64_t n_left_out() const { return n_left_out_; }  // of weight 0
  // Of these rows. Classes are those of all rows between begin and end.
  std::unique_ptr<TableDataset> build(const RowSelection& rows, LeftOut left_out);

 private:
  // The words of a column by the order in which they were met.
  struct Words {
    std::unordered_map<std::string, std::int32_t> codes;
    std::vector<const std::string*> words;
    std::int32_t code(std::string word);
  };
  // A record as it is kept until all are there. Word columns of buckets have the bucket for a code.
  struct Row {
    double weight = 1;
    std::vector<double> numbers;         // by column of numbers; NaN: missing
    std::vector<double> targets;         // by label column
    std::int32_t label = 0;              // the class's code
    std::vector<std::uint32_t> counts;   // of words, by column of words
    std::vector<std::int32_t> codes;     // of all of them, one column behind the other
    std::vector<std::uint64_t> row_ids;  // of columns whose words are ids of rows, as codes of the others
    std::vector<double> word_weights;    // of those of bags with weights
  };
  // A column of words, with the input that it is of.
  struct WordColumn {
    const TableInput* input;
    const TableColumn* column;
    std::size_t place;  // among the input's columns
    Words words;
    bool has_row_ids() const { return input->row_ids.has_value(); }
    bool has_vocabulary() const { return !has_row_ids() && column->buckets == 0; }
  };

  bool answers_all() const { return is_fitted_ && without_ == WithoutWeight::kept; }
  bool has_classes() const { return schema_.label.type == LabelType::cls && !schema_.label.is_absent; }
  double number(const TableColumn& column, std::string_view cell) const;
  void take_words(const WordColumn& words, std::span<const std::string_view> cells);
  void add_word(const WordColumn& words, std::string_view word, double weight);
  // False for a cell without a value that counts as an id of its own, or as an empty bag.
  bool take_missing_id(const WordColumn& words, std::string_view cell);
  void take_codes();
  void take_labels(std::span<const std::string_view> cells, std::string& name);
  void keep_row();
  void read_row(std::span<const std::byte> record);  // into row_
  // f() for each row that `rows` has, with row_ filled.
  template <class F>
  void for_each_row(const RowSelection& rows, F&& f);
  void fit_numbers(const RowSelection& rows);
  void fit_words_and_classes(const RowSelection& rows);
  void set_vocabularies(const std::vector<std::vector<std::int64_t>>& counts);
  // The ids of a column's words, by code; empty for buckets.
  static std::vector<std::int32_t> ids_of(const WordColumn& column);
  // Where in row_ the next input's elements are.
  struct Places {
    std::size_t number = 0, column = 0, word = 0, row_id = 0, weight = 0, bag = 0;
  };
  void add_numbers(const TableInput& input, Places& at, TableColumns& columns) const;
  void add_ids(const TableInput& input, const std::vector<std::vector<std::int32_t>>& ids, Places& at,
               TableColumns& columns) const;
  void add_row_ids(const TableInput& input, Places& at, TableColumns& columns) const;
  void add_inputs(const std::vector<std::vector<std::int32_t>>& ids, TableColumns& columns) const;

  TableSchema schema_;
  bool is_fitted_;
  WithoutWeight without_;
  std::filesystem::path folder_;
  std::int64_t n_left_out_ = 0;
  std::vector<TableColumn*> numbers_;  // the columns of numbers
  std::vector<WordColumn> words_;
  Words class_words_;
  bool lacks_labels_ = false;  // of some rows
  ClassNames class_names_;
  RecordSpool spool_;
  Row row_;
  std::vector<std::string> row_words_;  // row_.codes as words
  std::vector<std::byte> record_;
};

}  // namespace varscope
