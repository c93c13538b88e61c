#include "checkpoint/directory/link_rows.h"

#include <algorithm>
#include <utility>

#include "common/base/error.h"

namespace varscope {
namespace {

// The chains that go on, their pieces in files that are numbered anew; and these files' numbers before.
std::vector<std::size_t> choose(const SavedRowFiles& saved, const KeptPieces& n_kept, RowBase& base) {
  std::vector<std::size_t> files;
  for (const RowPartRecord& r : saved.report.parts) {
    const bool is_finite = std::ranges::find(saved.report.not_finite, r.variable,
                                             &NotFiniteTensor::variable) == saved.report.not_finite.end();
    const std::size_t n_pieces = is_finite ? std::min(n_kept(r), r.pieces.size()) : 0;
    if (n_pieces == 0) continue;
    RowPartRecord chain = r;
    chain.pieces.resize(n_pieces);
    const std::int64_t since = n_pieces == r.pieces.size() ? saved.step : chain.pieces.back().step;
    for (RowPiece& p : chain.pieces) {
      const auto found = std::ranges::find(files, std::size_t{p.file});
      const auto n = static_cast<std::uint32_t>(found - files.begin());
      if (found == files.end()) files.push_back(p.file);
      p.file = n;
    }
    base.chains.emplace(RowBase::Part{r.variable, r.part}, RowBase::Chain{std::move(chain), since});
  }
  return files;
}

std::string file_problem(Fs& fs, const std::string& path, std::uint64_t size) {
  if (!fs.exists(path)) return path + " is missing";
  const std::uint64_t there = fs.open(path)->size();
  return there == size ? "" : fmt::format("{} has {} bytes instead of {}", path, there, size);
}

}  // namespace

LinkedRowFiles link_row_files(Fs& fs, const SavedRowFiles& saved, const std::string& to,
                              const KeptPieces& n_kept) {
  RowBase base{saved.step, {}, {}};
  const std::vector<std::size_t> files = choose(saved, n_kept, base);
  LinkedRowFiles result;
  for (const std::size_t i : files) {
    FileRecord file = saved.report.files[i];
    const std::string from = join_path(saved.path, file.name);
    if (i == 0) file.name = linked_row_file_name(saved.server, saved.n_servers, saved.step);
    result.why_not = file_problem(fs, from, file.size);
    if (result.why_not.empty() && !fs.link(from, join_path(to, file.name))) {
      result.can_link = false;
      result.why_not = fmt::format("hard links to the files of {} cannot be made", saved.path);
    }
    if (!result.why_not.empty()) break;
    base.files.push_back(std::move(file));
  }
  if (result.why_not.empty()) {
    result.base = std::move(base);
    return result;
  }
  for (const FileRecord& file : base.files) fs.remove_all(join_path(to, file.name));
  return result;
}

}  // namespace varscope
