#include "ps/record/record_files.h"

#include <algorithm>
#include <charconv>
#include <tuple>
#include <utility>

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

// As far as a header's numbers may be believed before anything is computed with them.
void check_numbers(const RecordHeader& header, const std::string& path) {
  constexpr std::int64_t kMostSteps = std::int64_t{1} << 40, kMost = std::int64_t{1} << 20;
  const auto is_count = [](std::int64_t n) { return n >= 0 && n <= kMost; };
  if (header.from <= kMostSteps && is_count(header.servers) && is_count(header.workers) &&
      is_count(header.logical_workers))
    return;
  fail(ErrorKind::data, "the header of {} has numbers that make no sense: step {}, {} servers, {} workers",
       path, header.from, header.servers, header.workers);
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
  check_numbers(header, path);
  header_ = std::move(header);
}

bool SegmentChain::open_next() {
  const std::vector<Clock> steps = list_segments(fs_, dir_);
  const auto next = std::ranges::upper_bound(steps, from());
  if (next == steps.end()) return false;
  const RecordHeader before = header_;
  open(*next);
  if (header_.start_id != before.start_id) return false;
  const auto numbers = [](const RecordHeader& h) {
    return std::tuple(h.server, h.servers, h.workers, h.logical_workers, h.n_units);
  };
  if (numbers(header_) != numbers(before)) {
    fail(ErrorKind::data, "the header of {} has other numbers of ranks or units than the segment before",
         segment_path(dir_, *next));
  }
  return true;
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
