#include "worker/data/dataset_factory.h"

#include <cstdlib>

#include "worker/data/digits.h"
#include "worker/data/idx.h"
#include "worker/data/pairs.h"
#include "worker/data/text.h"

namespace varscope {
namespace {

// Plain when only the unpacked file is there, else the name as it is downloaded.
std::filesystem::path packed_or_plain(const std::filesystem::path& plain) {
  const std::filesystem::path packed = plain.string() + ".gz";
  return std::filesystem::exists(plain) && !std::filesystem::exists(packed) ? plain : packed;
}

std::unique_ptr<Dataset> make_images(const DataSourceConfig& source, DataSplit split,
                                     const std::filesystem::path& root, std::int64_t classes) {
  switch (source.type) {
    case DataType::idx:
      return std::make_unique<IdxDataset>(root / source.images, root / source.labels, source.samples,
                                          classes);
    case DataType::fashion_mnist: {
      const char* prefix = split == DataSplit::test ? "t10k" : "train";
      const std::filesystem::path folder = root / source.folder;
      return std::make_unique<IdxDataset>(
          packed_or_plain(folder / fmt::format("{}-images-idx3-ubyte", prefix)),
          packed_or_plain(folder / fmt::format("{}-labels-idx1-ubyte", prefix)), source.samples, classes);
    }
    case DataType::digits: {
      DigitsOptions options;
      options.samples = source.samples > 0 ? source.samples : options.samples;
      options.size = source.size;
      options.noise = source.noise;
      options.seed = static_cast<std::uint64_t>(source.seed);
      return std::make_unique<DigitsDataset>(options, split);
    }
    case DataType::text:
      break;
  }
  fail(ErrorKind::config, "data set type {} does not exist", static_cast<int>(source.type));
}

std::unique_ptr<Dataset> make_text(const DataSourceConfig& source, DataSplit split,
                                   const std::filesystem::path& root, std::int64_t streams,
                                   const DataSourceConfig* train) {
  TextOptions options;
  options.vocabulary = source.vocabulary;
  options.steps = source.steps;
  options.streams = streams;
  options.test_fraction = source.test_fraction;
  options.words = source.words;
  options.split = split;
  if (train != nullptr) {
    check_test_source(source, *train);
    if (train->file != source.file) {
      options.split = std::nullopt;
      options.vocabulary_file = root / train->file;
      options.vocabulary_test_fraction = train->test_fraction;
    }
  }
  return std::make_unique<TextDataset>(root / source.file, options);
}

}  // namespace

void check_test_source(const DataSourceConfig& test, const DataSourceConfig& train) {
  if (test.type != DataType::text) return;
  if (train.type != DataType::text || train.vocabulary != test.vocabulary || train.steps != test.steps)
    fail(ErrorKind::config, "vocabulary and steps must be those of data.train, another text");
  if (train.file == test.file && train.test_fraction != test.test_fraction) {
    fail(ErrorKind::config,
         "test_fraction is {}, but {} for the same file in data.train: words would be trained on and tested",
         test.test_fraction, train.test_fraction);
  }
}

std::filesystem::path data_root() {
  const char* folder = std::getenv("VARSCOPE_DATA");
  return folder != nullptr && *folder != '\0' ? folder : "data";
}

std::unique_ptr<Dataset> make_dataset(const DataSourceConfig& source, DataSplit split, std::int64_t streams,
                                      const DataSourceConfig* train, const std::filesystem::path& root) {
  const DataSplit chosen = source.split.value_or(split);
  if (source.type == DataType::text) return make_text(source, chosen, root, streams, train);
  // The model answers with the classes of the training data.
  const std::int64_t classes = source.classes == 0 && train != nullptr ? train->classes : source.classes;
  auto images = make_images(source, chosen, root, classes);
  if (!source.pairs) return images;
  return std::make_unique<PairDataset>(std::move(images), static_cast<std::uint64_t>(source.pair_seed));
}

}  // namespace varscope
