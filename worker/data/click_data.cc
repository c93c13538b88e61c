#include "worker/data/click_data.h"

#include <algorithm>
#include <cmath>

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/row_id.h"

namespace varscope {
namespace {

constexpr std::int64_t kDigested = 1024;    // samples that content() draws
constexpr std::int64_t kMostSeen = 20'000;  // that the optimum is told of
constexpr std::uint64_t kIdsOfField = 1ULL << 50U;

// [0, 1), from 53 of 64 bits.
double unit(std::uint64_t bits) { return static_cast<double>(bits >> 11U) * 0x1p-53; }
double unit(std::uint32_t low, std::uint32_t high) {
  return unit(std::uint64_t{high} << 32U | std::uint64_t{low});
}

// -p log p - (1 - p) log(1 - p), of a logit: no loss of digits where p is next to 0 or 1.
double entropy(double logit) {
  const double p = 1 / (1 + std::exp(-std::abs(logit)));  // of the likelier label
  return p * std::log1p(std::exp(-std::abs(logit))) +
         (1 - p) * (std::abs(logit) + std::log1p(std::exp(-std::abs(logit))));
}

double sigmoid(double x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }

ClickOptions checked(const ClickOptions& o) {
  if (o.samples < 1 || o.features < 1 || o.features > ClickDataset::kMostFeatures || o.numbers < 0 ||
      o.numbers > ClickDataset::kMostFeatures) {
    fail(
        ErrorKind::argument,
        "ctr: {} samples of {} features and {} numbers; needs at least 1 sample, 1 to {} features, and up to as "
        "many numbers",
        o.samples, o.features, o.numbers, ClickDataset::kMostFeatures);
  }
  return o;
}

}  // namespace

ClickDataset::ClickDataset(const ClickOptions& options, DataSplit split)
    : options_(checked(options)),
      split_(split),
      sample_shape_{options.features},
      zipf_(options.vocabulary, options.exponent),
      stream_(options.seed, RandomPurpose::clicks, static_cast<std::uint64_t>(split) * kStreams),
      id_key_(mix_row_id(options.seed)),
      weight_key_(mix_row_id(~options.seed)),
      weight_scale_(kSpread * std::sqrt(12.0 / static_cast<double>(options.features + options.numbers))) {}

std::vector<InputSpec> ClickDataset::inputs() const {
  std::vector<InputSpec> specs{
      {.name = "words", .shape = sample_shape_, .features = Features::row_ids, .id_type = IdType::uint64}};
  if (options_.numbers > 0) specs.push_back({.name = "numbers", .shape = Shape{options_.numbers}});
  return specs;
}

// A bijection of (field, rank).
std::uint64_t ClickDataset::id(std::int64_t field, std::int64_t rank) const {
  return mix_row_id((static_cast<std::uint64_t>(field) * kIdsOfField + static_cast<std::uint64_t>(rank)) ^
                    id_key_);
}

double ClickDataset::weight(std::uint64_t id) const {
  return weight_scale_ * (unit(mix_row_id(id ^ weight_key_)) - 0.5);
}

// Of the ids, then the numbers, then the label.
std::uint64_t ClickDataset::element(std::int64_t sample, std::int64_t place) const {
  return static_cast<std::uint64_t>(sample) *
             static_cast<std::uint64_t>(options_.features + options_.numbers + 1) +
         static_cast<std::uint64_t>(place);
}

// An element has two draws; where both are rejected, the element of the next stream has two more.
std::int64_t ClickDataset::rank(std::int64_t sample, std::int64_t field) const {
  const std::uint64_t at = element(sample, field);
  std::array<std::uint32_t, 4> words = stream_.words(at);
  for (std::uint64_t next = 1;; ++next) {
    if (const auto k = zipf_.rank(unit(words[0], words[1]))) return *k;
    if (const auto k = zipf_.rank(unit(words[2], words[3]))) return *k;
    if (next == kStreams) return 1;  // with a chance below (1/3)^128
    words = RandomStream(options_.seed, RandomPurpose::clicks,
                         static_cast<std::uint64_t>(split_) * kStreams + next)
                .words(at);
  }
}

double ClickDataset::number(std::int64_t sample, std::int64_t k) const {
  return stream_.normal(element(sample, options_.features + k));
}

template <class F, class G>
double ClickDataset::visit(std::int64_t sample, const F& f, const G& g) const {
  double logit = kBias;
  for (std::int64_t field = 0; field < options_.features; ++field) {
    const std::uint64_t word = id(field, rank(sample, field));
    logit += weight(word);
    f(field, word);
  }
  for (std::int64_t k = 0; k < options_.numbers; ++k) {
    const double x = number(sample, k);
    logit += weight(id(kMostFeatures + k, 1)) * x;
    g(k, x);
  }
  return logit;
}

void ClickDataset::read(std::span<const std::int64_t> indices, const BatchView& batch) const {
  const auto n = std::ssize(indices);
  const bool has_numbers = options_.numbers > 0;
  const auto is_number = [](DType t) { return t == DType::float32 || t == DType::float64; };
  if (batch.inputs.size() != (has_numbers ? 2U : 1U) || batch.inputs[0].dtype() != DType::int64 ||
      batch.inputs[0].shape() != batched(sample_shape_, n) || batch.y.dtype() != DType::int32 ||
      batch.y.shape() != Shape{n} ||
      (has_numbers &&
       (batch.inputs[1].shape() != Shape{n, options_.numbers} || !is_number(batch.inputs[1].dtype())))) {
    fail(ErrorKind::argument, "{} samples of clicks do not fit into the batch", n);
  }
  for (const std::int64_t i : indices) {
    if (i < 0 || i >= size()) fail(ErrorKind::argument, "sample {} was asked for; there are {}", i, size());
  }
  auto* ids = batch.inputs[0].data<std::int64_t>();
  std::int64_t row = 0;
  for (const std::int64_t i : indices) {
    const auto take_number = [&](std::int64_t k, double x) {
      const std::int64_t at = row * options_.numbers + k;
      if (batch.inputs[1].dtype() == DType::float32) {
        batch.inputs[1].data<float>()[at] = static_cast<float>(x);
      } else {
        batch.inputs[1].data<double>()[at] = x;
      }
    };
    const double logit = visit(
        i, [&](std::int64_t, std::uint64_t word) { *ids++ = static_cast<std::int64_t>(word); }, take_number);
    const double u = stream_.uniform(element(i, options_.features + options_.numbers));
    batch.y.data<std::int32_t>()[row++] = u < sigmoid(logit) ? 1 : 0;
  }
}

double ClickDataset::probability(std::int64_t i) const {
  return sigmoid(visit(
      i, [](std::int64_t, std::uint64_t) {}, [](std::int64_t, double) {}));
}

ClickDataset::Optimum ClickDataset::optimum(std::int64_t n) const {
  n = std::clamp<std::int64_t>(n, 1, size());
  double sum = 0, squares = 0, clicks = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double logit = visit(
        i, [](std::int64_t, std::uint64_t) {}, [](std::int64_t, double) {});
    const double loss = entropy(logit);
    sum += loss;
    squares += loss * loss;
    clicks += sigmoid(logit);
  }
  const auto count = static_cast<double>(n);
  const double mean = sum / count;
  return {mean, std::sqrt(std::max(0.0, squares / count - mean * mean) / count), clicks / count};
}

std::vector<std::string> ClickDataset::notes() const {
  const Optimum best = optimum(kMostSeen);
  return {
      fmt::format("the least log loss to expect is {:.4f} +- {:.4f}, that of the model the labels are drawn "
                  "from; {:.1f} % of the labels are 1",
                  best.log_loss, best.error, 100 * best.clicks)};
}

Digest ClickDataset::content() const {
  Digester digester;
  digester.update(fmt::format("clicks {} {} {} {} {} {} {}\n", options_.samples, options_.features,
                              options_.vocabulary, options_.exponent, options_.numbers, options_.seed,
                              static_cast<int>(split_)));
  const std::int64_t n = std::min(size(), kDigested);
  const Batch batch(spec(), DType::float64, n);
  std::vector<std::int64_t> indices(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) indices[static_cast<std::size_t>(i)] = i;
  const BatchView view = batch.view(n);
  read(indices, view);
  for (const TensorView& input : view.inputs)
    digester.update({static_cast<const std::byte*>(input.bytes()), input.n_bytes()});
  digester.update({static_cast<const std::byte*>(view.y.bytes()), view.y.n_bytes()});
  return digester.finish();
}

}  // namespace varscope
