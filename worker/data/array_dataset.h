#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/config/source_keys.h"
#include "worker/data/dataset.h"
#include "worker/data/number_array.h"

namespace varscope {

// How one named input is read from an array.
struct ArrayInput {
  std::string name = "x";
  std::string array = {};  // what it was called in the archive of the training data, if any
  Shape shape = {};        // of one sample
  NumberType type = NumberType::uint8;
  Scale scale = {};
  bool is_default_scale = true;  // no config has said it
  bool is_ids = false;
  std::int64_t n_ids = 0;
  std::optional<IdType> row_ids = {};  // ids of rows; of strings their hashes
  bool are_numbers() const { return !is_ids && !row_ids; }
  bool operator==(const ArrayInput&) const = default;
};

// All that it takes to read other arrays as those of the training data were read. A value.
struct ArraySchema {
  std::vector<ArrayInput> inputs;
  LabelType label_type = LabelType::cls;
  std::string label_array = {};  // as ArrayInput::array
  std::int64_t label_width = 1;  // numbers of a label
  std::int64_t n_classes = 0;    // 0 for numbers
  bool knows_classes = true;     // false: that is what the labels have shown
  bool operator==(const ArraySchema&) const = default;
};

// As JSON that reads back to an equal schema.
std::string to_json(const ArraySchema& schema);
// Throws Error(data) for what is no such text.
ArraySchema array_schema_from_json(const std::string& text);

// Images of bytes, which are divided by 255 where nobody says otherwise: [h, w], or [h, w, c] with 1 to 4
// channels.
bool is_image_of_bytes(NumberType type, const Shape& shape);

// An array with what it is for.
struct NamedArray {
  std::string input;
  std::string array;  // in an archive; else empty
  NumberArray numbers;
};

// Which rows, and what may be missing.
struct ArrayPart {
  double from = 0, to = 1;   // of the rows
  std::int64_t samples = 0;  // not 0: the first so many of these
};

// Labelled rows of arrays, which stay where they lie (mapped files): only classes take memory, 4 bytes each.
// Immutable: safe from any thread.
class ArrayDataset final : public Dataset {
 public:
  // Training data: the schema follows from the arrays and the rules. Throws Error(data), with the array's
  // name and the row (from 0): arrays of different lengths, labels that are no classes, ids that are none,
  // numbers to be answered with that are not finite; Error(config) for rules that do not fit the arrays.
  ArrayDataset(std::vector<NamedArray> inputs, NumberArray labels, const ArrayRules& rules,
               const ArrayPart& part, std::string label_array = {});
  // Other data, read as those were. Throws Error(data) also for arrays of other shapes, and for such as need
  // another scale. Without labels: what is to be predicted.
  ArrayDataset(std::vector<NamedArray> inputs, std::optional<NumberArray> labels, const ArraySchema& schema,
               const ArrayPart& part);

  std::int64_t size() const override { return n_; }
  const Shape& sample_shape() const override { return schema_.inputs.front().shape; }
  const Shape& label_shape() const override { return label_shape_; }
  std::int64_t n_classes() const override { return schema_.n_classes; }
  bool knows_classes() const override { return schema_.knows_classes; }
  Target target() const override {
    return schema_.label_type == LabelType::cls ? Target::classes : Target::numbers;
  }
  Features features() const override { return inputs().front().features; }
  std::vector<InputSpec> inputs() const override;
  bool has_labels() const override { return labels_.has_value(); }
  std::string schema() const override { return to_json(schema_); }
  std::int64_t n_bytes() const override;
  void read(std::span<const std::int64_t> indices, const BatchView& batch) const override;
  void fill(std::span<const std::int64_t> indices, const TensorView& x, const TensorView& y) const override;
  Digest content() const override;

 private:
  void take_part(const ArrayPart& part);
  void order_inputs();
  void take_classes(bool is_training);
  void check_numbers() const;
  void check_ids(bool is_training);
  void check_row_ids(std::size_t k) const;
  bool read_row_ids(std::size_t k, std::int64_t row, std::int64_t* ids) const;
  void check(std::span<const std::int64_t> indices, const BatchView& batch) const;
  void read_input(std::size_t k, std::int64_t row, const TensorView& x, std::int64_t at) const;

  ArraySchema schema_;
  std::vector<NamedArray> arrays_;  // one for each input
  std::optional<NumberArray> labels_;
  Shape label_shape_;
  std::int64_t begin_ = 0, n_ = 0;     // rows of the arrays
  std::vector<std::int32_t> classes_;  // of the rows
};

}  // namespace varscope
