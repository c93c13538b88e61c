#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/config/source_keys.h"
#include "worker/data/source_registry.h"

namespace varscope {

// The files that a source names: a text or a list of them, * and ? for parts of names, relative ones under
// the root. Those of one pattern are sorted by name. Throws Error(data) for one that matches nothing.
std::vector<std::filesystem::path> files_of(const ConfigNode& files, const std::filesystem::path& root);

// What stands between two cells: one character, or "tab". Throws Error(config).
char delimiter_of(const std::string& text);

// What a table of data.test does not say is as in data.train; null: this is data.train.
CsvSource as_in_train(CsvSource source, const DataSourceConfig* train);

// What is wrong with the keys whatever the files hold. Throws Error(config). `train` as in as_in_train().
void check_csv(const CsvSource& source, const DataSourceConfig* train);

// Opens a table of comma separated text (docs/data.md). Throws Error(data), with file:line:column, for what
// the keys do not let pass, Error(config) for keys that do not fit the table.
std::unique_ptr<Dataset> open_csv(const CsvSource& source, const SourceContext& context);

// Rows of a file, some at a time: what is to be predicted. Not thread-safe.
class RowStream {
 public:
  RowStream() = default;
  RowStream(const RowStream&) = delete;
  RowStream& operator=(const RowStream&) = delete;
  virtual ~RowStream() = default;
  // The next rows, at most `most`; null behind the last one. `kept`: the cells of the columns `keep` of each
  // row, row after row. Throws Error(data) as opening does, Error(config) for a column that is not there.
  virtual std::unique_ptr<Dataset> next(std::int64_t most, std::span<const std::string> keep,
                                        std::vector<std::string>& kept) = 0;
  virtual std::int64_t n_left_out() const { return 0; }  // bad records, with bad_records: skip
};

// The same, in constant memory. REQUIRES a schema.
std::unique_ptr<RowStream> stream_csv(const CsvSource& source, const SourceContext& context);

// What is wrong with the keys of a libsvm source, whatever its files hold. Throws Error(config).
void check_libsvm(const LibsvmSource& source);

// Rows of `label index:value ...`: the format of LIBSVM [1], with comments behind # and qid, which is left
// out. One input x of all features, zeros where a row says nothing; or the bag of what it says.
//
// [1] Chang, Lin: LIBSVM, a library for support vector machines, ACM TIST 2(3), 2011
std::unique_ptr<Dataset> open_libsvm(const LibsvmSource& source, const SourceContext& context);

}  // namespace varscope
