#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "ps/record/record_files.h"

namespace varscope {

// Writes segments. What is appended is in memory until write(); it is not made durable, so it survives the
// end of the process in any way, not that of the machine. What the disk has no room for ends the record, and
// not the run: `tell` hears of it. Not thread-safe.
class SegmentWriter {
 public:
  struct Parts {
    Fs& fs;
    std::string dir;
    std::string checkpoint_dir;  // "": no checkpoints
    RecordHeader header;         // `from` is filled in
    std::function<void(const std::string&)> tell;
  };
  // Begins the segment of `first`, in place of that and of all later ones: a run that starts there goes
  // another way. Throws Error(io).
  SegmentWriter(Parts parts, Clock first);
  ~SegmentWriter();
  SegmentWriter(const SegmentWriter&) = delete;
  SegmentWriter& operator=(const SegmentWriter&) = delete;

  void append(std::string_view record);
  bool is_empty() const { return pending_.empty(); }
  void write();
  // Ends the segment and begins that of `from`, whose values are in the checkpoint of that id. Segments that
  // lead from nowhere to no checkpoint go. REQUIRES: later than the last one.
  void begin(Clock from, const std::string& checkpoint_id = "");
  Clock from() const { return from_; }

 private:
  void open(Clock from, const std::string& checkpoint_id);
  void remove_old();
  template <class F>
  void guarded(const F& f);

  Parts parts_;
  Clock from_;
  std::optional<std::int64_t> first_kept_;  // the step of the oldest checkpoint that was seen first
  std::unique_ptr<File> file_;              // null: the record has ended
  std::string pending_;
};

}  // namespace varscope
