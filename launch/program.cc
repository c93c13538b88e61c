#include "launch/program.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>

#include "common/base/error.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "common/config/job_config.h"
#include "common/transport/loopback_transport.h"
#include "common/transport/mpi/mpi_job.h"
#include "launch/commands/checkpoint_commands.h"
#include "launch/commands/completion.h"
#include "launch/commands/data_show.h"
#include "launch/commands/evaluate.h"
#include "launch/commands/explain.h"
#include "launch/commands/generate.h"
#include "launch/commands/gradcheck.h"
#include "launch/commands/graph.h"
#include "launch/commands/help_format.h"
#include "launch/commands/ingest.h"
#include "launch/commands/init.h"
#include "launch/commands/launch_job.h"
#include "launch/commands/neighbors.h"
#include "launch/commands/plan.h"
#include "launch/commands/predict.h"
#include "launch/commands/serve.h"
#include "launch/commands/train.h"
#include "launch/job/check_config.h"
#include "launch/job/job_setup.h"
#include "launch/observe/output.h"
#include "launch/process/failure.h"
#include "launch/process/signals.h"
#include "launch/process/version.h"

namespace varscope {
namespace {

constexpr const char* kFooter =
    R"(Exit status:
  0    success
  1    anything that is not listed here
  2    command line or config
  3    data
  4    checkpoint: none, in use, or of another model
  5    a verification, comparison or gradcheck found differences
  6    a loss or value is not finite (train.on_nan)
  10   protocol
  11   file system
  12   MPI
  13   a rank fell silent
  75   stopped by a signal, with a checkpoint where any are configured; ingest: all that was read is in files
Codes of 10 and above, and death by a signal, can be restarted with --resume.

Signals to train, or to its mpirun:
  SIGUSR1    makes a checkpoint
  SIGUSR2    makes a checkpoint and ends the job (75)
  SIGINT     (Ctrl-C) to train alone, to a rank or to a launch script: the same; a second one ends it at once
  SIGTERM    to train alone, to a rank or to a launch script: the same
  SIGHUP     to train alone or to a launch script: the same
To mpirun itself SIGINT, SIGTERM and SIGHUP leave a second for the checkpoint, and end with code 1.

Environment:
  VARSCOPE_DATA    the folder of data sets (default: data)
  VARSCOPE_LOG     debug: a log for developers on standard error)";
constexpr const char* kLatest = "latest";  // of --resume
constexpr const char* kShortFooter = "With --help-all also: exit status, signals, environment.";

std::string version_text() { return std::string("varscope ") + kVersion; }

constexpr const char* kNoMemory =
    "out of memory: the model, the batch or the data set is too large for this host; varscope plan CONFIG "
    "shows what each rank needs";

void tell(const Error& e) {
  FailureReport::print(e.what());
  spdlog::debug("{} error thrown at {}:{}", to_string(e.kind()), e.where().file_name(), e.where().line());
}

// A failure of a run after which it can go on: with the command that does, where there is a checkpoint.
void tell_and_how_to_go_on(const Error& e) {
  const bool can_go_on = exit_code(e.kind()) >= ExitCode::protocol;
  const std::string command = can_go_on ? FailureReport::go_on() : "";
  tell(command.empty() ? e : Error(e.kind(), fmt::format("{}; {}", e.what(), command), e.where()));
}

// Runs what is not collective; one line per failure.
int run_alone(const std::function<int()>& work) {
  try {
    return work();
  } catch (const Error& e) {
    tell_and_how_to_go_on(e);
    return static_cast<int>(exit_code(e.kind()));
  } catch (const std::bad_alloc&) {
    FailureReport::print(kNoMemory);
    return static_cast<int>(ExitCode::internal);
  } catch (const std::exception& e) {
    FailureReport::print(fmt::format("internal error: {}", e.what()));
    return static_cast<int>(ExitCode::internal);
  }
}

int code_of(RunEnd end) {
  return static_cast<int>(end == RunEnd::stopped ? ExitCode::stopped : ExitCode::ok);
}

int train_alone(const TrainOptions& options, const LayerRegistry& layers, Fs& fs) {
  return run_alone([&] { return code_of(train_in_one_process(options, layers, fs)); });
}

// Until training starts, ranks agree on errors: rank 0 prints, all leave cleanly. After that the rank that
// fails prints and ends the job.
int train_as_rank(const TrainOptions& options, const LayerRegistry& layers, Fs& fs, MpiJob& mpi) {
  bool started = false;
  try {
    return code_of(train_in_mpi_job(options, layers, fs, mpi, started));
  } catch (const Error& e) {
    if (started || mpi.rank() == Rank(0)) tell_and_how_to_go_on(e);
    const int code = static_cast<int>(exit_code(e.kind()));
    if (started) MpiJob::abort(code);
    return code;
  } catch (const std::bad_alloc&) {
    FailureReport::print(kNoMemory);
    MpiJob::abort(static_cast<int>(ExitCode::internal));
  } catch (const std::exception& e) {
    FailureReport::print(fmt::format("internal error: {}", e.what()));
    MpiJob::abort(static_cast<int>(ExitCode::internal));
  }
}

// Open MPI ends the whole job, with a banner, when one rank leaves with a non-zero code; all of ours leave
// with the same.
int train(const TrainOptions& options, const LayerRegistry& layers, Fs& fs, int* argc, char*** argv) {
  watch_user_signals();  // before MPI is up: mpirun hands them on to whoever is there
  ignore_sigpipe();
  if (!launched_by_mpi()) return train_alone(options, layers, fs);
  MpiJob mpi(argc, argv);
  start_log(fmt::format("rank {}", mpi.rank().value));
  if (mpi.size() == 1) return train_alone(options, layers, fs);
  const int code = train_as_rank(options, layers, fs, mpi);
  if (code == static_cast<int>(ExitCode::stopped)) FailureReport::ignore_sigterm();
  mpi.barrier();
  return code;
}

int print(const std::string& text) {
  print_result(text);
  return 0;
}

void add_overrides(CLI::App* command, std::vector<std::string>& overrides) {
  command
      ->add_option("--set", overrides,
                   "Override a key of the config: --set train.epochs=3; KEY= takes it away. May be repeated")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
}

// The parsed command line; the one subcommand that was given sets `action`.
class CommandLine {
 public:
  CommandLine(const LayerRegistry& layers, Fs& fs)
      : layers_(layers), fs_(fs), app_("varscope: a distributed parameter server over MPI", "varscope") {
    app_.formatter(help_format());  // the commands added from here on have it, and the footer
    app_.footer(kShortFooter);
    app_.set_help_all_flag("--help-all", "Print this help, exit status, signals and environment, and exit");
    app_.require_subcommand(1);
    add_train();
    add_eval();
    add_plan();
    add_predict();
    add_neighbors();
    add_serve();
    add_graph();
    add_gradcheck();
    add_config();
    add_init();
    add_data();
    add_ingest();
    add_checkpoint();
    add_completion();
    add_launch();
    add_version(app_);
    app_.set_version_flag("-v,--version", version_text());
  }

  int run(int argc, char** argv) {
    argc_ = argc;
    argv_ = argv;
    words_ = plain_words(std::vector<std::string>(argv, argv + argc));
    try {
      check_commands(app_, 1);
      std::vector<std::string> reversed(words_.rbegin(), words_.rend() - std::min<std::ptrdiff_t>(1, argc));
      app_.parse(std::move(reversed));
    } catch (const CLI::CallForAllHelp&) {
      set_footer(app_, kFooter);
      return print(app_.help());
    } catch (const CLI::ParseError& e) {
      if (e.get_exit_code() == 0) return app_.exit(e);
      return refuse(Error(ErrorKind::config, fmt::format("{}; see varscope --help", e.what())));
    } catch (const Error& e) {
      return refuse(e);
    }
    return action_();
  }

 private:
  // Under mpirun every rank reads the command line, and MPI is not up yet: rank 0 speaks for all. Its exit
  // ends the others while they wait; one that is still there was started with another command line, and
  // speaks for itself.
  static int refuse(const Error& e) {
    const int rank = launched_rank().value_or(0);
    if (rank != 0) {
      std::this_thread::sleep_for(std::chrono::seconds(4));
      FailureReport::set_who(fmt::format("rank {}", rank));
    }
    tell(e);
    return static_cast<int>(exit_code(e.kind()));
  }
  // "help" and "help COMMAND" are "--help" and "COMMAND --help"; and --resume has its value behind a "=".
  // Behind it as a word of its own it has one where that is "latest" or a directory, or where the config was
  // named before.
  static std::vector<std::string> plain_words(std::vector<std::string> words) {
    if (words.size() > 1 && words[1] == "help") {
      words.erase(words.begin() + 1);
      if (words.back() != "--help") words.emplace_back("--help");
    }
    if (words.size() < 2 || words[1] != "train") return words;
    bool has_config = false;
    for (std::size_t i = 2; i < words.size(); ++i) {
      const bool has_next = i + 1 < words.size() && !words[i + 1].starts_with("-");
      if (words[i] == "--resume") {
        std::error_code ignored;
        const bool is_value = has_next && (has_config || words[i + 1] == kLatest ||
                                           std::filesystem::is_directory(words[i + 1], ignored));
        words[i] += "=" + (is_value ? words[i + 1] : std::string(kLatest));
        if (is_value) words.erase(words.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      } else if (words[i] == "--set") {
        ++i;
      } else if (!words[i].starts_with("-")) {
        has_config = true;
      }
    }
    return words;
  }
  static void add_version(CLI::App& app) {
    app.set_version_flag("--version", version_text());
    for (CLI::App* sub : app.get_subcommands({})) add_version(*sub);
  }
  static void set_footer(CLI::App& app, const char* footer) {
    app.footer(footer);
    for (CLI::App* sub : app.get_subcommands({})) set_footer(*sub, footer);
  }
  // A command or option that does not exist is answered with the nearest one that does.
  void check_commands(CLI::App& app, std::size_t at) const {
    if (at >= words_.size()) return;
    const std::string& word = words_[at];
    if (!app.get_subcommands({}).empty()) {
      if (word.starts_with("-")) return;
      std::vector<std::string> names;
      for (const CLI::App* sub : app.get_subcommands({})) {
        if (sub->get_name() == word) return check_commands(*app.get_subcommand(word), at + 1);
        if (!sub->get_group().empty()) names.push_back(sub->get_name());
      }
      fail(ErrorKind::config, "\"{}\" is not a command{}; {} has {}", word, did_you_mean(word, names),
           app.get_name(), comma_list(names));
    }
    std::vector<std::string> names;
    for (const CLI::Option* option : app.get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
    for (std::size_t i = at; i < words_.size() && words_[i] != "--"; ++i) {
      const std::string name = words_[i].substr(0, words_[i].find('='));
      if (!name.starts_with("--") || std::find(names.begin(), names.end(), name) != names.end()) continue;
      fail(ErrorKind::config, "\"{}\" is not an option of varscope {}{}; it has {}", name, app.get_name(),
           did_you_mean(name, names), comma_list(names));
    }
  }

  void add_train() {
    CLI::App* c = app_.add_subcommand(
        "train", "Train the model a config describes; alone, or as one rank under mpirun");
    c->add_option("config", train_.config, "YAML file")->type_name("FILE")->required();
    add_overrides(c, train_.overrides);
    resume_ =
        c->add_option("--resume", train_.resume_from,
                      "Go on from the newest whole checkpoint of the run (or say latest), or from PATH: a "
                      "checkpoint, or the newest one of a directory")
            ->type_name("[=PATH]")
            ->expected(0, 1);
    CLI::Option* fresh = c->add_flag("--fresh", train_.fresh,
                                     "Set an earlier run's checkpoints and metrics aside, and start anew");
    fresh->excludes(resume_);
    c->add_flag("--allow-other-data", train_.allow_other_data,
                "With --resume: go on though the samples of data.train are not those of the checkpoint's run")
        ->needs(resume_);
    CLI::Option* replay =
        c->add_option(
             "--replay", train_.replay,
             "Do again, in the same order, what the recorded run (cluster.record) of this directory did")
            ->type_name("DIR")
            ->excludes(resume_)
            ->excludes(fresh);
    c->add_option(
         "--from", train_.from,
         "With --replay: begin after this step, of which the run has a checkpoint, or 0; default: the "
         "newest there is")
        ->type_name("STEP")
        ->needs(replay);
    c->add_flag("--profile", train_.profile,
                "At the end print what each op took, and how much of it in BLAS");
    c->add_flag("--check-numerics", train_.check_numerics,
                "Stop at the first NaN or infinity, and name the op that made it (slower)");
    c->callback([this] {
      action_ = [this] {
        train_.resume = resume_->count() > 0;
        if (train_.resume_from == kLatest) train_.resume_from.clear();
        train_.words = words_;
        try {
          if (launched_by_mpi()) check_file_limit();
        } catch (const Error& e) {
          return refuse(e);
        }
        return train(train_, layers_, fs_, &argc_, &argv_);
      };
    });
  }
  void add_eval() {
    CLI::App* c = app_.add_subcommand("eval", "Loss and metrics of a checkpoint on data.test");
    c->add_option("config", evaluate_.path,
                  "YAML file, or a run's directory: what was trained there, whatever the config says now")
        ->type_name("PATH")
        ->required();
    c->add_option("--checkpoint", evaluate_.checkpoint,
                  "A checkpoint, or a directory of them (default: the config's)")
        ->type_name("PATH");
    c->add_flag("--json", evaluate_.json, "Print one JSON object instead of text");
    add_overrides(c, evaluate_.overrides);
    c->callback([this] {
      action_ = [this] {
        return run_alone([this] {
          evaluate_checkpoint(evaluate_, layers_);
          return 0;
        });
      };
    });
  }
  void add_predict() {
    CLI::App* c =
        app_.add_subcommand("predict", "Answer the rows of a file by a checkpoint, with no need of its data");
    c->add_option("model", predict_.model, "A run's directory, a directory of checkpoints, or a checkpoint")
        ->type_name("PATH")
        ->required();
    c->add_option("config", predict_.config, "YAML file, for a checkpoint that does not say what it is of")
        ->type_name("FILE");
    c->add_option("--in", predict_.in, "Rows as those that were trained on; the label may be missing")
        ->type_name("FILE");
    c->add_option("--out", predict_.out,
                  "File for the predictions, .csv, .jsonl, .npy or .npz (default: - is standard output)")
        ->type_name("FILE");
    c->add_option("--format", predict_.format, "csv, jsonl, npy or npz (default: by the ending of --out)");
    c->add_option("--outputs", predict_.outputs,
                  "classes, probabilities, logits, values (default: what fits)")
        ->delimiter(',');
    c->add_option("--keep", predict_.keep, "Columns to copy from the input, such as an id")->delimiter(',');
    c->add_option("--fetch", predict_.fetch, "Nodes of the graph, or layers, whose values are written too")
        ->type_name("NODE")
        ->delimiter(',');
    c->add_flag("--gradients", predict_.gradients, "Write the gradients of the answers by the inputs too");
    CLI::Option* words =
        c->add_option("--generate", generate_.n, "Of a language model: write so many words instead of rows")
            ->type_name("N")
            ->check(CLI::Range(1, 1 << 24));
    c->add_option("--prompt", generate_.prompt, "With --generate: the words before them")->needs(words);
    c->add_option(
         "--temperature", generate_.temperature,
         "With --generate: 1 draws by the model's probabilities, less is more likely words, 0 the likeliest "
         "(default: 1)")
        ->check(CLI::Range(0.0, 1e6))
        ->check([](const std::string& text) {  // of which NaN is no part, though no bound excludes it
          return text.find_first_of("nN") == std::string::npos
                     ? ""
                     : "expected a number from 0 to 1000000, got " + text;
        })
        ->needs(words);
    c->add_option("--seed", generate_.seed, "With --generate: of the draws (default: 1)")
        ->check(CLI::NonNegativeNumber)
        ->needs(words);
    add_overrides(c, predict_.overrides);
    c->callback([this] {
      action_ = [this] {
        return run_alone([this] {
          generate_.n > 0 ? generate(predict_, generate_, layers_, fs_) : predict(predict_, layers_, fs_);
          return 0;
        });
      };
    });
  }
  void add_neighbors() {
    CLI::App* c = app_.add_subcommand(
        "neighbors", "The words, or ids, whose rows of an embedding are nearest to those of others");
    c->add_option("model", neighbors_.model, "A run's directory, a directory of checkpoints, or a checkpoint")
        ->type_name("PATH")
        ->required();
    c->add_option("words", neighbors_.words,
                  "Words of the data that were trained on; ids where the data have numbers (-1: behind --)")
        ->type_name("WORD")
        ->required();
    c->add_option("--top", neighbors_.top, "How many neighbors of each word (default: 10)")
        ->type_name("N")
        ->check(CLI::Range(1, 1 << 20));
    c->add_option("--variable", neighbors_.variable,
                  "The embedding (default: the one that words go into; of skip-grams that of input word)")
        ->type_name("NAME");
    c->add_flag("--json", neighbors_.json, "Print one JSON object instead of text");
    c->callback([this] {
      action_ = [this] {
        return run_alone([this] {
          neighbors(neighbors_, layers_, fs_);
          return 0;
        });
      };
    });
  }
  void add_serve() {
    CLI::App* c =
        app_.add_subcommand("serve", "Answer requests over HTTP by the newest checkpoint, as new ones come");
    c->add_option("model", serve_.model,
                  "A run's directory, a directory of checkpoints, a checkpoint, or the YAML file of a job")
        ->type_name("PATH")
        ->required();
    c->add_option("config", serve_.config,
                  "YAML file, for its section serve and for checkpoints that do not say what they are of")
        ->type_name("FILE");
    c->add_option("--listen", serve_.listen, "Where (default: 127.0.0.1:8500; port 0: a free one)")
        ->type_name("ADDRESS:PORT");
    c->add_option("--name", serve_.name, "Of the model, in addresses (default: that of the run's directory)");
    c->add_option("--version-policy", serve_.version, "latest (the default), pinned, or steps: 100,200");
    c->add_option("--require", serve_.require, "Serve only checkpoints whose METRICS are so good: loss<=0.6");
    c->add_option("--threads", serve_.threads, "Threads that compute (default: all cores but one)")
        ->check(CLI::Range(1, 1024));
    c->add_option("--max-batch", serve_.max_batch, "Rows that are computed together (default: 64)")
        ->check(CLI::Range(1, 1 << 20));
    c->add_option(
         "--max-delay-us", serve_.max_delay_us,
         "How long a computation waits for more rows, in microseconds (default: 0, it takes what waits)")
        ->check(CLI::Range(0, 10'000'000));
    c->add_option("--max-queue", serve_.max_queue, "Requests that may wait; more get 503 (default: 1024)")
        ->check(CLI::Range(1, 1 << 20));
    c->add_flag_function(
        "--exact,!--no-exact", [this](std::int64_t n) { serve_.exact = n > 0; },
        "A row has the same bits in any batch (the default); --no-exact: faster, and last bits vary");
    c->add_option("--memory-mib", serve_.memory_mib,
                  "The most memory for values of all versions (default: no limit)")
        ->check(CLI::Range(1, 1 << 30));
    c->add_flag("--replace", serve_.replaces,
                "Without room for two versions, drop the old one before the new one loads");
    c->add_option("--poll-ms", serve_.poll_ms, "How often to look for new checkpoints (default: 1000)")
        ->check(CLI::Range(10, 3'600'000));
    c->add_option("--drain-ms", serve_.drain_ms, "How long to answer on after SIGTERM (default: 5000)")
        ->check(CLI::Range(0, 3'600'000));
    c->add_flag("--no-wait", serve_.no_wait, "End with 4 where there is no checkpoint yet");
    add_overrides(c, serve_.overrides);
    c->callback(
        [this] { action_ = [this] { return run_alone([this] { return serve(serve_, layers_, fs_); }); }; });
  }
  void add_plan() {
    CLI::App* c = app_.add_subcommand(
        "plan", "Show scopes, slices, servers, traffic and memory of a job, without running it");
    c->add_option("config", config_, "YAML file")->type_name("FILE")->required();
    c->add_option("--servers", servers_, "Number of servers (default: cluster.servers)")
        ->check(CLI::Range(1, 1 << 20));
    c->add_option("--workers", workers_, "Number of workers (default: 1)")->check(CLI::Range(1, 1 << 20));
    c->add_flag("--slices", slices_, "List each slice with its box and server");
    add_overrides(c, overrides_);
    c->callback([this] {
      action_ = [this] {
        return run_alone([this] {
          const JobConfig job = load_config(config_, overrides_);
          const PlanDetail detail = slices_ ? PlanDetail::slices : PlanDetail::summary;
          return print(plan_text(job, servers_ > 0 ? servers_ : static_cast<int>(job.cluster.servers),
                                 workers_, detail, layers_));
        });
      };
    });
  }
  void add_graph() {
    CLI::App* c =
        app_.add_subcommand("graph", "Show the dataflow graph: scopes, ops, shapes, parameters, FLOPs");
    c->add_option("config", config_, "YAML file")->type_name("FILE")->required();
    c->add_option("--dot", path_, "Write the graph to this file for Graphviz (dot -Tsvg)")->type_name("FILE");
    c->add_flag("--evaluation", evaluation_, "The graph of evaluations instead of training's");
    add_overrides(c, overrides_);
    c->callback([this] {
      action_ = [this] {
        return run_alone([this] {
          const JobConfig job = load_config(config_, overrides_);
          const ResultTo to = result_beside(path_);
          print_result(show_graph(job, evaluation_ ? GraphMode::evaluate : GraphMode::train, path_, layers_),
                       to);
          return 0;
        });
      };
    });
  }
  void add_gradcheck() {
    CLI::App* c = app_.add_subcommand(
        "gradcheck",
        "Compare the model's gradients with finite differences in float64; non-zero when they differ");
    c->add_option("config", config_, "YAML file")->type_name("FILE")->required();
    c->add_option("--samples", gradcheck_.samples, "Samples of the batch (default: 4; a text: its sequences)")
        ->check(CLI::Range(1, 1 << 16));
    c->add_option("--elements", gradcheck_.elements, "Elements tried of each variable (default: 20)")
        ->check(CLI::Range(1, 1 << 30));
    c->add_option("--tolerance", gradcheck_.tolerance, "Largest relative difference allowed (default: 1e-5)")
        ->check(CLI::PositiveNumber);
    add_overrides(c, overrides_);
    c->callback([this] {
      action_ = [this] {
        return run_alone([this] {
          std::string out;
          const int code = check_gradients(load_config(config_, overrides_), gradcheck_, layers_, out);
          print(out);
          return code;
        });
      };
    });
  }
  void add_config() {
    CLI::App* c =
        app_.add_subcommand("config", "Check a config and print it with all defaults, or explain the keys");
    c->add_option("config", config_, "YAML file")->type_name("FILE");
    CLI::Option* explain =
        c->add_option("--explain", section_,
                      "List the keys with type, default, unit and meaning: all, or those of SECTION (train, "
                      "optimizer.schedule, layers, dense, ...)")
            ->type_name("[=SECTION]")
            ->expected(0, 1);
    get_ = c->add_option("--get", key_,
                         "Print the value of this key only; a folder that is not set: where it is")
               ->type_name("KEY")
               ->excludes(explain);
    add_overrides(c, overrides_);
    c->callback([this, explain] {
      const bool explains = explain->count() > 0;
      action_ = [this, explains] {
        return run_alone([this, explains] {
          if (explains) return print(explain_config(section_, layers_));
          if (config_.empty()) fail(ErrorKind::config, "config: name a YAML file, or say --explain");
          const JobConfig job = load_config(config_, overrides_);
          if (get_->count() > 0) return print(value_text(job, key_));
          warn(check_without_data(job, layers_));
          return print(dump(job));
        });
      };
    });
  }
  void add_init() {
    CLI::App* c = app_.add_subcommand("init", "Print a config for a table, CSV, that trains as it is");
    c->add_option("file", init_.file, "CSV file, plain or gzip")->type_name("FILE")->required();
    c->add_option("--label", init_.label,
                  "The column that says the answer: its name, or its number from 0 on")
        ->type_name("COLUMN");
    c->add_option(
        "--delimiter", init_.delimiter,
        "What stands between two cells: one character, or tab (default: what the first line shows)");
    c->callback(
        [this] { action_ = [this] { return run_alone([this] { return print(init_config(init_)); }); }; });
  }
  void add_data() {
    CLI::App* data = app_.add_subcommand("data", "Look at the data of a config");
    data->require_subcommand(1);
    CLI::App* c = data->add_subcommand(
        "show", "Columns, classes and first samples of the data, as the model will see them");
    c->add_option("config", config_, "YAML file")->type_name("FILE")->required();
    c->add_option("--rows", rows_, "How many samples (default: 5)")->check(CLI::Range(0, 1000));
    add_overrides(c, overrides_);
    c->callback([this] {
      action_ = [this] {
        return run_alone([this] { return print(show_data(load_config(config_, overrides_), rows_)); });
      };
    });
  }
  void add_ingest() {
    add_ingest_command(app_, ingest_, [this] {
      action_ = [this] {
        return run_alone([this] {
          return static_cast<int>(ingest(ingest_, fs_) == IngestEnd::stopped ? ExitCode::stopped
                                                                             : ExitCode::ok);
        });
      };
    });
  }
  // For the launch scripts.
  void add_launch() {
    CLI::App* c =
        app_.add_subcommand("launch", "Start mpirun as the launch scripts do, and tell what comes of it");
    c->group("");  // not listed
    c->add_option("--script", launch_.script, "The name that begins each line of ours")->required();
    c->add_option("--go-on", launch_.go_on, "The command that goes on with the job; without it none is told");
    c->add_option("--mpirun", launch_.mpirun, "A word of mpirun's command; repeated")
        ->required()
        ->expected(1)
        ->allow_extra_args(false)
        ->take_all();
    c->add_option("words", launch_.words, "The words of varscope's own command, behind --")->required();
    c->callback([this] {
      action_ = [this] {
        launch_.program = words_[0];
        return run_alone([this] { return launch_job(launch_); });
      };
    });
  }
  // For those who install varscope; `cmake --install` has called it already.
  void add_completion() {
    CLI::App* c = app_.add_subcommand(
        "completion",
        "Print a script that completes varscope's command line: source <(varscope completion bash)");
    c->group("");  // not listed
    c->add_option("shell", shell_, "The shell: " + comma_list(completion_shells()))
        ->type_name(fmt::format("{}", fmt::join(completion_shells(), "|")))
        ->required();
    c->callback([this] {
      action_ = [this] {
        return run_alone([this] {
          return print(completion_script(app_, std::filesystem::path(argv_[0]).filename(), shell_,
                                         explain_job_config(ExplainDetail::every_key)));
        });
      };
    });
  }
  void add_checkpoint() {
    checkpoint_.add_to(app_, [this](CheckpointCommands::Work work) {
      action_ = [work = std::move(work)] { return run_alone(work); };
    });
  }

  const LayerRegistry& layers_;
  Fs& fs_;
  CLI::App app_;
  std::function<int()> action_;
  int argc_ = 0;
  char** argv_ = nullptr;
  std::vector<std::string> words_;  // of the command line, as plain_words() has them
  TrainOptions train_;
  CLI::Option* resume_ = nullptr;
  CLI::Option* get_ = nullptr;
  std::string config_, path_, key_, section_, shell_;
  std::vector<std::string> overrides_;
  int servers_ = 0;
  int workers_ = 1;
  bool slices_ = false;
  bool evaluation_ = false;
  GradcheckOptions gradcheck_;
  EvaluateOptions evaluate_;
  PredictOptions predict_;
  NeighborsOptions neighbors_;
  ServeOptions serve_;
  GenerateOptions generate_;
  InitOptions init_;
  IngestOptions ingest_;
  int rows_ = 5;
  LaunchOptions launch_;
  CheckpointCommands checkpoint_;
};

}  // namespace

int run_program(int argc, char** argv, const LayerRegistry& layers, Fs& fs) {
  try {
    be_robust();
    start_log("varscope");
    return CommandLine(layers, fs).run(argc, argv);
  } catch (const std::exception& e) {
    FailureReport::print(e.what());
    return static_cast<int>(ExitCode::internal);
  }
}

int run_program(int argc, char** argv, const LayerRegistry& layers) {
  PosixFs fs;
  return run_program(argc, argv, layers, fs);
}

int run_program(int argc, char** argv) { return run_program(argc, argv, LayerRegistry::built_in()); }

}  // namespace varscope
