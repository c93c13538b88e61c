#include "checkpoint/restore/verify_once.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <optional>

#include "checkpoint/directory/scan.h"
#include "common/base/error.h"

namespace varscope {
namespace {

// What the manifest says of pieces in each of its files.
std::vector<std::set<std::string>> pieces_by_file(const Manifest& m) {
  std::vector<std::set<std::string>> all(m.files.size());
  for (const RowPartRecord& r : m.row_parts) {
    for (const RowPiece& p : r.pieces) {
      all[p.file].insert(fmt::format("{} {} {} {} {} {} {}/{}", p.begin, p.end, p.digest.hex(), p.n_rows,
                                     p.n_waiting, p.n_removed, r.part, r.variable));
    }
  }
  return all;
}

bool is_same_file(const FileRecord& a, const FileRecord& b) {
  return a.size == b.size && a.crc_block_bytes == b.crc_block_bytes && a.crc32c == b.crc32c &&
         a.digest == b.digest;
}

std::string same_file_text(const std::string& name, const std::string& other) {
  return fmt::format("{} is the same file as {}, which is damaged{}", name, other, writer_text(name));
}

}  // namespace

std::vector<std::string> VerifyOnce::operator()(Fs& fs, const std::string& path, const Manifest& manifest) {
  std::vector<std::set<std::string>> pieces = pieces_by_file(manifest);
  std::vector<std::string> problems;
  for (std::uint32_t i = 0; i < manifest.files.size(); ++i)
    std::ranges::move(verify(fs, path, manifest, i, std::move(pieces[i])), std::back_inserter(problems));
  return problems;
}

std::vector<std::string> VerifyOnce::verify(Fs& fs, const std::string& path, const Manifest& manifest,
                                            std::uint32_t file, std::set<std::string> pieces) {
  const FileRecord& record = manifest.files[file];
  const std::string file_path = join_path(path, record.name);
  const std::optional<FileIdentity> id = fs.identify(file_path);
  if (!id || id->n_names < 2) return verify_file(fs, path, manifest, file);
  const auto known = seen_.find(id->key());
  if (known != seen_.end() && is_same_file(known->second.record, record) &&
      std::ranges::includes(known->second.pieces, pieces)) {
    if (known->second.problems.empty()) return {};
    return {same_file_text(record.name, known->second.path)};
  }
  std::vector<std::string> problems = verify_file(fs, path, manifest, file);
  seen_.insert_or_assign(id->key(), Seen{file_path, record, std::move(pieces), problems});
  return problems;
}

std::string DamagedFiles::problem(Fs& fs, const std::string& path, const Manifest& manifest) const {
  if (damaged_.empty()) return "";
  for (const FileRecord& f : manifest.files) {
    const std::optional<FileIdentity> id = fs.identify(join_path(path, f.name));
    const auto found = id ? damaged_.find(id->key()) : damaged_.end();
    if (found != damaged_.end()) return same_file_text(f.name, found->second);
  }
  return "";
}

void DamagedFiles::add(Fs& fs, const std::string& path, const Manifest& manifest,
                       const std::vector<std::string>& problems) {
  for (const FileRecord& f : manifest.files) {
    const bool is_named = std::ranges::any_of(
        problems, [&](const std::string& p) { return p.starts_with(f.name + " is damaged"); });
    if (!is_named) continue;
    const std::string file = join_path(path, f.name);
    if (const std::optional<FileIdentity> id = fs.identify(file); id && id->n_names > 1)
      damaged_.emplace(id->key(), file);
  }
}

}  // namespace varscope
