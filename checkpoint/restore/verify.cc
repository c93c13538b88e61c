#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <optional>

#include "checkpoint/directory/scan.h"
#include "checkpoint/format/row_file.h"
#include "checkpoint/format/shard.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/restore/verify_once.h"
#include "common/base/error.h"

namespace varscope {
namespace {

// What has a digest of its own in a file, and what else is to be looked at while its bytes come by.
struct Ranged {
  std::uint64_t begin = 0, end = 0;
  const Digest* digest = nullptr;
  const TensorRecord* tensor = nullptr;  // or
  const RowPartRecord* rows = nullptr;
  const RowPiece* piece = nullptr;  // of rows

  std::string name() const {
    if (rows != nullptr) return fmt::format("part {} of table \"{}\"", rows->part, rows->variable);
    return fmt::format("slice {} of variable \"{}\"{}", tensor->slice, tensor->variable,
                       tensor->slot.empty() ? "" : fmt::format(" slot \"{}\"", tensor->slot));
  }
};

// Checks one file in a single pass from front to back.
class FileVerifier {
 public:
  FileVerifier(const Manifest& manifest, std::uint32_t file)
      : manifest_(manifest), record_(manifest.files[file]) {
    for (const TensorRecord& t : manifest.tensors) {
      if (t.file == file) ranges_.push_back({t.begin, t.end, &t.digest, &t, nullptr, nullptr});
    }
    for (const RowPartRecord& r : manifest.row_parts) {
      for (const RowPiece& p : r.pieces) {
        if (p.file == file) ranges_.push_back({p.begin, p.end, &p.digest, nullptr, &r, &p});
      }
    }
    for (const TableRecord& t : manifest.tables) layouts_.emplace(t.variable, row_layout_of(manifest, t));
    std::ranges::sort(ranges_, {}, &Ranged::begin);
  }

  // Appends what is wrong. Throws Error(io) when the file cannot be read.
  void run(ReadFile& file, std::vector<std::string>& problems) {
    const std::size_t before = problems.size();
    std::vector<std::byte> piece(kPieceBytes);
    for (std::uint64_t begin = 0; begin < record_.size; begin += record_.crc_block_bytes) {
      const std::uint64_t end = std::min<std::uint64_t>(begin + record_.crc_block_bytes, record_.size);
      std::uint32_t crc = 0;
      std::vector<std::string> of_ranges;
      for (std::uint64_t at = begin; at < end; at += kPieceBytes) {
        const auto bytes =
            std::span(piece).first(static_cast<std::size_t>(std::min<std::uint64_t>(kPieceBytes, end - at)));
        file.read_at(at, bytes);
        crc = crc32c(bytes, crc);
        file_digest_.update(bytes);
        feed_ranges(at, bytes, of_ranges);
      }
      const std::uint64_t index = begin / record_.crc_block_bytes;
      if (crc != record_.crc32c[index]) {
        problems.push_back(
            fmt::format("{} is damaged: CRC block {} (from byte {}) has crc32c {:08x} instead of {:08x}",
                        record_.name, index, begin, crc, record_.crc32c[index]));
      }
      std::ranges::move(of_ranges, std::back_inserter(problems));
    }
    if (problems.size() == before && file_digest_.finish() != record_.digest) {
      problems.push_back(fmt::format("{} is damaged: its hash is not the manifest's", record_.name));
    }
  }

 private:
  // Small enough to stay in the second-level cache while it is hashed three times.
  static constexpr std::uint64_t kPieceBytes = 256 << 10;

  // Gives the tensors and parts their part of the piece; their byte ranges do not overlap.
  void feed_ranges(std::uint64_t begin, std::span<const std::byte> piece,
                   std::vector<std::string>& problems) {
    const std::uint64_t end = begin + piece.size();
    while (next_ < ranges_.size() && ranges_[next_].begin < end) {
      const Ranged& r = ranges_[next_];
      if (digester_ == nullptr) start(r);
      const std::uint64_t from = std::max(r.begin, begin), to = std::min(r.end, end);
      const auto bytes =
          piece.subspan(static_cast<std::size_t>(from - begin), static_cast<std::size_t>(to - from));
      digester_->update(bytes);
      if (rows_) rows_->add(bytes);
      if (r.end > end) return;
      end_of(r, problems);
      ++next_;
    }
  }

  void start(const Ranged& r) {
    digester_ = std::make_unique<Digester>();
    if (r.rows == nullptr) return;
    rows_.emplace(layouts_.at(r.rows->variable), find_table(manifest_, r.rows->variable)->spec, r.rows->part,
                  RowsCheck::Counts::of(*r.piece), is_whole(r) ? RowsCheck::Sum::yes : RowsCheck::Sum::no);
  }

  void end_of(const Ranged& r, std::vector<std::string>& problems) {
    if (digester_->finish() != *r.digest) {
      problems.push_back(
          fmt::format("{} is damaged: {} has another hash than the manifest", record_.name, r.name()));
    } else if (rows_) {
      std::string problem = rows_->problem();
      if (problem.empty() && is_whole(r)) problem = whole_problem(r);
      if (!problem.empty())
        problems.push_back(fmt::format("{} is damaged: {} {}", record_.name, r.name(), problem));
    }
    digester_.reset();
    rows_.reset();
  }

  // Whether the piece alone is what there is of its part. Of others, who merges them sees more.
  bool is_whole(const Ranged& r) const {
    const bool is_new = r.piece->step == manifest_.step;
    return r.rows->pieces.size() == 1 &&
           (is_new || find_table(manifest_, r.rows->variable)->spec.expire_steps == 0);
  }
  std::string whole_problem(const Ranged& r) const {
    if (r.piece->n_rows != r.rows->n_rows || r.piece->n_waiting != r.rows->n_waiting)
      return fmt::format("has {} rows and {} waiting ids instead of {} and {}", r.piece->n_rows,
                         r.piece->n_waiting, r.rows->n_rows, r.rows->n_waiting);
    return sum_problem(rows_->sum(), *r.rows);
  }

  const Manifest& manifest_;
  const FileRecord& record_;
  std::vector<Ranged> ranges_;
  std::map<std::string_view, RowLayout> layouts_;
  std::size_t next_ = 0;
  std::unique_ptr<Digester> digester_;  // of ranges_[next_]
  std::optional<RowsCheck> rows_;       // where that is a part of a table
  Digester file_digest_;
};

// "" or whose file it is, where that is not this checkpoint.
std::string owner_problem(Fs& fs, const std::string& path, const Manifest& manifest,
                          const std::string& name) {
  if (server_of_shard(name) >= 0) {
    const std::string id = checkpoint_id_of_shard(fs, path);
    return id.empty() || id == manifest.id
               ? ""
               : fmt::format("{} belongs to checkpoint {}, not to {}", name, id, manifest.id);
  }
  const std::optional<RowFileHeader> header =
      server_of_row_file(name) >= 0 ? read_row_file_header(fs, path) : std::nullopt;
  if (!header) return "";
  const std::int64_t linked_from = step_of_linked_file(name);
  if (linked_from < 0)
    return header->checkpoint_id == manifest.id ? ""
                                                : fmt::format("{} belongs to checkpoint {}, not to {}", name,
                                                              header->checkpoint_id, manifest.id);
  return header->step == linked_from ? ""
                                     : fmt::format("{} belongs to checkpoint {}, not to one of step {}", name,
                                                   header->checkpoint_id, linked_from);
}

void check_file(Fs& fs, const std::string& path, const Manifest& manifest, std::uint32_t index,
                std::vector<std::string>& problems) {
  const FileRecord& record = manifest.files[index];
  const std::string file_path = join_path(path, record.name);
  if (!fs.exists(file_path)) {
    problems.push_back(record.name + " is missing" + writer_text(record.name));
    return;
  }
  const auto file = fs.open(file_path);
  if (file->size() != record.size) {
    problems.push_back(fmt::format("{} has {} bytes instead of {}", record.name, file->size(), record.size));
  } else {
    FileVerifier(manifest, index).run(*file, problems);
  }
  if (problems.empty()) return;
  if (std::string problem = owner_problem(fs, file_path, manifest, record.name); !problem.empty())
    problems.push_back(std::move(problem));
  problems.back() += writer_text(record.name);
}

}  // namespace

std::vector<std::string> verify_file(Fs& fs, const std::string& path, const Manifest& manifest,
                                     std::uint32_t file) {
  std::vector<std::string> problems;
  try {
    check_file(fs, path, manifest, file, problems);
  } catch (const Error& e) {
    problems.push_back(e.what());
  }
  return problems;
}

std::vector<std::string> verify_files(Fs& fs, const std::string& path, const Manifest& manifest) {
  std::vector<std::string> problems;
  for (std::uint32_t i = 0; i < manifest.files.size(); ++i)
    std::ranges::move(verify_file(fs, path, manifest, i), std::back_inserter(problems));
  return problems;
}

Verification verify_whole(Fs& fs, const std::string& path, const VerifyFiles& verify) {
  try {
    Manifest manifest = load_manifest(fs, path).manifest;
    Verification v{verify(fs, path, manifest), {}};
    if (std::string name = name_problem(path, manifest); !name.empty()) v.problems.push_back(std::move(name));
    if (v.problems.empty()) v.manifest = std::move(manifest);
    return v;
  } catch (const Error& e) {
    return {{e.what()}, {}};
  }
}

std::vector<std::string> verify_checkpoint(Fs& fs, const std::string& path, const VerifyFiles& verify) {
  return verify_whole(fs, path, verify).problems;
}

FoundCheckpoint newest_checkpoint(Fs& fs, const std::string& dir, const VerifyFiles& verify) {
  const std::vector<CheckpointName> names = list_checkpoints(fs, dir);
  if (names.empty()) {
    fail(ErrorKind::checkpoint,
         "{} {}; name a checkpoint, or a directory of checkpoints that a run has written", dir,
         fs.exists(dir) ? "holds no checkpoint" : "does not exist");
  }
  FoundCheckpoint found;
  std::vector<std::string> bad;
  DamagedFiles damaged;
  for (const CheckpointName& name : names) {
    CheckpointEntry entry = look_at(fs, name);
    if (&name == &names.front()) {
      if (std::string problem = latest_problem(fs, dir, entry); !problem.empty())
        found.warnings.push_back(std::move(problem));
    }
    std::string reason = entry.reason;
    if (reason.empty()) reason = damaged.problem(fs, entry.path, *entry.manifest);
    if (reason.empty()) {
      const std::vector<std::string> problems = verify(fs, entry.path, *entry.manifest);
      damaged.add(fs, entry.path, *entry.manifest, problems);
      reason = fmt::format("{}", fmt::join(problems, "; "));
    }
    if (reason.empty()) {
      found.path = entry.path;
      found.manifest = std::move(entry.manifest);
      for (const std::string& b : bad)
        found.warnings.push_back(fmt::format("{}; falling back to {}", b, entry.name));
      return found;
    }
    bad.push_back(fmt::format("checkpoint {} cannot be used: {}", entry.name, reason));
  }
  fail(ErrorKind::checkpoint, "no checkpoint in {} can be used:\n  {}", dir, fmt::join(bad, "\n  "));
}

}  // namespace varscope
