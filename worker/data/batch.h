#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/tensor.h"
#include "common/variables/table_spec.h"

namespace varscope {

// What a sample's elements are: numbers, of the model's dtype, ids of a range (words, categories), int32,
// where the ids of each sample begin, int64, or ids of the rows of a table, any 64 bits, int64.
enum class Features : std::uint8_t { real, ids, offsets, row_ids };

// What samples are answered with: a class, int32, or numbers, of the model's dtype.
enum class Target : std::uint8_t { classes, numbers };

// One named array of a data set. A bag, which has any number of ids for each sample, is two or three of
// them, one behind the other: the ids NAME, of shape [ragged]; NAME/offsets, [batch + 1]; and where ids
// have weights, NAME/weights, [ragged]: worker/ops/feature_ops.h says how they are read.
struct InputSpec {
  std::string name = "x";
  Shape shape = {};  // of one sample
  Features features = Features::real;
  std::int64_t n_ids = 0;          // ids are 0 .. n_ids - 1; 0 for numbers, and ids of rows
  std::int64_t most = 0;           // of [ragged]: as many as one sample may have
  IdType id_type = IdType::int64;  // of row_ids
  DType dtype(DType model) const {
    switch (features) {
      case Features::ids:
        return DType::int32;
      case Features::offsets:
      case Features::row_ids:
        return DType::int64;
      case Features::real:
        break;
    }
    return model;
  }
  bool is_ragged() const { return shape.has(Shape::kRagged); }
  bool is_of_bag() const { return is_ragged() || shape.has(Shape::kBounds); }
  // Of n samples; n may be Shape::kUnknown. Of [ragged] as much as may be needed: what is behind the last
  // offset is not read.
  Shape array_shape(std::int64_t n) const;
  bool operator==(const InputSpec&) const = default;
};

// All that a sample has.
struct SampleSpec {
  std::vector<InputSpec> inputs;  // at least one
  Target target = Target::classes;
  Shape label_shape = {};    // of one sample
  bool has_weights = false;  // each sample says how often it counts
  DType label_dtype(DType model) const { return target == Target::classes ? DType::int32 : model; }
  bool operator==(const SampleSpec&) const = default;
};

// [n, sample shape ...]
Shape batched(const Shape& sample, std::int64_t n);

// Where n samples go: inputs[i] is InputSpec::array_shape(n) of input i, or longer where that is [ragged],
// y is [n, label shape ...].
struct BatchView {
  std::vector<TensorView> inputs;
  TensorView y;
  std::optional<TensorView> weights = std::nullopt;  // float64 [n]; nothing where each sample counts once
  double total_weight() const;                       // their sum, in their order; 0 without weights
};

// Memory for a batch of up to `most` samples.
class Batch {
 public:
  Batch(const SampleSpec& spec, DType model, std::int64_t most);
  // Of its first n samples. Valid while this lives. REQUIRES 0 <= n <= most.
  BatchView view(std::int64_t n) const;
  const SampleSpec& spec() const { return spec_; }
  static std::int64_t n_bytes(const SampleSpec& spec, DType model, std::int64_t n);

 private:
  SampleSpec spec_;
  std::vector<Tensor> inputs_;
  Tensor y_;
  std::optional<Tensor> weights_;
};

}  // namespace varscope
