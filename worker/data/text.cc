#include "worker/data/text.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "worker/data/gzip_file.h"

namespace varscope {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{4} << 30;

std::vector<std::string_view> split_words(std::string_view text) {
  std::vector<std::string_view> words;
  for_each_word(text, [&](std::string_view word) { words.push_back(word); });
  return words;
}

std::span<const std::string_view> training_words(std::span<const std::string_view> words,
                                                 double test_fraction) {
  const auto n_test = static_cast<std::size_t>(std::floor(static_cast<double>(words.size()) * test_fraction));
  return words.first(words.size() - n_test);
}

// By frequency, then alphabetically; [0] is "<unk>".
std::vector<std::string> frequent_words(std::span<const std::string_view> words, std::int64_t n) {
  std::unordered_map<std::string_view, std::int64_t> counts;
  for (const std::string_view w : words) ++counts[w];
  std::vector<std::pair<std::int64_t, std::string_view>> sorted;
  sorted.reserve(counts.size());
  for (const auto& [word, count] : counts) sorted.emplace_back(-count, word);
  std::sort(sorted.begin(), sorted.end());
  std::vector<std::string> vocabulary{"<unk>"};
  for (const auto& [count, word] : sorted) {
    if (static_cast<std::int64_t>(vocabulary.size()) >= n) break;
    if (word != "<unk>") vocabulary.emplace_back(word);
  }
  return vocabulary;
}

}  // namespace

std::string read_text(const std::filesystem::path& file) {
  std::string text = read_gzip_file(file, kMaxFileBytes);
  const std::size_t at = text.find('\0');
  if (at != std::string::npos) {
    fail(ErrorKind::data,
         "{}: is no text: its byte {} is 0; a text is UTF-8 or ASCII, plain or compressed by gzip",
         file.string(), at);
  }
  return text;
}

TextDataset::TextDataset(const std::filesystem::path& file, const TextOptions& options)
    : options_(options), sample_shape_{options.steps} {
  if (options.vocabulary < 2 || options.steps < 1 || options.streams < 1 || !(options.test_fraction >= 0) ||
      !(options.test_fraction < 1)) {
    fail(ErrorKind::argument,
         "a text with a vocabulary of {}, {} steps, {} streams and a test fraction of {}", options.vocabulary,
         options.steps, options.streams, options.test_fraction);
  }
  const std::string text = read_text(file);
  const std::vector<std::string_view> all = split_words(text);
  const auto train = training_words(all, options.test_fraction);
  if (options.vocabulary_file.empty()) {
    vocabulary_ = frequent_words(train, options.vocabulary);
  } else {
    const std::string other = read_text(options.vocabulary_file);
    const std::vector<std::string_view> words = split_words(other);
    vocabulary_ = frequent_words(training_words(words, options.vocabulary_test_fraction), options.vocabulary);
  }
  std::span<const std::string_view> used = all;
  if (options.split == DataSplit::train) used = train;
  if (options.split == DataSplit::test) used = used.subspan(train.size());
  if (options.words > 0 && static_cast<std::size_t>(options.words) < used.size())
    used = used.first(static_cast<std::size_t>(options.words));

  std::unordered_map<std::string_view, std::int32_t> ids;
  for (std::size_t i = 1; i < vocabulary_.size(); ++i) ids[vocabulary_[i]] = static_cast<std::int32_t>(i);
  ids_.reserve(used.size());
  for (const std::string_view w : used) {
    const auto found = ids.find(w);
    ids_.push_back(found == ids.end() ? 0 : found->second);
  }
  stream_words_ = used.empty() ? 0 : (n_words() - 1) / options.streams;
  n_windows_ = stream_words_ / options.steps;
  if (n_windows_ < 1) {
    fail(ErrorKind::data, "{} has {} words in its {} part; {} sequences of {} words need at least {}",
         file.string(), n_words(), options.split == DataSplit::test ? "test" : "training", options.streams,
         options.steps, options.streams * options.steps + 1);
  }
}

Digest TextDataset::content() const { return digest_of(std::as_bytes(std::span(ids_))); }

std::string TextDataset::schema() const {
  return nlohmann::json{{"vocabulary", vocabulary_}}.dump(-1, ' ', false,
                                                          nlohmann::json::error_handler_t::replace);
}

std::vector<std::string> vocabulary_from_schema(const std::string& schema) {
  try {
    return nlohmann::json::parse(schema).at("vocabulary").get<std::vector<std::string>>();
  } catch (const nlohmann::json::exception& e) {
    fail(ErrorKind::data, "no vocabulary of a text: {}", e.what());
  }
}

Digest TextDataset::vocabulary_digest() const {
  Digester digester;
  for (const std::string& word : vocabulary_) digester.update(word + "\n");  // no word has white space
  return digester.finish();
}

void TextDataset::fill(std::span<const std::int64_t> indices, const TensorView& x,
                       const TensorView& y) const {
  const auto n = static_cast<std::int64_t>(indices.size());
  const Shape wanted{n, options_.steps};
  if (x.dtype() != DType::int32 || y.dtype() != kLabelDType || x.shape() != wanted || y.shape() != wanted) {
    fail(ErrorKind::argument, "{} windows of {} words do not fit into x {} {} and y {} {}", n, options_.steps,
         to_string(x.dtype()), x.shape().str(), to_string(y.dtype()), y.shape().str());
  }
  std::int32_t* to_x = x.data<std::int32_t>();
  std::int32_t* to_y = y.data<std::int32_t>();
  for (const std::int64_t i : indices) {
    if (i < 0 || i >= size()) fail(ErrorKind::argument, "sample {} was asked for; there are {}", i, size());
    const std::int64_t begin = i % options_.streams * stream_words_ + i / options_.streams * options_.steps;
    const std::int32_t* from = ids_.data() + begin;
    to_x = std::copy_n(from, options_.steps, to_x);
    to_y = std::copy_n(from + 1, options_.steps, to_y);
  }
}

}  // namespace varscope
