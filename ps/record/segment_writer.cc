#include "ps/record/segment_writer.h"

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "checkpoint/directory/scan.h"
#include "common/base/error.h"
#include "common/base/serialize.h"

namespace varscope {

SegmentWriter::SegmentWriter(Parts parts, Clock first) : parts_(std::move(parts)), from_(first) {
  parts_.fs.make_dirs(parts_.dir);
  for (const Clock step : list_segments(parts_.fs, parts_.dir)) {
    if (step >= first) parts_.fs.remove_all(segment_path(parts_.dir, step));
  }
  open(first, parts_.header.checkpoint_id);
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

void SegmentWriter::open(Clock from, const std::string& checkpoint_id) {
  from_ = from;
  parts_.header.checkpoint_id = checkpoint_id;
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

void SegmentWriter::begin(Clock from, const std::string& checkpoint_id) {
  write();
  guarded([&] {
    file_->close();
    open(from, checkpoint_id);
    remove_old();
  });
}

// A segment is of use as long as the values it begins with, or older ones, are kept; the first one of a run,
// which needs none, as long as the first checkpoint of all, with those that lead there: a save that was given
// up has left none, though some ranks may have begun a segment there. While the first one is being written
// there is none.
void SegmentWriter::remove_old() {
  if (parts_.checkpoint_dir.empty()) return;
  const std::vector<CheckpointName> kept = list_checkpoints(parts_.fs, parts_.checkpoint_dir);
  if (kept.empty()) return;
  if (!first_kept_) first_kept_ = kept.back().step;
  const std::vector<Clock> steps = list_segments(parts_.fs, parts_.dir);
  for (std::size_t i = 0; i + 1 < steps.size(); ++i) {
    const std::int64_t needed = steps[0].value == 0 ? std::max(steps[i].value, *first_kept_) : steps[i].value;
    if (needed < kept.back().step) parts_.fs.remove_all(segment_path(parts_.dir, steps[i]));
  }
}

}  // namespace varscope
