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

constexpr const char* kScaleDoc =
    "what numbers are multiplied by: a number, or a fraction such as 1/255. Without it images of bytes (uint8 "
    "[n, h, w] and [n, h, w, c] with 1 to 4 channels) are divided by 255, and all else is as it is";

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
  keys.required_key("images", images, "IDX file with the images, or with rows of numbers of any type",
                    {.is_path = true, .not_empty = true});
  keys.required_key("labels", labels, "IDX file with the labels", {.is_path = true, .not_empty = true});
  describe_samples(keys, samples, "use the first n samples. 0 means all of the files");
  describe_classes(keys, classes);
  keys.key("scale", scale, kScaleDoc, {.type_name = "a number or a fraction"});
  keys.key(
      "label_type", label_type,
      "class: one of a few. number: what is to be estimated, for mean_squared_error and the like. Without "
      "it class; in data.test that of data.train",
      {.type_name = "one of class, number"});
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

void SyntheticSource::describe(Keys& keys) {
  constexpr const char* kDrawn = "friedman1, colour_shapes";
  keys.selector(
      "generate", generate, kGenerators,
      "friedman1: ten numbers and one that follows from five of them, for regression. colour_shapes: "
      "colour images of a disc, a square or a cross, in nine classes. ctr: ids of many words, and whether "
      "they are clicked on, for tables");
  describe_samples(keys, samples, "how many; 0 means 10000 in data.train and 2000 in data.test");
  keys.key(
      "noise", noise,
      "friedman1: the standard deviation of the noise in what is to be estimated, and the least possible "
      "rmse. colour_shapes: how much noise the images have, up to 1",
      {.min = 0, .only_for = kDrawn});
  keys.key("size", size, "of images: their side",
           {.unit = "pixels", .min = 8, .max = 64, .only_for = kDrawn});
  keys.key("seed", seed, "seed of the generator", {.min = 0});
  keys.key("features", features, "ids of a sample, each of a field of its own",
           {.min = 1, .max = 1024, .only_for = "ctr"});
  keys.key("vocabulary", vocabulary, "different ids of a field",
           {.unit = "ids", .min = 1, .max = 1LL << 40, .only_for = "ctr"});
  keys.key(
      "exponent", exponent,
      "of Zipf's law: the k-th most frequent id of a field has a share of about k^-exponent; 0: all alike",
      {.min = 0, .max = 10, .only_for = "ctr"});
  keys.key("numbers", numbers, "numbers of a sample, in an input of their own; 0: no such input",
           {.min = 0, .max = 1024, .only_for = "ctr"});
}

void SyntheticSource::resolve(DataSplit position) {
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

void SkipgramSource::describe(Keys& keys) {
  keys.required_key("file", file, "text file, plain or gzip; words are split at white space",
                    {.is_path = true, .not_empty = true});
  describe_split(keys, split);
  keys.key(
      "vocabulary", vocabulary,
      "at most so many words, the most frequent ones of the training part; others are taken out of the text",
      {.unit = "words", .min = 2, .max = 1 << 24});
  keys.key("min_count", min_count, "words that occur less often are taken out, too", {.min = 1, .max = 1e12});
  keys.key("window", window, "each word's window has 1 to so many words to each side",
           {.unit = "words", .min = 1, .max = 255});
  keys.key("negatives", negatives,
           "words that are drawn for each pair, by their frequency to the power of 3/4",
           {.unit = "words", .min = 1, .max = 1024});
  keys.key(
      "subsample", subsample,
      "t: of a word with frequency f a share of sqrt(t / f) is kept, and of rarer words than t all. 0: all",
      {.min = 0, .max = 1});
  keys.key("test_fraction", test_fraction,
           "part of the words, at the end of the file, that is not trained on", {.min = 0, .below = 1});
  keys.key("words", words, "use the first n words of the part; 0 means all",
           {.unit = "words", .min = 0, .max = kMostSamples});
  keys.key("seed", seed, "seed of what is drawn", {.min = 0});
}

namespace {

constexpr Rule kFilesRule = {.type_name = "a text or a list of texts", .is_path = true};

void describe_part(Keys& keys, double& from, double& to) {
  keys.key("from", from, "where the part of the records that is read begins, of 1", {.min = 0, .below = 1});
  keys.key("to", to, "where it ends, of 1: to: 0.8 and in data.test from: 0.8 split a table by position",
           {.max = 1, .above = 0});
}

void describe_label_type(Keys& keys, const char* name, LabelType& type) {
  keys.choice(
      name, type, kLabelTypes,
      "class: one of a few words or numbers. number: what is to be estimated, for mean_squared_error and the like");
}

void describe_bad_records(Keys& keys, const char* what, BadRecords& bad_records, double& max_bad_share) {
  keys.choice(
      "bad_records", bad_records, kBadRecords,
      fmt::format(
          "what happens at a record with {}; skip: the first 100 are written to bad_records.txt in the "
          "run's directory",
          what));
  keys.key("max_bad_share", max_bad_share,
           "with bad_records: skip, more of them than this are an error all the same", {.min = 0, .max = 1});
}

}  // namespace

void TableLabelKeys::describe(Keys& keys) {
  keys.key("column", column, "the column that says the answer: a name, or a number from 0 on");
  keys.key("columns", columns, "several of them, for type number: names, numbers, or ranges as \"a..f\"");
  describe_label_type(keys, "type", type);
  keys.key(
      "classes", classes,
      "the classes in the order of the model's outputs; none: those of data.train, sorted (numbers by value, "
      "words by bytes)");
}

void TableWeightKeys::describe(Keys& keys) {
  keys.required_key("column", column, "the column that says how often a row counts", {.not_empty = true});
}

void TableSchemaKeys::describe(Keys& keys) {
  keys.section("label", label, "what samples are answered with");
  keys.optional_section(
      "weight", weight,
      "how often each row counts, in the loss and in metrics; 0 is as if it were not there");
  keys.key(
      "features", features,
      "the named inputs: a map from a name to columns and what is made of them (docs/data.md). Without it all "
      "other columns are numbers, in one input x",
      {.type_name = "a map of inputs"});
}

void FollowKeys::describe(Keys& keys, bool has_columns) {
  keys.key(
      "follow", directory,
      "instead of files, in data.train: a directory whose files are learnt from as they come, each once, in "
      "the order of their names (docs/online.md). Files must appear there by rename; END ends the run",
      {.type_name = "a text", .is_path = true});
  keys.key(
      "late", late,
      "with follow: what becomes of a file whose name comes before that of one that was read: warn leaves "
      "it out, fail ends the run. Without it warn",
      {.type_name = "one of warn, fail"});
  keys.key(
      "consumed", consumed,
      "with follow: delete removes the files that the oldest kept checkpoint has learnt. Without it keep",
      {.type_name = "one of keep, delete"});
  if (has_columns)
    keys.key(
        "event_time", event_time,
        "with follow: the column that says when a record came into being, in seconds since 1970; the newest "
        "one is printed, and is among the metrics of checkpoints",
        {.type_name = "a text"});
}

void CsvSource::describe(Keys& keys) {
  keys.key("files", files, "files in CSV, plain or gzip; * and ? stand for parts of names, sorted",
           kFilesRule);
  follow.describe(keys, true);
  keys.key(
      "delimiter", delimiter,
      "what stands between two cells: one character, or tab; without it a comma, in data.test that of data.train");
  keys.key(
      "header", header,
      "true: the first line of each file names the columns; false: none does; or the names. Without it true, in "
      "data.test that of data.train",
      {.type_name = "true, false or a list of names"});
  describe_part(keys, from, to);
  keys.optional_section(
      "schema", schema,
      "how columns become samples; required in data.train, and that of data.train in data.test");
  describe_bad_records(keys, "the wrong number of cells, a bad number or an unknown class", bad_records,
                       max_bad_share);
}

void CsvSource::resolve(DataSplit position) {
  if (position == DataSplit::test) return;
  if (delimiter.empty()) delimiter = ",";
  if (header.is_null()) header = ConfigNode::plain("true");
}

void LibsvmSource::describe(Keys& keys) {
  keys.key("files", files, "files of lines `label index:value ...`, plain or gzip", kFilesRule);
  follow.describe(keys, false);
  keys.key("base", base, "the least index: 0 or 1", {.min = 0, .max = 1});
  keys.key("features", features, "how many; 0 means up to the greatest index of data.train",
           {.min = 0, .max = 1 << 24});
  describe_label_type(keys, "label", label);
  keys.key("drop_unknown", drop_unknown,
           "leave out features beyond those of data.train; false: they are an error");
  keys.key(
      "bags", bags,
      "the input x of a row is the bag of its indices, counted from 0, with the values as weights; false: all "
      "features, 0 where the row says nothing");
  keys.key(
      "ids", ids,
      "with bags: the indices are ids of any 64 bits, for a layer with a table: int64 or uint64. Without it "
      "they are numbers from base on",
      {.type_name = "one of int64, uint64"});
  describe_bad_records(keys, "what is no index:value, indices that do not rise or an unknown class",
                       bad_records, max_bad_share);
  keys.key(
      "weights", weights,
      "files with one number a line, how often each row counts, in the loss and in metrics; 0 is as if it "
      "were not there",
      {.type_name = "a text or a list of texts", .is_path = true});
}

namespace {
void describe_array_classes(Keys& keys, std::int64_t& classes) {
  keys.key(
      "classes", classes,
      "labels are 0 to classes - 1, whether all of them occur or not; any other label is an error. 0 means "
      "as many as the labels of data.train show, and the model may have more outputs",
      {.unit = "classes", .min = 0, .max = 1 << 24});
}
}  // namespace

void ArrayRules::describe(Keys& keys) {
  keys.key("scale", scale, kScaleDoc, {.type_name = "a number, a fraction, or a map from inputs to them"});
  keys.key("ids", ids, "the inputs that are ids, for embeddings: integers from 0 on");
  keys.key("row_ids", row_ids,
           "the inputs that are ids of any 64 bits, for a layer with a table: {user: uint64, item: int64}",
           {.type_name = "a map from inputs to int64 or uint64"});
  describe_label_type(keys, "label_type", label_type);
  describe_array_classes(keys, classes);
}

void NpySource::describe(Keys& keys) {
  keys.required_key(
      "inputs", inputs,
      "the samples, one a row: a file of NumPy (.npy), or a map from an input's name to its file",
      {.type_name = "a text or a map of texts", .is_path = true});
  keys.required_key("labels", labels, "file with what each row is answered with: [n], or numbers [n, k]",
                    {.is_path = true, .not_empty = true});
  rules.describe(keys);
  describe_part(keys, from, to);
}

void NpzSource::describe(Keys& keys) {
  keys.required_key("file", file, "archive of NumPy (.npz), compressed or not",
                    {.is_path = true, .not_empty = true});
  keys.key(
      "inputs", inputs,
      "the arrays of samples, one a row: a name, a list of names, or a map from an input's name to an array. "
      "None: all arrays but the labels, or in data.test those of data.train",
      {.type_name = "a text, a list or a map of texts"});
  keys.key("labels", labels, "the array of what each row is answered with: [n], or numbers [n, k]",
           {.not_empty = true});
  rules.describe(keys);
  describe_part(keys, from, to);
}

void TfrecordSource::describe(Keys& keys) {
  keys.key("files", files,
           "TFRecord files of tf.train.Example, plain or gzip; * and ? stand for parts of names, sorted",
           kFilesRule);
  follow.describe(keys, false);
  keys.key(
      "features", features,
      "the named inputs: a map from a name to a feature and how it is read (docs/data.md). Without it all "
      "features but the label, of the lengths that they have in the first record",
      {.type_name = "a map of inputs"});
  keys.key("label", label, "the feature that says the answer: one class, or one number or several",
           {.not_empty = true});
  describe_label_type(keys, "label_type", label_type);
  describe_array_classes(keys, classes);
  describe_part(keys, from, to);
}

namespace {

// f(files, follow) of the types that have a list of files; else nothing happens.
template <class Source, class F>
void visit_files(Source& source, const F& f) {
  if (auto* csv = source.template get<CsvSource>()) f(csv->files, csv->follow);
  if (auto* libsvm = source.template get<LibsvmSource>()) f(libsvm->files, libsvm->follow);
  if (auto* records = source.template get<TfrecordSource>()) f(records->files, records->follow);
}

}  // namespace

const FollowKeys* follow_of(const DataSourceConfig& source) {
  const FollowKeys* found = nullptr;
  visit_files(source, [&](const ConfigNode&, const FollowKeys& follow) {
    if (follow.is_on()) found = &follow;
  });
  return found;
}

namespace {

// The pattern that matches this name alone (glob(7)).
std::string as_pattern(const std::string& name) {
  if (name.find_first_of("*?[") == std::string::npos) return name;
  std::string pattern;
  for (const char c : name) {
    if (c == '*' || c == '?' || c == '[' || c == '\\') pattern += '\\';
    pattern += c;
  }
  return pattern;
}

}  // namespace

DataSourceConfig with_files(DataSourceConfig source, const std::vector<std::string>& names) {
  visit_files(source, [&](ConfigNode& files, FollowKeys& follow) {
    files = ConfigNode::list();
    for (const std::string& name : names) files.items.push_back(ConfigNode::text(as_pattern(name)));
    follow = {};
  });
  return source;
}

std::vector<SourceKeyType> built_in_source_keys() {
  return {
      source_key_type<IdxSource>("idx", "images and labels in IDX files, gzip or plain"),
      source_key_type<FashionMnistSource>("fashion_mnist", "the folder of Fashion-MNIST"),
      source_key_type<DigitsSource>("digits", "generated images of digits: no files"),
      source_key_type<SyntheticSource>("synthetic", "generated tables, colour images and clicks: no files"),
      source_key_type<CsvSource>("csv", "tables of numbers and words: comma or tab separated text"),
      source_key_type<LibsvmSource>("libsvm", "rows of label index:value ..."),
      source_key_type<NpySource>("npy", "arrays of numbers in files of NumPy, one for each input"),
      source_key_type<NpzSource>("npz", "arrays of numbers in an archive of NumPy"),
      source_key_type<TfrecordSource>("tfrecord", "tf.train.Example in TFRecord files"),
      source_key_type<TextSource>("text", "the words of a text, side by side in sequences"),
      source_key_type<SkipgramSource>("skipgram", "pairs of words that stand near each other in a text")};
}

}  // namespace varscope
