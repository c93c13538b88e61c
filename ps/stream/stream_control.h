#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>

#include "checkpoint/format/stream_position.h"
#include "common/base/types.h"
#include "common/transport/fed_file.h"
#include "ps/observe/run_observer.h"
#include "ps/stream/stream_feed.h"

namespace varscope {

// Server 0's part of learning from a stream: which steps are made of which file, how far the run has come. A
// step never has records of two files, so that nothing waits for the next one, and which records it has is
// a function of the files alone. Borrows the feed. Not thread-safe.
class StreamControl {
 public:
  struct Options {
    StreamFeed& feed;
    std::int64_t batch;           // records of a step, at most
    std::int64_t window;          // of the progressive loss
    std::int64_t told_every = 1;  // steps after which observers are told at the latest
  };
  // Goes on from `position`, that of the values after step `first`.
  StreamControl(const Options& options, StreamPosition position, Clock first);

  // The next file for the workers, once it is due: they are told of a few ahead. Throws what the feed throws.
  std::optional<FedFile> poll();
  // Workers have been told of this step's file.
  bool has(Clock clock) const { return clock.value <= fed_up_to_; }
  // There will be no step after the last one that has().
  bool has_ended() const { return options_.feed.has_ended() && queue_.empty(); }

  // Records of the run when the step has ended. REQUIRES: it is the next one that complete() will get.
  std::int64_t records_after(Clock clock) const;
  std::int64_t records() const { return position_.records; }
  // The step has ended. REQUIRES: they come in order, and has(clock).
  void complete(Clock clock, const BatchSums& sums);
  // What a checkpoint of the last complete step says; from here on `since_save` counts anew.
  StreamPosition cut();
  StreamSummary summary() const;
  // The same for observers: of each step that is a multiple of told_every, and else ten times a second, since
  // the sum of a window may be of many steps; and of the last one of all that has come.
  std::optional<StreamSummary> due_summary(Clock clock);
  // For METRICS: progressive_loss and the like, by name.
  std::map<std::string, double> metrics(bool has_accuracy) const;
  std::string name() const { return options_.feed.name(); }

 private:
  void begin_file(const StreamFeed::File& file);
  void pass_empty_files();

  Options options_;
  StreamPosition position_;
  std::int64_t fed_up_to_;
  std::int64_t told_ns_ = 0;
  struct Queued {
    StreamFeed::File file;
    FedFile fed;
    bool is_begun = false;
  };
  std::deque<Queued> queue_;  // with steps that have not ended
};

}  // namespace varscope
