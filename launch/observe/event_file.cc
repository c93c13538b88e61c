#include "launch/observe/event_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <system_error>
#include <utility>

#include "common/base/record_file.h"

namespace varscope {
namespace {

constexpr std::string_view kPrefix = "events.out.tfevents.";
constexpr auto kPause = std::chrono::seconds(1);

// The seconds in the name of the newest file of events there; 0 for none.
std::int64_t newest_seconds(const std::string& dir) {
  std::int64_t newest = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    std::int64_t seconds = 0;
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), seconds);
    newest = std::max(newest, seconds);
  }
  return newest;
}

}  // namespace

EventFile::EventFile(std::string dir, std::string host)
    : dir_(std::move(dir)), host_(std::move(host)), thread_([this] { run(); }) {}

EventFile::~EventFile() {
  finish();
  if (fd_ >= 0) close(fd_);
}

void EventFile::finish() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void EventFile::write(std::string_view event) {
  const std::lock_guard lock(mutex_);
  if (is_useless_ || ends_) return;
  if (waiting_.size() + event.size() <= kMaxWaitingBytes) {
    const bool is_first = waiting_.empty();
    append_record(waiting_, event);
    if (is_first) wake_.notify_all();
    return;
  }
  if (std::exchange(has_given_up_events_, true)) return;
  problem_ = fmt::format(
      "{} is so slow that TensorBoard's events are given up: {} MiB of them wait; training goes on", dir_,
      kMaxWaitingBytes >> 20);
}

std::string EventFile::take_problem() {
  const std::lock_guard lock(mutex_);
  return std::exchange(problem_, {});
}

void EventFile::add_problem(const std::string& what) {
  const std::lock_guard lock(mutex_);
  problem_ = what;
}

void EventFile::run() {
  open();
  std::string records;
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return ends_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    records.clear();
    records.swap(waiting_);
    lock.unlock();
    write_out(records);
    lock.lock();
    // Events come in at any rate; a write a second is as new as anybody looks.
    wake_.wait_for(lock, kPause, [this] { return ends_; });
  }
}

void EventFile::open() {
  std::error_code error;
  std::filesystem::create_directories(dir_, error);
  std::int64_t seconds = std::max<std::int64_t>(std::time(nullptr), newest_seconds(dir_) + 1);
  do {
    path_ = fmt::format("{}/{}{:010}.{}", dir_, kPrefix, seconds++, host_);
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (fd_ < 0 && errno == EEXIST);
  if (fd_ >= 0) return;
  const int number = errno;
  add_problem(fmt::format(
      "cannot write {}: {}; training goes on without TensorBoard's events; make room for them, or set "
      "output.tensorboard to false",
      path_, std::strerror(number)));
  const std::lock_guard lock(mutex_);
  is_useless_ = true;
  waiting_.clear();
}

// Of what the disk has no room for nothing stays: a reader gets no further than the first torn record.
void EventFile::write_out(std::string_view records) {
  if (fd_ < 0) return;
  std::size_t done = 0;
  int number = 0;
  while (done < records.size()) {
    const ssize_t n = ::write(fd_, records.data() + done, records.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      number = n == 0 ? EIO : errno;
      break;
    }
    done += static_cast<std::size_t>(n);
  }
  if (done == records.size()) {
    size_ += static_cast<std::int64_t>(done);
    return;
  }
  const bool is_whole = ::ftruncate(fd_, size_) == 0 && ::lseek(fd_, size_, SEEK_SET) == size_;
  if (!std::exchange(has_failed_, true)) {
    add_problem(fmt::format("cannot write {}: {}; training goes on, and TensorBoard's events are lost {}",
                            path_, std::strerror(number), is_whole ? "until there is room" : "from here on"));
  }
  if (is_whole) return;
  close(std::exchange(fd_, -1));
  const std::lock_guard lock(mutex_);
  is_useless_ = true;
}

}  // namespace varscope
