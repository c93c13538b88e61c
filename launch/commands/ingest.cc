#include "launch/commands/ingest.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <map>
#include <string>

#include <CLI/CLI.hpp>

#include "common/base/error.h"
#include "common/base/text.h"
#include "launch/observe/output.h"
#include "launch/process/signals.h"

namespace varscope {
namespace {

std::atomic<int> g_stop = -1;  // a handler gets no argument of ours

void on_stop_signal(int) {
  const int saved = errno;
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t ignored = ::write(g_stop.load(), &one, sizeof one);
  errno = saved;
}

// While it lives, the first signal that stops a program makes a descriptor readable, and the next one of
// its kind ends the process. Those that are ignored stay so (nohup).
class StopSignals {
 public:
  StopSignals() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (fd_.get() < 0) fail_io("open", "a descriptor of events", errno);
    g_stop = fd_.get();
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
      sigaction(kSignals[i], nullptr, &before_[i]);
      if (before_[i].sa_handler == SIG_IGN) continue;
      struct sigaction action {};
      action.sa_handler = on_stop_signal;
      action.sa_flags = static_cast<int>(SA_RESTART | SA_RESETHAND);
      sigaction(kSignals[i], &action, nullptr);
    }
  }
  ~StopSignals() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &before_[i], nullptr);
  }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  int fd() const { return fd_.get(); }

 private:
  static constexpr std::array kSignals = {SIGTERM, SIGINT, SIGHUP};
  std::array<struct sigaction, kSignals.size()> before_{};
  OwnedDescriptor fd_;
};

void check(const IngestOptions& options) {
  const bool is_suffix = options.suffix.size() > 1 && options.suffix.size() <= 32 &&
                         options.suffix[0] == '.' && is_stream_name(options.suffix) &&
                         options.suffix.find(':') == std::string::npos;
  if (!is_suffix)
    fail(ErrorKind::config, "--suffix {}: expected a dot and letters, digits, '.', '_' or '-', such as .csv",
         options.suffix);
  if (options.writes_end && options.from.starts_with("tcp:")) {
    fail(
        ErrorKind::config,
        "--end: connections of --from {} have no common end; stop varscope ingest and make a file END in {}, or "
        "read from a pipe",
        options.from, options.to);
  }
}

}  // namespace

void add_ingest_command(CLI::App& app, IngestOptions& options, std::function<void()> chosen) {
  CLI::App* c = app.add_subcommand("ingest", "Write a stream of records into files that a job follows");
  c->add_option(
       "--from", options.from,
       "Where the records come from: - (standard input), fifo:PATH, or tcp:ADDRESS:PORT to listen on")
      ->type_name("SOURCE")
      ->required();
  c->add_option("--to", options.to, "The directory; made where there is none")->type_name("DIR")->required();
  c->add_option("--max-records", options.max_records, "Most records of a file (default: 4096)")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 24));
  c->add_option("--max-seconds", options.max_seconds,
                "Most seconds from a file's first record to its end (default: 2)")
      ->type_name("S")
      ->check(CLI::Range(0.001, 86400.0))
      ->check([](const std::string& text) {  // of which NaN is no part, though no bound excludes it
        return text.find_first_of("nN") == std::string::npos ? "" : "expected a number, got " + text;
      });
  c->add_option("--max-backlog-mib", options.max_backlog_mib,
                "Reading stops while files of so many MiB are in the directory; 0: never (default: 1024)")
      ->type_name("MIB")
      ->check(CLI::Range(0, 1 << 30));
  c->add_flag(
      "--header", options.has_header,
      "The first line of the stream, on TCP of each connection, is a header that each file begins with");
  CLI::Option* records =
      c->add_option("--records", options.records,
                    "What a record is: lines, or csv, where quotes may join lines (default: lines)")
          ->type_name("lines|csv")
          ->transform(CLI::CheckedTransformer(
              std::map<std::string, RecordRules>{{"lines", RecordRules::lines}, {"csv", RecordRules::csv}}));
  c->add_option_function<std::string>(
       "--delimiter",
       [&options](const std::string& text) {
         if (text != "tab" && (text.size() != 1 || text == "\"" || text == "\n"))
           fail(ErrorKind::config, "--delimiter {}: expected one character, or tab", text);
         options.delimiter = text == "tab" ? '\t' : text[0];
       },
       "With --records csv: what stands between two cells (default: ,)")
      ->type_name("C")
      ->needs(records);
  c->add_option("--suffix", options.suffix, "What names of files end with (default: .csv)")
      ->type_name(".EXT");
  c->add_flag("--end", options.writes_end,
              "At the end of the input write END: the job that follows ends, too");
  c->callback(std::move(chosen));
}

IngestEnd ingest(const IngestOptions& options, Fs& fs) {
  check(options);
  ignore_sigpipe();
  const StopSignals signals;
  const auto say = [](const std::string& line) { std::fputs(("varscope: " + line + "\n").c_str(), stderr); };
  IngestLoop loop(fs, options, signals.fd(), say);
  print_result(
      fmt::format("ingest: {} -> {}, next file {}\n", loop.source(), options.to, loop.log().next_name()));
  const std::uint64_t before = loop.log().total_records();
  const IngestEnd end = loop.run();
  const std::uint64_t n = loop.log().total_records() - before, n_files = loop.log().n_files();
  print_result(fmt::format("ingest: {} record{} in {} file{}{}\n", with_commas(static_cast<std::int64_t>(n)),
                           n == 1 ? "" : "s", with_commas(static_cast<std::int64_t>(n_files)),
                           n_files == 1 ? "" : "s",
                           end == IngestEnd::stopped ? "; stopped by a signal" : ""));
  return end;
}

}  // namespace varscope
