#include "launch/job/followed_data.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <thread>
#include <utility>

#include "common/base/error.h"
#include "common/config/utf8.h"
#include "launch/job/data_places.h"
#include "worker/data/find_files.h"
#include "worker/data/source_registry.h"

namespace varscope {
namespace {

bool is_for_readers(const std::string& name) {
  return !name.starts_with('.') && !name.ends_with(".tmp") && name != kEndOfStream;
}

// Names go into lines of text and JSON.
void check_name(const std::string& directory, const std::string& name) {
  const auto is_control = [](unsigned char c) { return c < 0x20 || c == 0x7f; };
  if (is_utf8(name) && std::ranges::none_of(name, is_control)) return;
  std::string shown;
  for (const unsigned char c : name)
    shown += c < 0x20 || c >= 0x7f ? fmt::format("\\x{:02x}", c) : std::string(1, static_cast<char>(c));
  fail(
      ErrorKind::data,
      "data.train: follow: {} has a file whose name is no UTF-8, or has control characters: \"{}\"; rename it",
      directory, shown);
}

FollowedListing list_once(const std::string& directory) {
  FollowedListing listing;
  std::error_code error;
  for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end;
       it.increment(error)) {
    std::string name = it->path().filename().string();
    std::error_code ignored;
    if (!it->is_regular_file(ignored)) continue;
    if (name == kEndOfStream) listing.has_end = true;
    if (!is_for_readers(name)) continue;
    check_name(directory, name);
    listing.files.push_back(std::move(name));
  }
  if (error)
    fail(ErrorKind::data, "data.train: follow: {} cannot be listed: {}; create it, or name another directory",
         directory, error.message());
  std::ranges::sort(listing.files);
  return listing;
}

// Its own type of data set: there are no samples, and all else is as in the run that the model is of.
class DescribedData final : public Dataset {
 public:
  explicit DescribedData(const SavedModel& model)
      : facts_(model.facts), schema_(model.schema), class_names_(model.class_names) {}

  std::int64_t size() const override { return 0; }
  const Shape& sample_shape() const override { return facts_.sample_shape; }
  std::int64_t n_classes() const override { return facts_.n_classes; }
  Target target() const override { return facts_.target; }
  Features features() const override { return facts_.features; }
  std::vector<InputSpec> inputs() const override { return facts_.inputs(); }
  const Shape& label_shape() const override { return facts_.label_shape; }
  std::string schema() const override { return schema_; }
  std::vector<std::string> class_names() const override { return class_names_; }
  bool knows_classes() const override { return facts_.exact_classes; }
  std::span<const double> weights() const override {
    return facts_.has_weights ? std::span<const double>(kWeight) : std::span<const double>();
  }
  void read(std::span<const std::int64_t>, const BatchView&) const override {
    fail(ErrorKind::argument, "a saved model has no samples");
  }
  Digest content() const override { return {}; }

 private:
  static constexpr std::array<double, 1> kWeight{1};  // samples have weights
  DataFacts facts_;
  std::string schema_;
  std::vector<std::string> class_names_;
};

}  // namespace

// A file that came before END may be missed by a listing that was under way when it came; not by the next.
FollowedListing list_followed(const std::string& directory) {
  FollowedListing listing = list_once(directory);
  if (listing.has_end) listing = list_once(directory);
  return listing;
}

bool is_gone(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::status(path, ignored).type() == std::filesystem::file_type::not_found;
}

std::string followed_directory(const JobConfig& job) {
  const DataSourceConfig found = find_files(job.data.train, data_folders(job), MissingFile::stays);
  const std::string path = follow_of(found)->path();
  std::error_code ignored;
  if (std::filesystem::path(path).is_absolute() && std::filesystem::is_directory(path, ignored)) return path;
  std::string places;
  for (const std::filesystem::path& folder : data_folders(job))
    places += (places.empty() ? "" : " and ") + (folder / path).lexically_normal().string();
  const ConfigNode* node = job.root.find_path("data.train.follow");
  throw Error(
      ErrorKind::data,
      fmt::format("{}data.train.follow: {}: no such directory{}; create it: `varscope ingest` or another "
                  "program then puts files there",
                  node == nullptr ? "" : position_of(node->mark, job.file), path,
                  std::filesystem::path(path).is_absolute() ? "" : ". It was searched as " + places));
}

std::unique_ptr<Dataset> open_followed(const JobConfig& job, const std::string& path,
                                       const std::string& schema) {
  if (is_gone(path)) {
    fail(ErrorKind::data,
         "data.train: {} is gone, and not learnt: files of a directory that is followed must stay until a "
         "checkpoint has learnt them (consumed: delete removes them then); put it back and go on",
         path);
  }
  DataSourceConfig source = with_files(job.data.train, {path});
  // The stream as a whole has a share of bad records, not one of its files, which may be small.
  if (auto* csv = source.get<CsvSource>()) csv->max_bad_share = 1;
  if (auto* libsvm = source.get<LibsvmSource>()) libsvm->max_bad_share = 1;
  return at_source(job, "data.train", [&] {
    auto data = open_source(
        source,
        {.root = data_root(), .schema = schema, .config_folder = config_folder(job), .may_be_empty = true});
    if (data == nullptr || data->size() > 0) return data;
    if (data->left_out().n > 0)
      fail(ErrorKind::data, "{}: all of its {} records are bad; the first: {}", path, data->left_out().n,
           data->left_out().first.front());
    data.reset();
    return data;
  });
}

std::unique_ptr<Dataset> open_first_followed(const JobConfig& job) {
  const std::string directory = followed_directory(job);
  for (const std::string& name : list_followed(directory).files) {
    if (auto data = open_followed(job, directory + "/" + name, "")) return data;
  }
  return at_source(job, "data.train", [&]() -> std::unique_ptr<Dataset> {
    fail(
        ErrorKind::data,
        "follow: {} has no file with records yet; `varscope train` waits for one, and `varscope ingest` brings "
        "them there",
        directory);
  });
}

std::optional<std::string> wait_for_first_file(const JobConfig& job, RunRequests& requests,
                                               const std::function<void(const std::string&)>& tell) {
  const std::string directory = followed_directory(job);
  std::string passed;  // up to here no file has samples
  bool has_told = false;
  while (true) {
    const FollowedListing listing = list_followed(directory);
    for (const std::string& name : listing.files) {
      if (name <= passed) continue;
      std::string path = directory + "/" + name;
      if (is_gone(path)) continue;
      if (open_followed(job, path, "") != nullptr) return path;
      passed = name;
    }
    if (listing.has_end)
      fail(ErrorKind::data, "data.train: follow: {} holds END but no records: there is nothing to learn from",
           directory);
    if (!std::exchange(has_told, true))
      tell(fmt::format("waits for the first file in {}, which says what the columns are", directory));
    if ((requests.take() & kRequestStop) != 0) return std::nullopt;
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

std::unique_ptr<Dataset> described_data(const SavedModel& model) {
  return std::make_unique<DescribedData>(model);
}

}  // namespace varscope
