#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "checkpoint/format/stream_position.h"
#include "common/transport/reports.h"
#include "ps/early_stop.h"

namespace varscope {

// What the coordinator must remember over a restart (Manifest::coordinator_state).
struct CoordinatorState {
  BatchSums epoch;  // so far
  std::int64_t dataset_size = 0;
  std::int64_t batch = 0;
  std::int64_t seed = 0;
  // What else is known of the run, opaque here; "": of a version that did not keep it.
  std::string run = {};
  std::optional<StopState> stop = {};         // with train.stop
  std::optional<StreamPosition> stream = {};  // where a directory is followed
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    SavedSums sums{epoch.loss, static_cast<std::int64_t>(epoch.correct), epoch.samples};
    ar& sums& dataset_size& batch& seed;
    if constexpr (Archive::is_loading::value)
      epoch = {sums.loss, static_cast<double>(sums.correct), sums.samples};
  }

 private:
  struct SavedSums {
    double loss = 0;
    std::int64_t correct = 0;
    std::int64_t samples = 0;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
      ar& loss& correct& samples;
    }
  };
};

// A text archive, whose only line feed is its end; where samples have weights a line "weight: " with the sum
// of those of the epoch so far and of its right answers, in hexadecimal; and `run` behind it: who knows the
// archive alone reads that. With train.stop a last line, "#early-stop " and an archive; where a directory is
// followed a last line, "#stream " and JSON. The latter throws Error(data).
std::string to_manifest_text(const CoordinatorState& state);
CoordinatorState from_manifest_text(const std::string& text);

}  // namespace varscope
