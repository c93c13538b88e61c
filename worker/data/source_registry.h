#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "common/config/data_source.h"
#include "worker/data/dataset.h"

namespace varscope {

// Where tables that are read from text are kept (data/table_cache.h).
struct CacheConfig {
  std::filesystem::path folder = {};  // empty: nowhere
  std::int64_t least_bytes = 0;       // of text, for which it is worth it
};

// What a source is opened with, besides its keys. Borrowed for the call.
struct SourceContext {
  DataSplit position = DataSplit::train;     // data.train or data.test; of a split: the part
  std::int64_t streams = 1;                  // of a text: how many sequences are read side by side
  const DataSourceConfig* train = nullptr;   // of data.test: data.train
  std::filesystem::path root;                // relative files and folders are under it
  bool may_lack_labels = false;              // of what is to be predicted
  std::optional<SplitConfig> split = {};     // the source is that of both parts
  std::string schema = {};                   // Dataset::schema() of the training data; empty: these are them
  std::filesystem::path config_folder = {};  // where files are searched before `root`; empty: nowhere else
  CacheConfig cache = {};
  bool may_be_empty = false;  // a table or records without samples: null, not an error
  std::function<void(const std::string&)> tell = {};  // gets a line at times, while much is read
};

using OpenSource = std::function<std::unique_ptr<Dataset>(const DataSourceConfig&, const SourceContext&)>;

// How sources of a type are opened, in this process; the built-in ones are there from the start. Before any
// config is read, from one thread. Throws Error(argument) if there is one of this name.
void add_source_type(SourceKeyType keys, OpenSource open);

// A program's own source: S are its keys (common/config/data_source.h). From then on `type: name` works as
// the built-in types do, in messages and --explain too.
//   struct SineSource {
//     std::int64_t samples = 100;
//     void describe(Keys& keys) { keys.key("samples", samples, "how many", {.min = 1}); }
//     bool operator==(const SineSource&) const = default;
//   };
//   add_source<SineSource>("sine", "points of a sine", [](const SineSource& keys, const SourceContext&) {
//     return std::make_unique<Sine>(keys.samples);
//   });
template <class S, class Open>
void add_source(std::string name, std::string summary, Open open) {
  add_source_type(source_key_type<S>(std::move(name), std::move(summary)),
                  [open = std::move(open)](const DataSourceConfig& source, const SourceContext& context)
                      -> std::unique_ptr<Dataset> { return open(*source.get<S>(), context); });
}

// Whether samples are rows of a table: Dataset::schema() is a TableSchema (table_schema.h).
bool is_table(const DataSourceConfig& source);

// Whether a data.test of this type is read with the schema of the training data.
bool needs_schema(const DataSourceConfig& test);

// Reads or draws a data set. Relative files and folders (Rule::is_path) are searched in
// context.config_folder, then in context.root. Throws Error(data), also for what a built-in source names
// and is in neither, or Error(config) for a test source that does not go with the source of data.train.
std::unique_ptr<Dataset> open_source(const DataSourceConfig& source, const SourceContext& context);

// What is wrong with the keys of a built-in source, whatever its files hold. `train`: of data.test,
// data.train; else null. Throws Error(config).
void check_source(const DataSourceConfig& source, const DataSourceConfig* train = nullptr);

// The folder in which data sets are searched: the environment's VARSCOPE_DATA, or "data".
std::filesystem::path data_root();

// Throws Error(config) for a test source that does not go with the source of data.train, as far as the two
// configs tell: a text of another vocabulary, or of other steps, or that would be tested on words that were
// trained on.
void check_test_source(const DataSourceConfig& test, const DataSourceConfig& train);

}  // namespace varscope
