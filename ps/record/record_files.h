#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/storage/fs.h"
#include "common/base/ids.h"
#include "common/base/record_file.h"
#include "common/base/types.h"
#include "common/config/step_rule.h"

namespace varscope {

// The files of a recorded run (docs/debugging.md), below its directory:
//
//   record/tickets/from-<step>.events        which steps were opened, and who was dealt which ticket
//   record/server-<NNNN>/from-<step>.events  what one server did, in which order
//
// A segment begins where the values of <step> are, at a start or a cut, and ends with the next cut: the next
// one goes on. Each is a file of records (common/base/record_file.h), the first of which is a RecordHeader
// as a text archive. With backup workers there are no events of servers. The others begin with a byte that
// says what follows; all numbers are little-endian:
//
//   events = 'E' {unit: u32  n: u32  event: u16 * n}*      of each unit in their order
//   cut    = 'C' step: i64  hash: u64 * n_units            of all units, after the events before it
//   opened = 'O' step: i64  drained: u8
//   dealt  = 'D' ticket: i64  worker: u32                  ticket: (step - 1) * tickets of a step + its index
//   made   = 'M' step: i64  workers: u8 * ((n + 7) / 8)    with backup workers: a bit for each that counts
//
// A unit is what a push is applied to as a whole: a chunk of a bucket of the server that is pushed, in the
// order of the plan; after these the tables. An event is 3 bits of RecordEvent::What, and the worker.

// What a recorded run was, and whose segment it is. A value type.
struct RecordHeader {
  std::string program_version;
  std::string start_id;  // of the start of the job that wrote it
  std::int64_t from = 0;
  int server = -1;  // -1: tickets
  int servers = 0, workers = 0, logical_workers = 0;
  StepRule rule = {};
  std::string variables = {};                        // their digest
  std::map<std::string, std::string> settings = {};  // of the config and the data, by name
  std::int64_t n_units = 0;
  // Manifest::id of the checkpoint whose values the segment begins with, in segments of tickets; "": there is
  // none. A later start of the run may have put another one in its place.
  std::string checkpoint_id = {};

  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    auto consistency = static_cast<int>(rule.consistency), dealing = static_cast<int>(rule.dealing);
    ar& program_version& start_id& from& server& servers& workers& logical_workers& consistency& rule
        .staleness& dealing& rule.backups& variables& settings& n_units& checkpoint_id;
    rule.consistency = static_cast<Consistency>(consistency);
    rule.dealing = static_cast<Dealing>(dealing);
  }
};

struct RecordEvent {
  enum class What : std::uint8_t {
    applied,    // a push of the worker
    answered,   // its values were copied for the worker, as the answer to a push, or when that was too old
    drained,    // the same, after all had come together
    redrained,  // the same, before the cut that the segment begins with, and with its values
    flushed,    // a push of what compression has kept back, which is of no ticket
    cut         // in RecordedOrder only: in the file it is a record of all units
  };
  static constexpr int kBitsOfWorker = 13, kMostWorkers = 1 << kBitsOfWorker;
  What what = What::applied;
  WorkerId worker{0};
  constexpr std::uint16_t encoded() const {
    return static_cast<std::uint16_t>(static_cast<unsigned>(what) << kBitsOfWorker |
                                      static_cast<unsigned>(worker.value));
  }
  static RecordEvent decoded(std::uint16_t bits) {
    return {static_cast<What>(bits >> kBitsOfWorker), WorkerId(bits & (kMostWorkers - 1))};
  }
  friend bool operator==(const RecordEvent&, const RecordEvent&) = default;
};

std::string record_dir(const std::string& run_dir);
std::string tickets_dir(const std::string& run_dir);
std::string events_dir(const std::string& run_dir, ServerId server);
// The steps that segments of a directory begin with, in their order; none where it does not exist.
std::vector<Clock> list_segments(Fs& fs, const std::string& dir);
std::string segment_path(const std::string& dir, Clock from);
// Throws Error(data) where the segment has no header that can be read, Error(io).
RecordHeader read_header(Fs& fs, const std::string& path);

// Reads a segment and those that follow it, of the same start of the job. What is damaged, or was not written
// whole, ends the record. Not thread-safe.
class SegmentChain {
 public:
  // Throws Error(data, io) when the first segment has no header that can be read.
  SegmentChain(Fs& fs, std::string dir, Clock from);
  const RecordHeader& header() const { return header_; }
  Clock from() const { return Clock(header_.from); }  // of the segment that next() read from
  // The next record; false at the end.
  bool next(std::string& record);
  // From here on nothing more is read: the last record says nothing sensible.
  void end(std::string why);
  // Why the record ends before the end of its file; "" where it does not.
  const std::string& why_ended() const { return why_ended_; }

 private:
  void open(Clock from);
  bool open_next();

  Fs& fs_;
  std::string dir_;
  RecordHeader header_;
  std::unique_ptr<ReadFile> file_;
  std::uint64_t position_ = 0;
  std::optional<RecordReader> reader_;
  bool is_over_ = false;
  std::string why_ended_;
};

}  // namespace varscope
