#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "worker/data/source_registry.h"
#include "worker/data/table.h"

namespace varscope {

// What a text becomes: to be raised whenever the same files and keys give another table, so that what an
// older program has kept is not taken for it.
inline constexpr int kTableFormat = 1;

// A table, by what it is made of.
struct TableRequest {
  std::string keys;  // all that decides what the table is, but the bytes of its files
  std::vector<std::filesystem::path> files;
};

// Reads the text. Its rows go to new files of this folder, or into memory where it is empty.
using MakeTable = std::function<std::unique_ptr<TableDataset>(const std::filesystem::path& folder)>;

// The table, as it is kept in a folder of cache.folder of the digest of its keys, or as `make` gives it,
// which is then kept. Nothing is read twice, and memory does not grow with the rows.
// It is checked whole: a table that is damaged, or whose files have other bytes now, is made anew. One
// process makes it, under a lock (flock); others that want it wait. Where it cannot be kept, because of the
// disk or of rights, the text is read into memory, and the table says so among its warnings().
//
// Throws what `make` throws; Error(data) also for a file that changes while it is read.
std::unique_ptr<TableDataset> open_table(const TableRequest& request, const SourceContext& context,
                                         const MakeTable& make);

// TableRequest::keys of a source's keys and of what the context adds to them.
std::string table_keys(const char* type, const ConfigNode& source, const SourceContext& context);

// Of a user: $XDG_CACHE_HOME/varscope, or ~/.cache/varscope; empty without a home.
std::filesystem::path user_cache_folder();

// Tells a user at times how far the reading of files has come, through context.tell: first after some
// seconds. One thread.
class ReadingProgress {
 public:
  // Borrows the context.
  ReadingProgress(const SourceContext& context, const std::vector<std::filesystem::path>& files);
  // For each record: `n_bytes` of the file that is read are done. Cheap.
  void at(std::uint64_t n_bytes) {
    if ((++n_calls_ & 0xFFF) == 0) look(n_bytes);
  }
  void end_of_file() { ++file_; }

 private:
  void look(std::uint64_t n_bytes);
  const SourceContext& context_;
  std::vector<std::uint64_t> before_;  // bytes of the files before each one, and of all
  std::string name_;
  std::size_t file_ = 0;
  std::uint64_t n_calls_ = 0;
  std::int64_t begun_ns_, told_ns_;
};

}  // namespace varscope
