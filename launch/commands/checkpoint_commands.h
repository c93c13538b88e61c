#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "checkpoint/directory/retention.h"
#include "checkpoint/storage/fs.h"
#include "checkpoint/tools/report_text.h"
#include "common/config/job_config.h"
#include "launch/observe/output.h"

namespace varscope {

// `varscope checkpoint ...`: the command line of the tools in checkpoint/. Must outlive the App.
class CheckpointCommands {
 public:
  // The work of the subcommand that was given; returns the exit code and throws Error.
  using Work = std::function<int()>;

  // Adds `checkpoint` with its subcommands; the one that is given calls `chosen` while parsing.
  void add_to(CLI::App& app, std::function<void(Work)> chosen);

 private:
  using Tool = std::function<int(Fs&, std::string& out)>;
  CLI::App* add(const char* name, const char* text, Tool tool);
  void add_readers();
  void add_step(CLI::App* sub, const std::string& name);
  void add_upkeep();
  void add_prune();
  void add_writers();
  void add_exchange();

  RetentionPolicy retention() const;  // that prune was asked for

  CLI::App* command_ = nullptr;
  std::function<void(Work)> chosen_;
  std::string path_, other_, file_format_, optimizer_ = "sgd";
  std::vector<std::string> string_ids_;  // import
  std::int64_t step_ = 0;
  int keep_ = 0, servers_ = 0;
  ResultTo result_to_ = ResultTo::output;
  bool json_ = false, unpin_ = false, dry_run_ = false, slots_ = false, widen_ = false;
  // prune
  std::string config_, best_mode_ = "auto";
  CheckpointConfig rules_;
  KeepBestConfig best_;
  ToolFormat format() const { return json_ ? ToolFormat::json : ToolFormat::text; }
};

}  // namespace varscope
