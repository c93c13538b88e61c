#include "worker/data/skipgram.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <unordered_map>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/text.h"
#include "worker/data/text.h"

namespace varscope {
namespace {

constexpr std::int64_t kBlock = 128;  // words between two places that samples are counted from

// What is drawn, as parts of a stream's number; draws of negatives that are taken again follow the last one.
enum Kind : std::uint64_t { kKeep = 0, kWindow = 1, kNegative = 2 };
constexpr std::uint64_t kKinds = 256;

std::int64_t count_words(std::string_view text) {
  std::int64_t n = 0;
  for_each_word(text, [&](std::string_view) { ++n; });
  return n;
}

std::int64_t n_training(std::int64_t n, double test_fraction) {
  return n - static_cast<std::int64_t>(std::floor(static_cast<double>(n) * test_fraction));
}

SkipgramOptions checked(SkipgramOptions o) {
  const bool is_fraction = o.test_fraction >= 0 && o.test_fraction < 1;
  if (o.vocabulary < 2 || o.min_count < 1 || o.window < 1 || o.window > SkipgramDataset::kMostWindow ||
      o.negatives < 1 || !(o.subsample >= 0) || o.words < 0 || !is_fraction) {
    fail(
        ErrorKind::argument,
        "pairs of a text with a vocabulary of {}, min_count {}, a window of {}, {} negatives, subsample {} and a "
        "test fraction of {}",
        o.vocabulary, o.min_count, o.window, o.negatives, o.subsample, o.test_fraction);
  }
  return o;
}

}  // namespace

AliasTable::AliasTable(std::span<const double> weights) : keep_(weights.size(), 1), alias_(weights.size()) {
  double sum = 0;
  for (const double w : weights) sum += w;
  std::vector<double> share(weights.size());  // 1 is the mean
  std::vector<std::size_t> small, large;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    share[i] = weights[i] / sum * static_cast<double>(weights.size());
    alias_[i] = static_cast<std::int32_t>(i);
    (share[i] < 1 ? small : large).push_back(i);
  }
  while (!small.empty() && !large.empty()) {
    const std::size_t s = small.back(), l = large.back();
    small.pop_back();
    keep_[s] = share[s];
    alias_[s] = static_cast<std::int32_t>(l);
    share[l] -= 1 - share[s];
    if (share[l] >= 1) continue;
    large.pop_back();
    small.push_back(l);
  }
}

std::int32_t AliasTable::draw(const std::array<std::uint32_t, 4>& words) const {
  const std::uint64_t high = std::uint64_t{words[1]} << 32U | words[0];
  const std::uint64_t low = std::uint64_t{words[3]} << 32U | words[2];
  const auto i = static_cast<std::size_t>(
      static_cast<unsigned __int128>(high) * static_cast<unsigned __int128>(keep_.size()) >> 64U);
  const double coin = static_cast<double>(low >> 11U) * 0x1p-53;
  return coin < keep_[i] ? static_cast<std::int32_t>(i) : alias_[i];
}

SkipgramDataset::SkipgramDataset(const std::filesystem::path& file, const SkipgramOptions& options)
    : options_(checked(options)), context_shape_{1 + options.negatives}, negative_stream_(stream(kNegative)) {
  const std::string text = read_text(file);
  const std::int64_t n = count_words(text), n_train = n_training(n, options.test_fraction);
  if (options.vocabulary_file.empty()) {
    take_vocabulary(text, n_train);
  } else {
    const std::string other = read_text(options.vocabulary_file);
    take_vocabulary(other, n_training(count_words(other), options.vocabulary_test_fraction));
  }
  if (vocabulary_.size() < 2) {
    fail(ErrorKind::data,
         "{}: {} of its words occur {} times or more (min_count); pairs need two or more to tell apart",
         (options.vocabulary_file.empty() ? file : options.vocabulary_file).string(), vocabulary_.size(),
         options.min_count);
  }
  const std::int64_t begin = options.split == DataSplit::test ? n_train : 0;
  std::int64_t end = options.split == DataSplit::train ? n_train : n;
  if (options.words > 0) end = std::min(end, begin + options.words);
  n_words_ = end - begin;
  take_words(text, begin, end);
  draw_windows();
  if (n_pairs_ == 0) {
    fail(ErrorKind::data, "{}: {} of the {} words of its {} part are left, which make no pair", file.string(),
         ids_.size(), n_words_, options.split == DataSplit::test ? "test" : "training");
  }
}

// The most frequent ones of the words to train on, and how often they are drawn.
void SkipgramDataset::take_vocabulary(std::string_view text, std::int64_t n_training) {
  std::unordered_map<std::string_view, std::int64_t> counts;
  std::int64_t at = 0;
  for_each_word(text, [&](std::string_view word) {
    if (at++ < n_training) ++counts[word];
  });
  std::vector<std::pair<std::int64_t, std::string_view>> sorted;
  for (const auto& [word, count] : counts) {
    if (count >= options_.min_count) sorted.emplace_back(-count, word);
  }
  std::ranges::sort(sorted);
  if (std::cmp_greater(sorted.size(), options_.vocabulary))
    sorted.resize(static_cast<std::size_t>(options_.vocabulary));
  std::vector<double> weights;
  for (const auto& [count, word] : sorted) {
    vocabulary_.emplace_back(word);
    counts_.push_back(-count);
    n_known_ -= count;
    weights.push_back(std::pow(static_cast<double>(-count), 0.75));
  }
  if (!weights.empty()) negatives_ = AliasTable(weights);
}

// Those of [begin, end) that are known and are kept.
void SkipgramDataset::take_words(std::string_view text, std::int64_t begin, std::int64_t end) {
  std::unordered_map<std::string_view, std::int32_t> ids;
  std::vector<double> kept(vocabulary_.size(), 1);
  for (std::size_t i = 0; i < vocabulary_.size(); ++i) {
    ids[vocabulary_[i]] = static_cast<std::int32_t>(i);
    const double f = static_cast<double>(counts_[i]) / static_cast<double>(n_known_);
    if (options_.subsample > 0) kept[i] = std::sqrt(options_.subsample / f);
  }
  const RandomStream keep = stream(kKeep);
  std::int64_t at = 0;
  for_each_word(text, [&](std::string_view word) {
    const std::int64_t place = at++;
    if (place < begin || place >= end) return;
    const auto found = ids.find(word);
    if (found == ids.end()) return;
    const double p = kept[static_cast<std::size_t>(found->second)];
    if (p < 1 && keep.uniform(static_cast<std::uint64_t>(place)) >= p) return;
    ids_.push_back(found->second);
  });
}

void SkipgramDataset::draw_windows() {
  const RandomStream window = stream(kWindow);
  windows_.reserve(ids_.size());
  for (std::size_t i = 0; i < ids_.size(); ++i) {
    windows_.push_back(
        static_cast<std::uint8_t>(1 + window.below(i, static_cast<std::uint64_t>(options_.window))));
  }
  for (std::int64_t place = 0; place < std::ssize(ids_); ++place) {
    if (place % kBlock == 0) begins_.push_back(n_pairs_);
    n_pairs_ += pairs_of(place);
  }
}

RandomStream SkipgramDataset::stream(std::uint64_t kind) const {
  const auto part = static_cast<std::uint64_t>(options_.split.value_or(DataSplit::train));
  return {options_.seed, RandomPurpose::skipgram, part * kKinds + kind};
}

// Words of the window that stand before the word, and all of them.
std::int64_t SkipgramDataset::before(std::int64_t place) const {
  return std::min<std::int64_t>(windows_[static_cast<std::size_t>(place)], place);
}
std::int64_t SkipgramDataset::pairs_of(std::int64_t place) const {
  return before(place) +
         std::min<std::int64_t>(windows_[static_cast<std::size_t>(place)], std::ssize(ids_) - 1 - place);
}

std::pair<std::int64_t, std::int64_t> SkipgramDataset::pair(std::int64_t i) const {
  const auto block = std::upper_bound(begins_.begin(), begins_.end(), i) - begins_.begin() - 1;
  std::int64_t place = block * kBlock, rest = i - begins_[static_cast<std::size_t>(block)];
  while (rest >= pairs_of(place)) rest -= pairs_of(place++);
  const std::int64_t left = before(place);
  return {place, rest < left ? place - left + rest : place + 1 + rest - left};
}

// Another word than the context. Where the same one is drawn again and again it is the next one.
std::int32_t SkipgramDataset::negative(std::int64_t sample, std::int64_t k, std::int32_t context) const {
  const auto element = static_cast<std::uint64_t>(sample * options_.negatives + k);
  std::int32_t id = negatives_.draw(negative_stream_.words(element));
  for (std::uint64_t kind = kNegative + 1; id == context && kind < kKinds; ++kind)
    id = negatives_.draw(stream(kind).words(element));
  return id != context ? id : (context + 1) % static_cast<std::int32_t>(vocabulary_.size());
}

std::vector<InputSpec> SkipgramDataset::inputs() const {
  const auto n = std::ssize(vocabulary_);
  return {{.name = "word", .shape = word_shape_, .features = Features::ids, .n_ids = n},
          {.name = "context", .shape = context_shape_, .features = Features::ids, .n_ids = n}};
}

std::int64_t SkipgramDataset::n_bytes() const {
  return 5 * std::ssize(ids_) + 8 * std::ssize(begins_) + 12 * std::ssize(vocabulary_);
}

void SkipgramDataset::read(std::span<const std::int64_t> indices, const BatchView& batch) const {
  const auto n = std::ssize(indices);
  const Shape wanted = batched(context_shape_, n);
  const bool fits = batch.inputs.size() == 2 && batch.inputs[0].dtype() == DType::int32 &&
                    batch.inputs[0].shape() == batched(word_shape_, n) &&
                    batch.inputs[1].dtype() == DType::int32 && batch.inputs[1].shape() == wanted &&
                    batch.y.shape() == wanted && batch.y.dtype() == DType::int32;
  if (!fits) fail(ErrorKind::argument, "{} pairs of words do not fit into the batch", n);
  auto* word = batch.inputs[0].data<std::int32_t>();
  auto* context = batch.inputs[1].data<std::int32_t>();
  for (const std::int64_t i : indices) {
    if (i < 0 || i >= size()) fail(ErrorKind::argument, "sample {} was asked for; there are {}", i, size());
    const auto [at, near] = pair(i);
    *word++ = ids_[static_cast<std::size_t>(at)];
    const std::int32_t id = *context++ = ids_[static_cast<std::size_t>(near)];
    for (std::int64_t k = 0; k < options_.negatives; ++k) *context++ = negative(i, k, id);
  }
  auto* y = batch.y.data<std::int32_t>();
  for (std::int64_t i = 0; i < wanted.n_elements(); ++i) y[i] = i % (1 + options_.negatives) == 0 ? 1 : 0;
}

Digest SkipgramDataset::content() const {
  Digester digester;
  digester.update(fmt::format("skipgram {} {} {} {}\n", options_.negatives, options_.seed, options_.window,
                              static_cast<int>(options_.split.value_or(DataSplit::train))));
  digester.update(std::as_bytes(std::span(ids_)));
  digester.update(std::as_bytes(std::span(windows_)));
  digester.update(std::as_bytes(std::span(counts_)));  // that negatives are drawn by
  return digester.finish();
}

std::string SkipgramDataset::schema() const {
  return nlohmann::json{{"vocabulary", vocabulary_}}.dump(-1, ' ', false,
                                                          nlohmann::json::error_handler_t::replace);
}

Digest SkipgramDataset::vocabulary_digest() const {
  Digester digester;
  for (const std::string& word : vocabulary_) digester.update(word + "\n");  // no word has white space
  return digester.finish();
}

std::vector<std::string> SkipgramDataset::notes() const {
  return {fmt::format("a vocabulary of {} words; {} of {} words of the text are left",
                      with_commas(std::ssize(vocabulary_)), with_commas(std::ssize(ids_)),
                      with_commas(n_words_))};
}

}  // namespace varscope
