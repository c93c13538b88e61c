#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "common/config/source_keys.h"
#include "worker/data/source_registry.h"

namespace varscope {

// The files that a source names: a text or a list of them, * and ? for parts of names, relative ones under
// the root. Those of one pattern are sorted by name. Throws Error(data) for one that matches nothing.
std::vector<std::filesystem::path> files_of(const ConfigNode& files, const std::filesystem::path& root);

// Opens a table of comma separated text (docs/data.md). Throws Error(data), with file:line:column, for what
// the keys do not let pass, Error(config) for keys that do not fit the table.
std::unique_ptr<Dataset> open_csv(const CsvSource& source, const SourceContext& context);

// Rows of `label index:value ...`: the format of LIBSVM [1], with comments behind # and qid, which is left
// out. One input x of all features, zeros where a row says nothing.
//
// [1] Chang, Lin: LIBSVM, a library for support vector machines, ACM TIST 2(3), 2011
std::unique_ptr<Dataset> open_libsvm(const LibsvmSource& source, const SourceContext& context);

}  // namespace varscope
