#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/base/data_identity.h"
#include "common/base/tensor.h"
#include "worker/data/batch.h"
#include "worker/data/data_files.h"

namespace varscope {

// Records that are not among the samples because they cannot be read (bad_records: skip).
struct LeftOut {
  static constexpr std::size_t kMostTold = 100;
  std::int64_t n = 0, of = 0;      // so many of so many records
  std::vector<std::string> first;  // "a.csv:3:1: column ...", of the first kMostTold
  void add(std::string text);
  // Throws Error(data) when they are more than this share of all.
  void check(double max_share) const;
  std::string text() const;  // "2 of 4 records are left out (bad_records: skip); the first: ..."; "" for none
};

// Labelled samples by index. What a sample is never changes while the program runs; the order in which
// samples are visited is EpochOrder's. Immutable after construction: safe from any thread.
class Dataset {
 public:
  Dataset() = default;
  Dataset(const Dataset&) = delete;
  Dataset& operator=(const Dataset&) = delete;
  virtual ~Dataset() = default;

  virtual std::int64_t size() const = 0;
  virtual const Shape& sample_shape() const = 0;      // of one sample's first input: [28, 28]
  virtual std::int64_t n_classes() const = 0;         // labels are 0 .. n_classes - 1; 0 for numbers
  static constexpr DType kLabelDType = DType::int32;  // of classes
  virtual Target target() const { return Target::classes; }
  // The named arrays; the first has sample_shape() and features().
  virtual std::vector<InputSpec> inputs() const;
  SampleSpec spec() const { return {inputs(), target(), label_shape(), !weights().empty()}; }
  // How often each sample counts, in losses and in metrics; empty: each once. By index; finite, not negative.
  virtual std::span<const double> weights() const { return {}; }
  // All that it takes to read other samples as these are read, as a text; empty where the config says it.
  virtual std::string schema() const { return {}; }
  // False for samples whose labels are not known: y is zeros.
  virtual bool has_labels() const { return true; }
  virtual const LeftOut& left_out() const;
  // Words that the vocabulary does not have, which are id 0, of so many words that were looked up.
  struct UnknownWords {
    std::int64_t n = 0, of = 0;
  };
  virtual UnknownWords unknown_words() const { return {}; }
  // What a user should know of the data, a line each.
  virtual std::vector<std::string> warnings() const { return {}; }
  // What else there is to know, a line each: nothing is wrong with it. May draw samples.
  virtual std::vector<std::string> notes() const { return {}; }
  // The class that all samples have, where they have one only and there is more than one sample.
  virtual std::optional<std::int64_t> only_class() const { return std::nullopt; }
  // Of classes that are words or other numbers than 0, 1, ...; by class, or empty.
  virtual std::vector<std::string> class_names() const { return {}; }
  virtual Features features() const { return Features::real; }
  // The labels of one sample; [] is a single one.
  virtual const Shape& label_shape() const { return kOneLabel; }
  // Not 0: samples are windows of so many sequences that are read side by side, to be visited in order, with
  // so many in a batch (data/text.h).
  virtual std::int64_t streams() const { return 0; }
  // Whether more classes than n_classes() cannot be: false where that is only what the labels have shown.
  virtual bool knows_classes() const { return true; }
  // Of memory that grows with the samples.
  virtual std::int64_t n_bytes() const { return 0; }
  // What the samples were read from, where the source names files.
  const std::vector<DataFile>& files() const { return files_; }
  void set_files(std::vector<DataFile> files) { files_ = std::move(files); }
  std::int64_t labels_per_sample() const { return label_shape().n_elements(); }

  // Row i of all arrays becomes sample indices[i]. Numbers: float32 or float64, ids: int32, classes: int32.
  // Does not allocate. Throws Error(argument) on a wrong shape or dtype, or an index outside 0 .. size() - 1.
  virtual void read(std::span<const std::int64_t> indices, const BatchView& batch) const;
  // The same with the samples' weights, 1 for each where there are none, if the batch has a place for them.
  void read_weighted(std::span<const std::int64_t> indices, const BatchView& batch) const;
  // Of samples with one input, the same as read(). A data set overrides one of the two.
  virtual void fill(std::span<const std::int64_t> indices, const TensorView& x, const TensorView& y) const;

  // Over all samples and labels, as they are in memory: equal for data that fill() gives alike. Some 10 GB/s.
  virtual Digest content() const = 0;
  // Over what the ids mean; zeros where there are none.
  virtual Digest vocabulary_digest() const { return {}; }
  DataIdentity identity() const;

 private:
  static inline const Shape kOneLabel;
  std::vector<DataFile> files_;
};

// Images kept as bytes, converted to byte / 255 while filling.
class ByteImages : public Dataset {
 public:
  std::int64_t size() const override { return size_; }
  const Shape& sample_shape() const override { return sample_shape_; }
  std::int64_t n_classes() const override { return n_classes_; }
  bool knows_classes() const override { return knows_classes_; }
  std::optional<std::int64_t> only_class() const override;
  std::int64_t n_bytes() const override { return static_cast<std::int64_t>(pixels_.size() + labels_.size()); }
  void fill(std::span<const std::int64_t> indices, const TensorView& x, const TensorView& y) const override;
  Digest content() const override;

  std::span<const std::uint8_t> pixels(std::int64_t i) const;
  std::int32_t label(std::int64_t i) const { return labels_[static_cast<std::size_t>(i)]; }

 protected:
  ByteImages() = default;
  std::int64_t size_ = 0;
  std::int64_t n_classes_ = 0;
  bool knows_classes_ = true;
  Shape sample_shape_;
  std::vector<std::uint8_t> pixels_;  // size_ samples
  std::vector<std::uint8_t> labels_;
};

}  // namespace varscope
