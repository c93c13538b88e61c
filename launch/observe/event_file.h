#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

namespace varscope {

// A file of TensorBoard's events, written by a thread of its own: whoever has events hands them over, and
// waits for no disk. They are on their way once a second, and at the end.
//
// The name is events.out.tfevents.SECONDS.HOST with SECONDS the present time, or one more than the newest
// file in the directory has: TensorBoard reads the files of a run in the order of their names, whatever
// clocks say.
//
// Nothing throws. What goes wrong is told by take_problem(), the first of its kind only: a file that
// cannot be made; a write that fails, of which the file keeps whole records, and the next is tried again;
// events that are given up because more than kMaxWaitingBytes wait.
class EventFile {
 public:
  static constexpr std::size_t kMaxWaitingBytes = std::size_t{64} << 20;

  // Makes the directory where there is none. Starts the thread, which does all that touches the disk.
  EventFile(std::string dir, std::string host);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  // One record; `event` is an Event of tensorboard.proto.
  void write(std::string_view event);
  // Writes what is left and ends the thread; what comes later is lost. The destructor does the same.
  void finish();
  // What to warn of since the last call; "" when there is nothing. From any thread, as write().
  std::string take_problem();

 private:
  void run();
  void open();
  void write_out(std::string_view records);
  void add_problem(const std::string& what);

  const std::string dir_, host_;
  std::mutex mutex_;
  std::condition_variable wake_;
  // Guarded by mutex_.
  std::string waiting_;  // framed records
  std::string problem_;
  bool ends_ = false;
  bool has_given_up_events_ = false;
  bool is_useless_ = false;  // there is no file
  // Of the thread alone.
  std::string path_;
  int fd_ = -1;
  std::int64_t size_ = 0;  // of whole records
  bool has_failed_ = false;
  std::thread thread_;  // the last member: it sees the others made
};

}  // namespace varscope
