// The keys of the built-in data sources: names, defaults, rules, meaning.
#include "common/config/source_keys.h"

namespace varscope {
namespace {

constexpr double kMostSamples = 1e12;
constexpr std::int64_t kTrainDigits = 10000;
constexpr std::int64_t kTestDigits = 2000;

void describe_classes(Keys& keys, std::int64_t& classes) {
  keys.key("classes", classes,
           "labels are 0 to classes - 1, whether all of them occur or not; any other label is an error. 0 "
           "means as many as the labels show, and the model may have more outputs",
           {.unit = "classes", .min = 0, .max = 256});
}

void describe_samples(Keys& keys, std::int64_t& samples, const char* doc) {
  keys.key("samples", samples, doc, {.unit = "samples", .min = 0, .max = kMostSamples});
}

void describe_split(Keys& keys, std::optional<DataSplit>& split) {
  keys.choice("split", split, kDataSplits,
              "which part to read; auto is train for data.train and test for data.test");
}

}  // namespace

void PairKeys::describe(Keys& keys) {
  keys.key(
      "pairs", pairs,
      "make pairs: each sample with another one; label 1 when both are of one class, else 0. Half of the pairs "
      "are of one class; where that has one sample only, it is paired with itself");
  keys.key("pair_seed", pair_seed, "seed of the choice of pairs", {.min = 0});
}

void IdxSource::describe(Keys& keys) {
  keys.required_key("images", images, "IDX file with the images", {.is_path = true, .not_empty = true});
  keys.required_key("labels", labels, "IDX file with the labels", {.is_path = true, .not_empty = true});
  describe_samples(keys, samples, "use the first n samples. 0 means all of the files");
  describe_classes(keys, classes);
  pairs.describe(keys);
}

void FashionMnistSource::describe(Keys& keys) {
  keys.key("folder", folder, "folder with the four files of Fashion-MNIST",
           {.is_path = true, .not_empty = true});
  describe_split(keys, split);
  describe_samples(keys, samples, "use the first n samples. 0 means all of the files");
  describe_classes(keys, classes);
  pairs.describe(keys);
}

void DigitsSource::describe(Keys& keys) {
  describe_samples(keys, samples, "how many; 0 means 10000 in data.train and 2000 in data.test");
  keys.key("noise", noise, "how much noise the generated images have", {.min = 0, .max = 1});
  keys.key("size", size, "side of the generated images", {.unit = "pixels", .min = 8, .max = 64});
  keys.key("seed", seed, "seed of the generator", {.min = 0});
  pairs.describe(keys);
}

void DigitsSource::resolve(DataSplit position) {
  if (samples == 0) samples = position == DataSplit::train ? kTrainDigits : kTestDigits;
}

void TextSource::describe(Keys& keys) {
  keys.required_key("file", file, "text file, plain or gzip; words are split at white space",
                    {.is_path = true, .not_empty = true});
  describe_split(keys, split);
  keys.key(
      "vocabulary", vocabulary,
      "vocabulary size: <unk> and the most frequent words of the training part; every other word is <unk>",
      {.unit = "words", .min = 2, .max = 1 << 24});
  keys.key("steps", steps, "words of a sample: back-propagation ends there",
           {.unit = "words", .min = 1, .max = 1 << 16});
  keys.key("test_fraction", test_fraction,
           "part of the words, at the end of the file, that is not trained on", {.min = 0, .below = 1});
  keys.key("words", words, "use the first n words of the part; 0 means all",
           {.unit = "words", .min = 0, .max = kMostSamples});
}

std::vector<SourceKeyType> built_in_source_keys() {
  return {source_key_type<IdxSource>("idx", "images and labels in IDX files, gzip or plain"),
          source_key_type<FashionMnistSource>("fashion_mnist", "the folder of Fashion-MNIST"),
          source_key_type<DigitsSource>("digits", "generated images of digits: no files"),
          source_key_type<TextSource>("text", "the words of a text, side by side in sequences")};
}

}  // namespace varscope
