#include "launch/job/directory_feed.h"

#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <utility>

#include "checkpoint/directory/scan.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/storage/atomic_file.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "launch/job/followed_data.h"
#include "ps/coordinator_state.h"
#include "worker/data/csv.h"

namespace varscope {
namespace {

constexpr auto kLookEvery = std::chrono::seconds(1);
constexpr std::int64_t kLookAnywayNs = 30'000'000'000;  // though the directory seems not to have changed
constexpr std::size_t kReadAhead = 8;                   // files
constexpr std::int64_t kMostLateTold = 10;              // one by one
constexpr double kLastSecond = 253402300799;            // of the year 9999
constexpr std::int64_t kLeastRecords = 1000;            // that a share of bad ones is taken of

std::int64_t unix_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string bad_records_path(const JobConfig& job) { return join_path(job.run_dir(), "bad_records.txt"); }

std::vector<std::string> lines_of(const std::string& path) {
  std::vector<std::string> lines;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

double max_bad_share(const DataSourceConfig& source) {
  if (const auto* csv = source.get<CsvSource>()) return csv->max_bad_share;
  if (const auto* libsvm = source.get<LibsvmSource>()) return libsvm->max_bad_share;
  return 1;
}

}  // namespace

// Not by its inode: not every file system keeps those. n_bytes -1: there is none.
DirectoryFeed::Seen DirectoryFeed::seen(const std::string& path) {
  struct stat s = {};
  if (::stat(path.c_str(), &s) != 0) return {};
  return {static_cast<std::int64_t>(s.st_size),
          static_cast<std::int64_t>(s.st_mtim.tv_sec) * 1'000'000'000 + s.st_mtim.tv_nsec};
}

DirectoryFeed::DirectoryFeed(Parts parts) : parts_(std::move(parts)), last_(parts_.position.file) {
  const StreamPosition& p = parts_.position;
  if (p.left_out > 0) bad_lines_ = lines_of(bad_records_path(parts_.job));
  read_records_ = p.records + p.left_out;
  bad_records_ = p.left_out;
  if (p.is_within_file()) {
    const std::string path = parts_.directory + "/" + p.file;
    const auto refuse = [&](const std::string& problem) {
      fail(
          ErrorKind::checkpoint,
          "{} {}; the checkpoint has learnt {} of its {} records, of a file of {} bytes (XXH3 {}): put that file "
          "back, or go on from an older checkpoint",
          path, problem, p.learnt, p.file_records, p.n_bytes, p.digest.hex());
    };
    if (!std::filesystem::is_regular_file(path)) refuse("is gone");
    const DataFile now = read_data_file(path);
    if (now.n_bytes != p.n_bytes || now.digest != p.digest)
      refuse(fmt::format("has {} bytes now (XXH3 {})", now.n_bytes, now.digest.hex()));
    File file = read(p.file);
    file.begin = p.learnt;
    read_records_ += file.records - p.learnt;
    ready_.push_back(std::move(file));
  }
  thread_ = std::thread([this] { run(); });
}

DirectoryFeed::~DirectoryFeed() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  wakes_.notify_all();
  thread_.join();
}

std::optional<StreamFeed::File> DirectoryFeed::take() {
  std::vector<std::string> warnings;
  std::optional<File> file;
  {
    const std::lock_guard lock(mutex_);
    warnings = std::exchange(warnings_, {});
    if (!ready_.empty()) {
      file = std::move(ready_.front());
      ready_.pop_front();
    } else if (error_) {
      std::rethrow_exception(error_);
    }
  }
  if (file) wakes_.notify_all();
  for (const std::string& text : warnings) parts_.warnings.on_warning(text);
  return file;
}

bool DirectoryFeed::has_ended() const {
  const std::lock_guard lock(mutex_);
  return sees_end_ && waiting_.empty() && ready_.empty() && !error_;
}

StreamFeed::Backlog DirectoryFeed::backlog() const {
  const std::lock_guard lock(mutex_);
  Backlog b;
  b.late = late_;
  b.files = static_cast<std::int64_t>(waiting_.size() + ready_.size());
  b.bytes = waiting_bytes_;
  for (const File& file : ready_) b.bytes += file.n_bytes;
  return b;
}

std::string DirectoryFeed::name() const { return "data.train follows " + parts_.directory; }

void DirectoryFeed::on_checkpoint(const CheckpointSummary&) {
  if (!parts_.job.follow()->deletes()) return;
  {
    const std::lock_guard lock(mutex_);
    has_new_checkpoint_ = true;
  }
  wakes_.notify_all();
}

void DirectoryFeed::warn(std::string text) {
  const std::lock_guard lock(mutex_);
  warnings_.push_back(std::move(text));
}

void DirectoryFeed::run() {
  try {
    while (step()) {
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    error_ = std::current_exception();
  }
}

// Does what is due, then waits; false at the end.
bool DirectoryFeed::step() {
  look();
  read_next();
  bool deletes = false;
  {
    std::unique_lock lock(mutex_);
    const auto can_read = [&] { return !waiting_.empty() && ready_.size() < kReadAhead; };
    if (!can_read())
      wakes_.wait_for(lock, kLookEvery, [&] { return is_over_ || has_new_checkpoint_ || can_read(); });
    if (is_over_) return false;
    deletes = std::exchange(has_new_checkpoint_, false);
  }
  if (deletes) delete_consumed();
  return true;
}

// Lists the directory, unless it is known not to have changed: a change within the clock's grain of the last
// listing may not show.
void DirectoryFeed::look() {
  const std::int64_t now = now_ns(), changed = seen(parts_.directory).changed_ns;
  const bool is_due = now - looked_ns_ >= std::chrono::nanoseconds(kLookEvery).count();
  if (!is_first_listing_ && !is_due) return;
  constexpr std::int64_t kGrainNs = 2'000'000'000;
  const bool is_same = changed >= 0 && changed == changed_ns_ && now - looked_ns_ < kLookAnywayNs;
  if (!is_first_listing_ && is_same) return;
  const bool is_settled = unix_ns() - changed > kGrainNs;
  const FollowedListing listing = list_followed(parts_.directory);
  looked_ns_ = now;
  changed_ns_ = is_settled ? changed : -1;
  std::set<std::string> names(listing.files.begin(), listing.files.end());
  // Whoever asks for files shall not wait for thousands of sizes.
  std::vector<std::string> late;
  std::vector<std::pair<std::string, std::int64_t>> fresh;
  for (const std::string& name : names) {
    if (listed_.contains(name) || (is_first_listing_ && name <= last_)) continue;
    if (name <= last_) {
      late.push_back(name);
    } else {
      fresh.emplace_back(name, std::max<std::int64_t>(0, seen(parts_.directory + "/" + name).n_bytes));
    }
  }
  const std::lock_guard lock(mutex_);
  for (const std::string& name : late) take_late(name);
  for (auto& file : fresh) {
    waiting_bytes_ += file.second;
    waiting_.insert(std::ranges::upper_bound(waiting_, file), std::move(file));
  }
  sees_end_ = listing.has_end;
  listed_ = std::move(names);
  is_first_listing_ = false;
}

// REQUIRES: mutex_ is held.
void DirectoryFeed::take_late(const std::string& name) {
  ++late_;
  std::string text =
      fmt::format("data.train: {}/{} has come when {} was read already, which has a later name",
                  parts_.directory, name, last_);
  if (parts_.job.follow()->late_fails())
    fail(ErrorKind::data, "{}; data.train.late: fail ends the run: give files names that rise", text);
  if (late_ > kMostLateTold) return;
  text += ": it is not learnt from (data.train.late: warn); give files names that rise";
  if (late_ == kMostLateTold) text += "; later ones are counted, and not named";
  warnings_.push_back(std::move(text));
}

void DirectoryFeed::read_next() {
  std::string name;
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.empty() || ready_.size() >= kReadAhead) return;
    name = waiting_.front().first;
  }
  File file = read(name);
  check_share(file);
  const std::lock_guard lock(mutex_);
  last_ = name;
  ready_.push_back(std::move(file));  // before it leaves the others: it is never in neither
  waiting_bytes_ -= waiting_.front().second;
  waiting_.pop_front();
}

StreamFeed::File DirectoryFeed::read(const std::string& name) {
  const std::string path = parts_.directory + "/" + name;
  const Seen seen_before = seen(path);
  const std::int64_t before = seen_before.n_bytes;
  const auto data = open_followed(parts_.job, path, parts_.schema);
  const DataFile bytes =
      data == nullptr || data->files().empty() ? read_data_file(path) : data->files().front();
  const std::int64_t after = seen(path).n_bytes;
  if (before != after || bytes.n_bytes != after) {
    fail(
        ErrorKind::data,
        "data.train: {} had {} bytes and then {}: it grew while it was read; files must appear in the directory "
        "by rename, once they are whole",
        path, before, after);
  }
  File file{name, bytes.n_bytes, bytes.digest};
  if (data != nullptr) {
    file.records = data->size();
    file.left_out = data->left_out().n;
    keep_bad(data->left_out());
  }
  file.event_time = newest_event(path);
  if (parts_.job.follow()->deletes()) read_here_[name] = seen_before;
  return file;
}

void DirectoryFeed::check_share(const File& file) {
  read_records_ += file.records + file.left_out;
  bad_records_ += file.left_out;
  const double share = max_bad_share(parts_.job.data.train);
  const double most = share * static_cast<double>(std::max(read_records_, kLeastRecords));
  if (static_cast<double>(bad_records_) <= most) return;
  fail(
      ErrorKind::data,
      "data.train: {}/{}: {} of {} records of the stream so far are bad, more than max_bad_share {:g}; the run's "
      "bad_records.txt names them",
      parts_.directory, file.name, bad_records_, read_records_, share);
}

// The first bad records of the run, in a file of it. It does no harm where they cannot be written.
void DirectoryFeed::keep_bad(const LeftOut& left_out) {
  bool has_new = false;
  for (const std::string& line : left_out.first) {
    if (bad_lines_.size() >= LeftOut::kMostTold || std::ranges::find(bad_lines_, line) != bad_lines_.end())
      continue;
    bad_lines_.push_back(line);
    has_new = true;
  }
  if (!has_new) return;
  std::string text;
  for (const std::string& line : bad_lines_) text += line + "\n";
  try {
    write_named_file(parts_.fs, bad_records_path(parts_.job), text);
  } catch (const Error& e) {
    warn(fmt::format("{} cannot be written: {}", bad_records_path(parts_.job), e.what()));
  }
}

// Of the column event_time; 0 where no cell is a number.
double DirectoryFeed::newest_event(const std::string& path) {
  const FollowKeys& follow = *parts_.job.follow();
  const auto* csv = parts_.job.data.train.get<CsvSource>();
  if (follow.event_time.is_null() || csv == nullptr) return 0;
  const DataSourceConfig source = with_files(parts_.job.data.train, {path});
  const std::vector<std::string> keep{follow.event_time.scalar};
  double newest = 0;
  try {
    const auto rows = stream_csv(*source.get<CsvSource>(), {.root = {}, .schema = parts_.schema});
    std::vector<std::string> cells;
    while (rows->next(4096, keep, cells)) {
      for (const std::string& cell : cells) {
        double seconds = 0;
        const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), seconds);
        if (error != std::errc() || end != cell.data() + cell.size()) continue;
        if (seconds <= kLastSecond) newest = std::max(newest, seconds);
        if (seconds > kLastSecond) tell_of_time(path, cell);
      }
    }
  } catch (const Error& e) {
    std::string text = e.what();
    const std::string keep_text = "--keep ";
    if (const auto at = text.find(keep_text); at != std::string::npos)
      text.replace(at, keep_text.size(), "data.train.event_time: ");
    throw Error(e.kind(), text, e.where());
  }
  return newest;
}

void DirectoryFeed::tell_of_time(const std::string& path, const std::string& cell) {
  if (std::exchange(has_told_of_times_, true)) return;
  warn(
      fmt::format("data.train.event_time: {} has {}, which is no time in seconds since 1970 before the year "
                  "10000; such cells do not count: give seconds, not milliseconds",
                  path, cell));
}

// Files that the oldest kept checkpoint has learnt whole, and so all others.
void DirectoryFeed::delete_consumed() {
  try {
    const std::string dir = parts_.job.checkpoint_dir();
    const std::vector<CheckpointName> kept = list_checkpoints(parts_.fs, dir);  // newest first
    if (kept.empty()) return;
    const Manifest manifest = load_manifest(parts_.fs, join_path(dir, kept.back().name)).manifest;
    const CoordinatorState state = from_manifest_text(manifest.coordinator_state);
    if (!state.stream) return;
    const StreamPosition& p = *state.stream;
    for (const std::string& name : list_followed(parts_.directory).files) {
      if (name > p.file || (name == p.file && p.is_within_file())) break;
      if (read_here_.contains(name)) delete_file(name);  // others may have come late
    }
  } catch (const Error& e) {
    warn(fmt::format("data.train: files that are learnt could not be deleted: {}", e.what()));
  }
}

// Unless another file has its name by now.
void DirectoryFeed::delete_file(const std::string& name) {
  const std::string path = parts_.directory + "/" + name;
  const Seen now = seen(path), then = read_here_[name];
  if (now.n_bytes >= 0 && now != then) {
    read_here_.erase(name);
    warn(fmt::format(
        "data.train: {} has changed since it was read: what it holds now is not learnt from, and it "
        "is not deleted; give each file a name of its own",
        path));
    return;
  }
  std::error_code error;
  std::filesystem::remove(path, error);
  if (error)
    return warn(fmt::format("data.train: {} is learnt but cannot be deleted: {}", path, error.message()));
  read_here_.erase(name);
  listed_.erase(name);  // should it come again, it is late
}

}  // namespace varscope
