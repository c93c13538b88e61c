#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/config/data_split.h"
#include "worker/data/dataset.h"

namespace varscope {

// All of a text, plain or compressed by gzip. Throws Error(data), which names the file, for what cannot be
// read, and for a byte 0: that is in no text of words.
std::string read_text(const std::filesystem::path& file);

// f(std::string_view) for each word, in their order: what white space separates.
template <class F>
void for_each_word(std::string_view text, const F& f) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  for (std::size_t at = text.find_first_not_of(kSpace); at != std::string_view::npos;) {
    const std::size_t end = std::min(text.find_first_of(kSpace, at), text.size());
    f(text.substr(at, end - at));
    at = text.find_first_not_of(kSpace, end);
  }
}

struct TextOptions {
  std::int64_t vocabulary = 10000;                    // ids, that of <unk> included
  std::int64_t steps = 20;                            // words of a sample
  std::int64_t streams = 20;                          // sequences that are read side by side
  double test_fraction = 0.1;                         // of the words, at the end of the file
  std::int64_t words = 0;                             // use the first n words of the split; 0 means all
  std::optional<DataSplit> split = DataSplit::train;  // nothing: all words of the file
  // The file whose words to train on give the vocabulary; empty: this one.
  std::filesystem::path vocabulary_file = {};
  double vocabulary_test_fraction = 0;  // of that file
};

// A text for a language model: words by their ids, each sample `steps` consecutive words, its labels the
// words that follow each of them. White space separates words. The vocabulary is that of the words to train
// on, of this file or another one, whatever split this is: ids by frequency, then alphabetically; 0 is <unk>,
// every other word.
//
// The split is cut into `streams` equal sequences (a remainder is left out). Sample i is window i / streams
// of sequence i % streams, so that a batch of `streams` consecutive samples has one window of each sequence,
// and the next batch the windows that follow: what a recurrent network carries over fits (Zaremba et al.,
// 2014). Throws Error(data) that names the file: unreadable, or fewer words than one window for each stream.
class TextDataset final : public Dataset {
 public:
  TextDataset(const std::filesystem::path& file, const TextOptions& options);

  std::int64_t size() const override { return n_windows_ * options_.streams; }
  const Shape& sample_shape() const override { return sample_shape_; }
  const Shape& label_shape() const override { return sample_shape_; }
  std::int64_t n_classes() const override { return options_.vocabulary; }
  Features features() const override { return Features::ids; }
  std::int64_t streams() const override { return options_.streams; }
  std::int64_t n_bytes() const override {
    return n_words() * static_cast<std::int64_t>(sizeof(std::int32_t));
  }
  void fill(std::span<const std::int64_t> indices, const TensorView& x, const TensorView& y) const override;
  Digest content() const override;
  Digest vocabulary_digest() const override;
  std::string schema() const override;  // for vocabulary_from_schema()

  std::int64_t n_words() const { return static_cast<std::int64_t>(ids_.size()); }
  const std::vector<std::string>& vocabulary() const { return vocabulary_; }  // by id; [0] is "<unk>"

 private:
  TextOptions options_;
  Shape sample_shape_;
  std::vector<std::string> vocabulary_;
  std::vector<std::int32_t> ids_;
  std::int64_t stream_words_ = 0;
  std::int64_t n_windows_ = 0;
};

// The words of a text's ids, as its schema says them; bytes that are no UTF-8 are U+FFFD. Throws
// Error(data) for what is no schema of a text.
std::vector<std::string> vocabulary_from_schema(const std::string& schema);

}  // namespace varscope
