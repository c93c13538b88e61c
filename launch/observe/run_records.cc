#include "launch/observe/run_records.h"

#include <array>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <utility>

#include "checkpoint/storage/atomic_file.h"
#include "common/base/error.h"
#include "launch/observe/output.h"

namespace varscope {
namespace {

constexpr std::string_view kConfigLine = "# config: ";
constexpr std::string_view kAttemptLine = "# attempt ";
constexpr std::string_view kSetLine = "#   --set ";
constexpr const char* kAdvice = "training goes on without it";

std::string time_text() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &parts);
  return text.data();
}

// Whatever goes wrong with a record stops no training.
void or_warn(const std::function<void()>& write) {
  try {
    write();
  } catch (const Error& e) {
    warn({e.what()});
  }
}

// The lines on earlier attempts of the same run.
std::string earlier_attempts(const std::string& file, const std::string& run_id) {
  std::ifstream in(file);
  std::string text;
  bool is_kept = false;
  for (std::string line; std::getline(in, line) && line.starts_with('#');) {
    if (line.starts_with(kAttemptLine)) is_kept = line.find(" of run " + run_id + ",") != std::string::npos;
    if (is_kept && (line.starts_with(kAttemptLine) || line.starts_with(kSetLine))) text += line + "\n";
  }
  return text;
}

std::string one_line(std::string text) {
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  return text;
}

}  // namespace

RunRecords::RunRecords(const RunFacts& facts, StartCommand command, const JobConfig& resolved) {
  const std::string dir = facts.job.run_dir() + "/", now = time_text();
  or_warn([&] {
    const std::string config = std::filesystem::absolute(facts.job.file).lexically_normal().string();
    std::string text =
        "# What this run trains: its config with all defaults, and with the files of its data where they were found.\n"
        "# For people, and for `varscope eval` of this directory; --resume goes by the config that it is given.\n" +
        std::string(kConfigLine) + one_line(config) + "\n" + earlier_attempts(dir + kJob, facts.run_id) +
        fmt::format("{}{} of run {}, {}: from {}\n", kAttemptLine, facts.attempt, facts.run_id, now,
                    facts.resumed_from.empty() ? "the start" : facts.resumed_from);
    for (const std::string& o : command.overrides) text += std::string(kSetLine) + one_line(o) + "\n";
    PosixFs fs;
    write_named_file(fs, dir + kJob, text + dump(resolved));
  });
  or_warn([&] {
    AppendedFile(dir + kCommand, kAdvice)
        .append(fmt::format("{}  attempt {} in {}: {}", now, facts.attempt,
                            std::filesystem::current_path().string(), command.text));
  });
  or_warn([&] { log_.emplace(dir + kLog, kAdvice); });
  log(fmt::format("--- {}  attempt {}: {}", now, facts.attempt, command.text));
}

void RunRecords::log(const std::string& line) {
  if (log_) log_->append(line);
}

RecordedJob read_recorded_job(const std::string& text) {
  RecordedJob job;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line) && line.starts_with('#');) {
    if (line.starts_with(kConfigLine)) job.config = line.substr(kConfigLine.size());
    if (line.starts_with(kAttemptLine)) job.overrides.clear();
    if (line.starts_with(kSetLine)) job.overrides.push_back(line.substr(kSetLine.size()));
  }
  return job;
}

}  // namespace varscope
