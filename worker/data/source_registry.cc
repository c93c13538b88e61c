#include "worker/data/source_registry.h"

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "common/base/error.h"
#include "common/config/source_keys.h"
#include "worker/data/array_source.h"
#include "worker/data/click_data.h"
#include "worker/data/csv.h"
#include "worker/data/digits.h"
#include "worker/data/find_files.h"
#include "worker/data/idx.h"
#include "worker/data/pairs.h"
#include "worker/data/skipgram.h"
#include "worker/data/split.h"
#include "worker/data/synthetic.h"
#include "worker/data/text.h"
#include "worker/data/tfrecord.h"

namespace varscope {
namespace {

// Plain when only the unpacked file is there, else the name as it is downloaded.
std::filesystem::path packed_or_plain(const std::filesystem::path& plain) {
  const std::filesystem::path packed = plain.string() + ".gz";
  return std::filesystem::exists(plain) && !std::filesystem::exists(packed) ? plain : packed;
}

std::unique_ptr<Dataset> with_pairs(std::unique_ptr<Dataset> images, const PairKeys& keys) {
  if (!keys.pairs) return images;
  return std::make_unique<PairDataset>(std::move(images), static_cast<std::uint64_t>(keys.pair_seed));
}

// The model answers with the classes of the training data.
template <class S>
std::int64_t classes_of(const S& source, const SourceContext& context) {
  if (source.classes != 0 || context.train == nullptr) return source.classes;
  if (const auto* train = context.train->get<IdxSource>()) return train->classes;
  if (const auto* train = context.train->get<FashionMnistSource>()) return train->classes;
  return 0;
}

std::unique_ptr<Dataset> open_idx(const IdxSource& source, const SourceContext& context) {
  return with_pairs(open_idx_source(source, context, classes_of(source, context)), source.pairs);
}

std::unique_ptr<Dataset> open_fashion_mnist(const FashionMnistSource& source, const SourceContext& context) {
  const bool is_test = source.split.value_or(context.position) == DataSplit::test;
  const char* prefix = is_test ? "t10k" : "train";
  const std::filesystem::path folder = context.root / source.folder;
  return with_pairs(
      std::make_unique<IdxDataset>(packed_or_plain(folder / fmt::format("{}-images-idx3-ubyte", prefix)),
                                   packed_or_plain(folder / fmt::format("{}-labels-idx1-ubyte", prefix)),
                                   source.samples, classes_of(source, context)),
      source.pairs);
}

std::unique_ptr<Dataset> open_digits(const DigitsSource& source, const SourceContext& context) {
  DigitsOptions options;
  options.samples = source.samples > 0 ? source.samples : options.samples;
  options.size = source.size;
  options.noise = source.noise;
  options.seed = static_cast<std::uint64_t>(source.seed);
  return with_pairs(std::make_unique<DigitsDataset>(options, context.position), source.pairs);
}

std::unique_ptr<Dataset> open_synthetic(const SyntheticSource& source, const SourceContext& context) {
  SyntheticOptions options;
  options.samples = source.samples > 0 ? source.samples : options.samples;
  options.noise = source.noise;
  options.size = source.size;
  options.seed = static_cast<std::uint64_t>(source.seed);
  if (source.generate == Generator::friedman1)
    return std::make_unique<Friedman1Dataset>(options, context.position);
  if (source.generate == Generator::colour_shapes)
    return std::make_unique<ColourShapesDataset>(options, context.position);
  return std::make_unique<ClickDataset>(ClickOptions{.samples = options.samples,
                                                     .features = source.features,
                                                     .vocabulary = source.vocabulary,
                                                     .exponent = source.exponent,
                                                     .numbers = source.numbers,
                                                     .seed = options.seed},
                                        context.position);
}

std::unique_ptr<Dataset> open_text(const TextSource& source, const SourceContext& context) {
  TextOptions options;
  options.vocabulary = source.vocabulary;
  options.steps = source.steps;
  options.streams = context.streams;
  options.test_fraction = source.test_fraction;
  options.words = source.words;
  options.split = source.split.value_or(context.position);
  const auto* train = context.train == nullptr ? nullptr : context.train->get<TextSource>();
  if (train != nullptr && train->file != source.file) {
    options.split = std::nullopt;
    options.vocabulary_file = context.root / train->file;
    options.vocabulary_test_fraction = train->test_fraction;
  }
  return std::make_unique<TextDataset>(context.root / source.file, options);
}

std::unique_ptr<Dataset> open_skipgram(const SkipgramSource& source, const SourceContext& context) {
  SkipgramOptions options{.vocabulary = source.vocabulary,
                          .min_count = source.min_count,
                          .window = source.window,
                          .negatives = source.negatives,
                          .subsample = source.subsample,
                          .seed = static_cast<std::uint64_t>(source.seed),
                          .test_fraction = source.test_fraction,
                          .words = source.words,
                          .split = source.split.value_or(context.position)};
  const auto* train = context.train == nullptr ? nullptr : context.train->get<SkipgramSource>();
  if (train != nullptr && train->file != source.file) {
    options.split = std::nullopt;
    options.vocabulary_file = context.root / train->file;
    options.vocabulary_test_fraction = train->test_fraction;
  }
  return std::make_unique<SkipgramDataset>(context.root / source.file, options);
}

// Records are tested on records, and read by the keys of data.train.
void check_records(const DataSourceConfig& test, const DataSourceConfig& train) {
  const auto* of_test = test.get<TfrecordSource>();
  const auto* of_train = train.get<TfrecordSource>();
  TfrecordSource nothing_said, as_train = *of_train;
  for (TfrecordSource* s : {&nothing_said, &as_train}) {
    s->files = of_test->files;
    s->from = of_test->from;
    s->to = of_test->to;
  }
  if (*of_test != nothing_said && *of_test != as_train)
    fail(ErrorKind::config,
         "features, label, label_type and classes are those of data.train; remove them here");
}

const ArrayRules* array_rules(const DataSourceConfig& source) {
  if (const auto* npy = source.get<NpySource>()) return &npy->rules;
  if (const auto* npz = source.get<NpzSource>()) return &npz->rules;
  return nullptr;
}

// Arrays of either kind are tested on arrays of either kind, and read by the rules of data.train.
void check_arrays(const ArrayRules* test, const ArrayRules* train, const DataSourceConfig& of_train) {
  if (test == nullptr || train == nullptr) {
    fail(ErrorKind::config, "must be {}, as data.train: its arrays are read in the same way",
         train == nullptr ? "of type " + of_train.type() : "of type npy or npz");
  }
  if (*test != ArrayRules{} && *test != *train) {
    fail(ErrorKind::config, "scale, ids, label_type and classes are those of data.train; remove them here");
  }
}

struct Opener {
  std::string name;
  OpenSource open;
};

template <class S>
Opener opener(const char* name, std::unique_ptr<Dataset> (*open)(const S&, const SourceContext&)) {
  return {name, [open](const DataSourceConfig& source, const SourceContext& context) {
            return open(*source.get<S>(), context);
          }};
}

std::vector<Opener>& openers() {
  static std::vector<Opener> all = {
      opener("idx", open_idx),           opener("fashion_mnist", open_fashion_mnist),
      opener("digits", open_digits),     opener("synthetic", open_synthetic),
      opener("csv", open_csv),           opener("libsvm", open_libsvm),
      opener("npy", open_npy_source),    opener("npz", open_npz_source),
      opener("tfrecord", open_tfrecord), opener("text", open_text),
      opener("skipgram", open_skipgram)};
  return all;
}

std::vector<std::filesystem::path> folders_of(const SourceContext& context) {
  std::vector<std::filesystem::path> folders;
  if (!context.config_folder.empty()) folders.push_back(context.config_folder);
  folders.push_back(context.root);
  return folders;
}

}  // namespace

void add_source_type(SourceKeyType keys, OpenSource open) {
  Opener added{keys.name, std::move(open)};
  add_source_key_type(std::move(keys));
  openers().push_back(std::move(added));
}

namespace {

bool makes_pairs(const DataSourceConfig& source) {
  if (const auto* s = source.get<DigitsSource>()) return s->pairs.pairs;
  if (const auto* s = source.get<IdxSource>()) return s->pairs.pairs;
  if (const auto* s = source.get<FashionMnistSource>()) return s->pairs.pairs;
  return false;
}

void check_can_be_split(const DataSourceConfig& source) {
  if (source.get<TextSource>() != nullptr || source.get<SkipgramSource>() != nullptr)
    fail(ErrorKind::config,
         "data.split is for samples that stand alone; a text is parted by test_fraction, and "
         "data.test with the same file");
  if (makes_pairs(source))
    fail(ErrorKind::config,
         "data.split would leave images of pairs in both parts; name another source in data.test");
}

// All of a source that does not know parts itself, and then those samples.
std::unique_ptr<Dataset> open_part(const DataSourceConfig& source, const SourceContext& context,
                                   const OpenSource& open) {
  SourceContext of_all = context;
  of_all.split.reset();
  of_all.position = DataSplit::train;
  of_all.train = nullptr;
  auto all = open(source, of_all);
  const std::int64_t n = all->size();
  return some_of(std::move(all), samples_of_part(*context.split, context.position, n));
}

}  // namespace

namespace {

std::vector<DataFile> read_data_files(const DataSourceConfig& source) {
  std::vector<DataFile> files;
  for (const std::filesystem::path& file : named_files(source)) files.push_back(read_data_file(file));
  return files;
}

}  // namespace

std::unique_ptr<Dataset> open_source(const DataSourceConfig& source, const SourceContext& context) {
  if (context.split) check_can_be_split(source);
  if (context.train != nullptr) check_test_source(source, *context.train);
  const std::vector<std::filesystem::path> folders = folders_of(context);
  // What a program's own source does without a file, it decides itself.
  const auto built_in = built_in_source_keys();
  const bool is_own = std::ranges::find(built_in, source.type(), &SourceKeyType::name) == built_in.end();
  const DataSourceConfig found =
      find_files(source, folders, is_own ? MissingFile::in_last_folder : MissingFile::is_error);
  SourceContext placed = context;
  placed.root.clear();  // the files have their folders now
  std::optional<DataSourceConfig> train;
  if (context.train != nullptr)
    placed.train = &train.emplace(find_files(*context.train, folders, MissingFile::in_last_folder));
  for (const Opener& o : openers()) {
    if (o.name != source.type()) continue;
    // A table parts itself: its constants are those of the part that is trained on.
    auto data = context.split && !is_table(source) ? open_part(found, placed, o.open) : o.open(found, placed);
    if (data != nullptr && data->files().empty()) data->set_files(read_data_files(found));
    return data;
  }
  fail(ErrorKind::config, "data sources of type {} cannot be opened: give add_source_type its function",
       source.type());
}

void check_source(const DataSourceConfig& source, const DataSourceConfig* train) {
  if (const auto* csv = source.get<CsvSource>()) check_csv(*csv, train);
  if (const auto* libsvm = source.get<LibsvmSource>()) check_libsvm(*libsvm);
}

namespace {

// Of the same vocabulary and shapes as data.train, and of none of its words.
void check_skipgram(const SkipgramSource& test, const DataSourceConfig& of_train) {
  const auto* train = of_train.get<SkipgramSource>();
  if (train == nullptr || train->vocabulary != test.vocabulary || train->min_count != test.min_count ||
      train->negatives != test.negatives) {
    fail(ErrorKind::config,
         "vocabulary, min_count and negatives must be those of data.train, another skipgram");
  }
  if (train->file == test.file && train->test_fraction != test.test_fraction) {
    fail(ErrorKind::config,
         "test_fraction is {}, but {} for the same file in data.train: words would be trained on and tested",
         test.test_fraction, train->test_fraction);
  }
}

}  // namespace

void check_test_source(const DataSourceConfig& test, const DataSourceConfig& train) {
  const ArrayRules* of_arrays = array_rules(test);
  if (of_arrays != nullptr || array_rules(train) != nullptr)
    return check_arrays(of_arrays, array_rules(train), train);
  if ((needs_schema(test) || needs_schema(train)) && test.type() != train.type())
    fail(ErrorKind::config, "must be of type {}, as data.train: its columns are read in the same way",
         train.type());
  if (test.get<TfrecordSource>() != nullptr) return check_records(test, train);
  if (const auto* pairs = test.get<SkipgramSource>()) return check_skipgram(*pairs, train);
  const auto* of_test = test.get<TextSource>();
  if (of_test == nullptr) return;
  const auto* of_train = train.get<TextSource>();
  if (of_train == nullptr || of_train->vocabulary != of_test->vocabulary || of_train->steps != of_test->steps)
    fail(ErrorKind::config, "vocabulary and steps must be those of data.train, another text");
  if (of_train->file == of_test->file && of_train->test_fraction != of_test->test_fraction) {
    fail(ErrorKind::config,
         "test_fraction is {}, but {} for the same file in data.train: words would be trained on and tested",
         of_test->test_fraction, of_train->test_fraction);
  }
}

bool needs_schema(const DataSourceConfig& test) {
  return is_table(test) || test.get<TfrecordSource>() != nullptr || array_rules(test) != nullptr;
}

bool is_table(const DataSourceConfig& source) {
  return source.get<CsvSource>() != nullptr || source.get<LibsvmSource>() != nullptr;
}

std::filesystem::path data_root() {
  const char* folder = std::getenv("VARSCOPE_DATA");
  return folder != nullptr && *folder != '\0' ? folder : "data";
}

}  // namespace varscope
