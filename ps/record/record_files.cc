#include "ps/record/record_files.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "checkpoint/directory/scan.h"
#include "common/base/error.h"
#include "common/base/serialize.h"

namespace varscope {
namespace {

constexpr std::string_view kPrefix = "from-", kSuffix = ".events";
constexpr std::uint64_t kMostRecordBytes = std::uint64_t{1} << 28;

std::optional<Clock> step_of(std::string_view name) {
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  name.remove_suffix(kSuffix.size());
  std::int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc{} || end != name.data() + name.size() || step < 0) return std::nullopt;
  return Clock(step);
}

}  // namespace

std::string record_dir(const std::string& run_dir) { return join_path(run_dir, "record"); }
std::string tickets_dir(const std::string& run_dir) { return join_path(record_dir(run_dir), "tickets"); }
std::string events_dir(const std::string& run_dir, ServerId server) {
  return join_path(record_dir(run_dir), fmt::format("server-{:04}", server.value));
}

std::vector<Clock> list_segments(Fs& fs, const std::string& dir) {
  std::vector<Clock> steps;
  if (!fs.is_directory(dir)) return steps;
  for (const std::string& name : fs.list(dir)) {
    if (const auto step = step_of(name)) steps.push_back(*step);
  }
  std::ranges::sort(steps);
  return steps;
}

std::string segment_path(const std::string& dir, Clock from) {
  return join_path(dir, fmt::format("{}{:09}{}", kPrefix, from.value, kSuffix));
}

RecordHeader read_header(Fs& fs, const std::string& path) {
  return SegmentChain(fs, parent_path(path), step_of(base_name(path)).value_or(Clock(0))).header();
}

SegmentWriter::SegmentWriter(Parts parts, Clock first) : parts_(std::move(parts)), from_(first) {
  parts_.fs.make_dirs(parts_.dir);
  for (const Clock step : list_segments(parts_.fs, parts_.dir)) {
    if (step >= first) parts_.fs.remove_all(segment_path(parts_.dir, step));
  }
  open(first);
}

SegmentWriter::~SegmentWriter() { write(); }

// Runs what may fail for lack of room; then the record is over.
template <class F>
void SegmentWriter::guarded(const F& f) {
  if (file_ == nullptr) return;
  try {
    f();
  } catch (const Error& e) {
    file_.reset();
    if (!parts_.tell) return;
    parts_.tell(fmt::format(
        "the record of this run (cluster.record) ends here, and the run goes on without it: {}", e.what()));
  }
}

void SegmentWriter::open(Clock from) {
  from_ = from;
  parts_.header.from = from.value;
  file_ = parts_.fs.create_exclusive(segment_path(parts_.dir, from));
  std::string bytes;
  append_record(bytes, to_text(parts_.header));
  file_->write(std::as_bytes(std::span(bytes)));
}

void SegmentWriter::append(std::string_view record) {
  if (file_ != nullptr) append_record(pending_, record);
}

void SegmentWriter::write() {
  if (pending_.empty()) return;
  guarded([&] { file_->write(std::as_bytes(std::span(pending_))); });
  pending_.clear();
}

void SegmentWriter::begin(Clock from) {
  write();
  guarded([&] {
    file_->close();
    open(from);
    remove_old();
  });
}

// A segment is of use as long as the values it begins with, or older ones, are kept; the first one of a run,
// which needs none, as long as the checkpoint that it leads to. While that is being written there is none.
void SegmentWriter::remove_old() {
  if (parts_.checkpoint_dir.empty()) return;
  const std::vector<CheckpointName> kept = list_checkpoints(parts_.fs, parts_.checkpoint_dir);
  if (kept.empty()) return;
  const std::vector<Clock> steps = list_segments(parts_.fs, parts_.dir);
  for (std::size_t i = 0; i + 1 < steps.size(); ++i) {
    const Clock needed = steps[i].value == 0 ? steps[i + 1] : steps[i];
    if (needed.value < kept.back().step) parts_.fs.remove_all(segment_path(parts_.dir, steps[i]));
  }
}

SegmentChain::SegmentChain(Fs& fs, std::string dir, Clock from) : fs_(fs), dir_(std::move(dir)) {
  open(from);
}

void SegmentChain::open(Clock from) {
  const std::string path = segment_path(dir_, from);
  file_ = fs_.open(path);
  position_ = 0;
  const std::uint64_t size = file_->size();
  reader_.emplace(
      [this, size](std::span<std::byte> memory) {
        const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(memory.size(), size - position_));
        if (n > 0) file_->read_at(position_, memory.first(n));
        position_ += n;
        return n;
      },
      path, kMostRecordBytes);
  std::string text;
  if (!reader_->next(text)) fail(ErrorKind::data, "{} is empty", path);
  RecordHeader header = from_text<RecordHeader>(text, "the header of " + path);
  if (header.from != from.value)
    fail(ErrorKind::data, "{} is of step {}, as its header says", path, header.from);
  header_ = std::move(header);
}

bool SegmentChain::open_next() {
  const std::vector<Clock> steps = list_segments(fs_, dir_);
  const auto next = std::ranges::upper_bound(steps, from());
  if (next == steps.end()) return false;
  const std::string start = header_.start_id;
  open(*next);
  return header_.start_id == start;
}

bool SegmentChain::next(std::string& record) {
  if (is_over_) return false;
  try {
    while (!reader_->next(record)) {
      if (open_next()) continue;
      is_over_ = true;
      return false;
    }
    return true;
  } catch (const Error& e) {
    end(e.what());
    return false;
  }
}

void SegmentChain::end(std::string why) {
  is_over_ = true;
  why_ended_ = std::move(why);
}

}  // namespace varscope
