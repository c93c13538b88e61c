#include "launch/ingest/record_log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "common/base/error.h"

namespace varscope {
namespace {

constexpr std::size_t kDigits = 12;
constexpr std::uint64_t kMostNumber = 999'999'999'999;
constexpr std::uint64_t kMostStateBytes = std::uint64_t{1} << 26;  // a header of one record, and all streams

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

// The number that a name begins with: exactly twelve digits.
std::optional<std::uint64_t> number_of(std::string_view name) {
  const std::string_view digits = name.substr(0, std::min(name.find_first_not_of("0123456789"), name.size()));
  if (digits.size() != kDigits) return std::nullopt;
  std::uint64_t number = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return number;
}

std::string_view without_line_end(std::string_view line) {
  if (line.ends_with('\n')) line.remove_suffix(1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

Digest digest_of_file(Fs& fs, const std::string& path) {
  constexpr std::uint64_t kPiece = 1 << 20;
  const auto file = fs.open(path);
  Digester digester;
  for (std::uint64_t at = 0; at < file->size(); at += kPiece)
    digester.update(read_range(*file, at, std::min(kPiece, file->size() - at)));
  return digester.finish();
}

}  // namespace

RecordLog::RecordLog(Fs& fs, std::string dir, std::string suffix)
    : fs_(fs), dir_(std::move(dir)), suffix_(std::move(suffix)) {
  fs_.make_dirs(dir_);
  lock();
  recover();
  if (fs_.exists(path(kStreamEndName))) {
    fail(ErrorKind::config,
         "{} has a file {}: its stream has ended, and the job that follows it reads no further; remove {} to "
         "go on, or write to another directory",
         dir_, kStreamEndName, path(kStreamEndName));
  }
}

void RecordLog::lock() {
  const std::string at = path(kIngestLockName);
  lock_ = fs_.try_lock(at, fmt::format("pid {} host {}\n", ::getpid(), host_name()));
  if (lock_ != nullptr) return;
  const std::string holder(without_line_end(read_whole_file(fs_, at, 4096)));
  fail(ErrorKind::checkpoint,
       "another varscope ingest ({}) writes to {}; stop it first, or write to another directory",
       holder.empty() ? "not known which" : holder, dir_);
}

void RecordLog::recover() {
  if (fs_.exists(path(kIngestStateName))) {
    const std::string bytes = read_whole_file(fs_, path(kIngestStateName), kMostStateBytes);
    try {
      state_ = decode_ingest_state(bytes, path(kIngestStateName));
    } catch (const Error& e) {
      fail(e.kind(),
           "{}; it says how many records of each producer are in the files: remove it only where no producer "
           "asks for that",
           e.what());
    }
    finish_rename();
  }
  sweep();
  next_ = state_;
  next_number_ = std::max(state_.number, highest_number()) + 1;
}

// Gives the file that the state counts its name, where a crash or an error came before.
void RecordLog::finish_rename() {
  const std::string tmp = tmp_path(state_.file);
  if (state_.number == 0 || !fs_.exists(tmp)) return;
  const auto file = fs_.identify(tmp);
  if ((file && file->n_bytes != state_.bytes) || digest_of_file(fs_, tmp) != state_.digest) {
    fail(
        ErrorKind::checkpoint,
        "{} is not as it was written: {} has a file of {} bytes with digest {}; its records are lost. Remove it "
        "to go on without them",
        tmp, path(kIngestStateName), state_.bytes, state_.digest.hex());
  }
  fs_.rename(tmp, path(state_.file));
  fs_.sync_dir(dir_);
}

// Removes what a crash has left that counts for nothing. Others may write into the directory by renames, too.
void RecordLog::sweep() const {
  for (const std::string& name : fs_.list(dir_)) {
    if (!name.starts_with(kTmpPrefix)) continue;
    const std::string of = name.substr(std::string_view(kTmpPrefix).size());
    if (number_of(of) || of == kIngestStateName || of == kStreamEndName) fs_.remove_all(path(name));
  }
}

std::uint64_t RecordLog::highest_number() const {
  std::uint64_t highest = 0;
  for (const std::string& name : fs_.list(dir_)) highest = std::max(highest, number_of(name).value_or(0));
  return highest;
}

std::string RecordLog::next_name() const { return fmt::format("{:0{}}{}", next_number_, kDigits, suffix_); }

bool RecordLog::take_header(std::string_view line) {
  if (next_.has_header) return without_line_end(next_.header) == without_line_end(line);
  next_.has_header = state_.has_header = true;
  next_.header = state_.header = line;
  return true;
}

void RecordLog::expect_header(bool is_wanted) const {
  if (state_.number == 0 || state_.has_header == is_wanted) return;
  fail(ErrorKind::config, "the files of {} {}; {}, or write to another directory", dir_,
       is_wanted ? "have no header" : "begin with a header",
       is_wanted ? "leave out --header" : "say --header, and begin the stream with that line");
}

void RecordLog::add(std::string_view stream, std::string_view record) {
  if (stage_ != Stage::gathering)
    fail(ErrorKind::argument, "commit() of {} has failed: call it again before add()", dir_);
  text_ += record;
  ++n_records_;
  ++next_.records;
  if (!stream.empty()) ++next_.streams[std::string(stream)];
}

bool RecordLog::knows(std::string_view stream) const { return next_.streams.contains(std::string(stream)); }

std::uint64_t RecordLog::count(std::string_view stream) const {
  const auto found = next_.streams.find(std::string(stream));
  return found == next_.streams.end() ? 0 : found->second;
}

void RecordLog::write_tmp() {
  if (next_number_ > kMostNumber) {
    fail(ErrorKind::config, "{} has a file with number {}, the last one there can be; use another directory",
         dir_, kMostNumber);
  }
  next_.number = next_number_;
  next_.file = next_name();
  next_.bytes = next_.header.size() + text_.size();
  const std::string tmp = tmp_path(next_.file);
  fs_.remove_all(tmp);  // of a failure before
  Digester digester;
  const auto file = fs_.create_exclusive(tmp);
  for (const std::string* part : {&next_.header, &text_}) {
    if (part->empty()) continue;
    file->write(std::as_bytes(std::span(*part)));
    digester.update(*part);
  }
  file->sync();
  file->close();
  fs_.sync_dir(dir_);
  next_.digest = digester.finish();
}

std::uint64_t RecordLog::commit() {
  if (n_records_ == 0) return 0;
  if (stage_ == Stage::gathering) {
    write_tmp();
    stage_ = Stage::written;
  }
  if (stage_ == Stage::written) {
    replace_whole_file(fs_, path(kIngestStateName), encode_ingest_state(next_));
    state_ = next_;
    stage_ = Stage::counted;
  }
  // Without it an earlier try has renamed it, whatever it was told.
  if (fs_.exists(tmp_path(state_.file))) fs_.rename(tmp_path(state_.file), path(state_.file));
  fs_.sync_dir(dir_);
  stage_ = Stage::gathering;
  text_.clear();
  n_records_ = 0;
  ++next_number_;
  ++n_files_;
  return state_.bytes;
}

void RecordLog::write_end() {
  const std::string end = path(kStreamEndName);
  if (!fs_.exists(end)) {
    fs_.remove_all(tmp_path(kStreamEndName));
    write_whole_file(fs_, tmp_path(kStreamEndName), "");
    fs_.rename(tmp_path(kStreamEndName), end);
  }
  fs_.sync_dir(dir_);
}

bool is_stream_name(std::string_view name) {
  constexpr std::size_t kMostBytes = 128;
  return !name.empty() && name.size() <= kMostBytes && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-' || c == ':';
  });
}

}  // namespace varscope
