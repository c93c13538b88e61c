#include "worker/data/row_streams.h"

#include <algorithm>
#include <numeric>

#include "common/base/error.h"
#include "worker/data/idx.h"

namespace varscope {
namespace {

// Samples [begin, begin + n) of another data set.
class Part final : public Dataset {
 public:
  Part(const Dataset& base, std::int64_t begin, std::int64_t n) : base_(base), begin_(begin), n_(n) {}
  std::int64_t size() const override { return n_; }
  const Shape& sample_shape() const override { return base_.sample_shape(); }
  const Shape& label_shape() const override { return base_.label_shape(); }
  std::int64_t n_classes() const override { return base_.n_classes(); }
  Target target() const override { return base_.target(); }
  Features features() const override { return base_.features(); }
  std::vector<InputSpec> inputs() const override { return base_.inputs(); }
  bool has_labels() const override { return base_.has_labels(); }
  void read(std::span<const std::int64_t> indices, const BatchView& batch) const override {
    std::vector<std::int64_t> of_base(indices.begin(), indices.end());
    for (std::int64_t& i : of_base) {
      if (i < 0 || i >= n_) fail(ErrorKind::argument, "sample {} was asked for; there are {}", i, n_);
      i += begin_;
    }
    base_.read(of_base, batch);
  }
  Digest content() const override { return base_.content(); }

 private:
  const Dataset& base_;
  std::int64_t begin_, n_;
};

class DatasetStream final : public RowStream {
 public:
  explicit DatasetStream(std::unique_ptr<Dataset> data) : data_(std::move(data)) {}
  std::unique_ptr<Dataset> next(std::int64_t most, std::span<const std::string> keep,
                                std::vector<std::string>& kept) override {
    if (!keep.empty()) fail(ErrorKind::config, "--keep {}: the input has no named columns", keep.front());
    kept.clear();
    const std::int64_t n = std::min(most, data_->size() - at_);
    if (n <= 0) return nullptr;
    auto part = std::make_unique<Part>(*data_, at_, n);
    at_ += n;
    return part;
  }

 private:
  std::unique_ptr<Dataset> data_;
  std::int64_t at_ = 0;
};

class IdxImages final : public ByteImages {
 public:
  IdxImages(const std::filesystem::path& file, const Shape& shape, std::int64_t n_classes) {
    IdxFile images = read_idx_images(file);
    sample_shape_ = Shape(std::vector(images.dims.begin() + 1, images.dims.end()));
    if (sample_shape_ != shape) {
      fail(ErrorKind::data, "{}: its images have shape {}, those of the training data {}", file.string(),
           sample_shape_.str(), shape.str());
    }
    size_ = images.dims[0];
    n_classes_ = n_classes;
    pixels_ = std::move(images.elements);
    labels_.assign(static_cast<std::size_t>(size_), 0);
  }
  bool has_labels() const override { return false; }
};

}  // namespace

std::unique_ptr<RowStream> stream_dataset(std::unique_ptr<Dataset> data) {
  return std::make_unique<DatasetStream>(std::move(data));
}

std::unique_ptr<Dataset> open_idx_images(const std::filesystem::path& file, const Shape& shape,
                                         std::int64_t n_classes) {
  return std::make_unique<IdxImages>(file, shape, n_classes);
}

}  // namespace varscope
