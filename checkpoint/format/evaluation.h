#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "checkpoint/storage/fs.h"

namespace varscope {

inline constexpr const char* kMetricsName = "METRICS";  // inside a checkpoint: what is known of its quality

// What one evaluation found: the values of its metrics, which are "loss" and each of train.metrics that is a
// number.
struct EvaluationRecord {
  std::int64_t step = 0;  // of the values that were evaluated
  std::map<std::string, double> values;
  friend bool operator==(const EvaluationRecord&, const EvaluationRecord&) = default;
};

// The file METRICS of a checkpoint: {"step": 40, "values": {"accuracy": 0.91, "loss": 0.3}} LF, and the
// hexadecimal XXH3-128 of that line, LF. It is no part of the manifest, since an evaluation may follow the
// commit. Nothing when it is missing or not whole: then nothing is known of the checkpoint's quality, and it
// is none the worse for it. The same where the system does not let us read it (it may be another user's):
// then `unreadable`, where it is not null, gets a line that says so, with the path; else "". Values that are
// not finite are left out. Throws nothing.
std::optional<EvaluationRecord> read_evaluation(Fs& fs, const std::string& checkpoint,
                                                std::string* unreadable = nullptr);

// Why read_evaluation() gives nothing though there is such a file; "" otherwise. Throws nothing.
std::string evaluation_problem(Fs& fs, const std::string& checkpoint);

// Writes METRICS into a directory that is no checkpoint yet; its name is made durable with the directory.
void write_evaluation(Fs& fs, const std::string& dir, const EvaluationRecord& record);
// Replaces METRICS in a committed checkpoint: atomic and durable. Throws Error(io).
void replace_evaluation(Fs& fs, const std::string& checkpoint, const EvaluationRecord& record);

}  // namespace varscope
