#include "worker/data/split.h"

#include <utility>

#include "common/base/error.h"

namespace varscope {
namespace {

class SomeOf final : public Dataset {
 public:
  SomeOf(std::unique_ptr<Dataset> all, std::vector<std::int64_t> samples)
      : all_(std::move(all)), samples_(std::move(samples)) {
    for (const std::int64_t i : samples_) {
      if (!all_->weights().empty()) weights_.push_back(all_->weights()[static_cast<std::size_t>(i)]);
    }
  }
  std::int64_t size() const override { return std::ssize(samples_); }
  const Shape& sample_shape() const override { return all_->sample_shape(); }
  const Shape& label_shape() const override { return all_->label_shape(); }
  std::int64_t n_classes() const override { return all_->n_classes(); }
  bool knows_classes() const override { return all_->knows_classes(); }
  Target target() const override { return all_->target(); }
  Features features() const override { return all_->features(); }
  std::vector<InputSpec> inputs() const override { return all_->inputs(); }
  std::span<const double> weights() const override { return weights_; }
  std::string schema() const override { return all_->schema(); }
  bool has_labels() const override { return all_->has_labels(); }
  std::vector<std::string> warnings() const override { return all_->warnings(); }
  std::vector<std::string> notes() const override { return all_->notes(); }
  const LeftOut& left_out() const override { return all_->left_out(); }
  UnknownWords unknown_words() const override { return all_->unknown_words(); }
  std::vector<std::string> class_names() const override { return all_->class_names(); }
  Digest vocabulary_digest() const override { return all_->vocabulary_digest(); }
  std::int64_t n_bytes() const override { return all_->n_bytes() + 8 * (size() + std::ssize(weights_)); }
  void read(std::span<const std::int64_t> indices, const BatchView& batch) const override {
    std::vector<std::int64_t> of_all;
    of_all.reserve(indices.size());
    for (const std::int64_t i : indices) {
      if (i < 0 || i >= size()) fail(ErrorKind::argument, "sample {} was asked for; there are {}", i, size());
      of_all.push_back(samples_[static_cast<std::size_t>(i)]);
    }
    all_->read(of_all, batch);
  }
  Digest content() const override {
    Digester digester;
    const Digest all = all_->content();
    digester.update(std::as_bytes(std::span(&all, 1)));
    digester.update(std::as_bytes(std::span(samples_)));
    return digester.finish();
  }

 private:
  std::unique_ptr<Dataset> all_;
  std::vector<std::int64_t> samples_;
  std::vector<double> weights_;
};

}  // namespace

PartOfSplit::PartOfSplit(const SplitConfig& split, DataSplit part)
    : random_(static_cast<std::uint64_t>(split.seed), RandomPurpose::split, 0),
      test_(split.test),
      is_test_(part == DataSplit::test) {}

void PartOfSplit::require_some(std::int64_t n) const {
  for (std::int64_t i = 0; i < n; ++i) {
    if (has(i)) return;
  }
  fail(ErrorKind::data,
       "data.split with test: {} leaves none of {} samples to {}; choose another share or seed", test_, n,
       is_test_ ? "evaluate" : "train on");
}

std::vector<std::int64_t> samples_of_part(const SplitConfig& split, DataSplit part, std::int64_t n) {
  const PartOfSplit chosen(split, part);
  chosen.require_some(n);
  std::vector<std::int64_t> samples;
  for (std::int64_t i = 0; i < n; ++i) {
    if (chosen.has(i)) samples.push_back(i);
  }
  return samples;
}

std::unique_ptr<Dataset> some_of(std::unique_ptr<Dataset> data, std::vector<std::int64_t> samples) {
  return std::make_unique<SomeOf>(std::move(data), std::move(samples));
}

}  // namespace varscope
