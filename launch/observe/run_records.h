#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/observe/appended_file.h"
#include "launch/observe/run_facts.h"

namespace varscope {

// How a run was started, for people.
struct StartCommand {
  std::string text;                    // as a shell takes it
  std::vector<std::string> overrides;  // of --set
};

// What a run directory says of its run to people, beside the metrics:
//   job.yaml     the effective config, with the --set of each attempt in comments; written anew at each start
//   command.txt  a line for each start
//   log.txt      what the terminal shows, step lines too, of all attempts
// No resume needs them, and what cannot be written is one warning each. Server 0; one thread.
class RunRecords {
 public:
  // Borrows the facts. `resolved`: the config with the files of its data where they were found.
  RunRecords(const RunFacts& facts, StartCommand command, const JobConfig& resolved);
  void log(const std::string& line);

  static constexpr const char* kJob = "job.yaml";
  static constexpr const char* kCommand = "command.txt";
  static constexpr const char* kLog = "log.txt";

 private:
  std::optional<AppendedFile> log_;
};

// What job.yaml says of where it came from.
struct RecordedJob {
  std::string config;                  // the file that the last attempt was started with
  std::vector<std::string> overrides;  // of the last attempt
};
RecordedJob read_recorded_job(const std::string& text);

}  // namespace varscope
