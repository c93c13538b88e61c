#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "common/base/hash.h"
#include "common/transport/reports.h"

namespace varscope {

// The loss of each step of a stream is that of records that nothing has been learnt from yet, under the
// values before the step: an estimate of how well the model predicts without a test set [1]. Sums in
// the order of the steps, so that two runs over the same files have the same bits.
//
// [1] Blum, Kalai, Langford: Beating the hold-out: bounds for k-fold and progressive cross-validation, COLT
// 1999. Vowpal Wabbit and River show it in the same way.
struct ProgressiveLoss {
  BatchSums total;              // since the run's beginning
  BatchSums since_save;         // since the last checkpoint was cut
  std::deque<BatchSums> steps;  // the newest ones, oldest first: at least `window` records together, if there
                                // are so many, and no more steps than it takes
  void add(const BatchSums& step, std::int64_t window);
  BatchSums window() const;  // takes as long as it has steps

 private:
  std::int64_t n_counted_ = 0, n_samples_ = 0;  // of the steps, as many as have been counted
};

// How far a run has come in a stream, after a step; part of a manifest (docs/checkpoint_format.md).
struct StreamPosition {
  std::string file;  // the last one that was begun; "": none
  std::int64_t n_bytes = 0;
  Digest digest;                  // XXH3-128 of the file
  std::int64_t file_records = 0;  // samples in it
  std::int64_t learnt = 0;        // of these
  std::int64_t files = 0;         // that were begun, or had no samples
  std::int64_t records = 0;       // learnt in all
  std::int64_t left_out = 0;      // bad records of these files
  double event_time = 0;          // the newest of the files that are learnt whole; 0: not known
  ProgressiveLoss progressive;
  bool is_within_file() const { return learnt < file_records; }
};

// Of a manifest's coordinator_state: its last line, "#stream " and JSON, where there is such a line; it is
// taken away from `text`. Throws Error(data) for one that is not whole.
std::optional<StreamPosition> take_stream_line(std::string& text);
// That line, with its line feed.
std::string stream_line(const StreamPosition& position);

// One line of JSON, without a line feed.
std::string to_json_line(const StreamPosition& position);
// Throws Error(data).
StreamPosition stream_position_from_json(const std::string& line);

}  // namespace varscope
