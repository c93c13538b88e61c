#include "launch/commands/checkpoint_commands.h"

#include <fmt/ranges.h>

#include <charconv>
#include <utility>

#include "checkpoint/exchange/exchange_file.h"
#include "checkpoint/format/manifest.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/tools/diff.h"
#include "checkpoint/tools/export_import.h"
#include "checkpoint/tools/list_inspect.h"
#include "checkpoint/tools/prune.h"
#include "checkpoint/tools/reshard.h"
#include "checkpoint/tools/rollback_pin.h"
#include "checkpoint/tools/verify.h"
#include "common/base/error.h"
#include "common/base/text.h"
#include "common/config/job_config.h"
#include "launch/job/find_checkpoint.h"
#include "launch/job/job_setup.h"
#include "launch/job/run_differences.h"
#include "launch/observe/output.h"
#include "launch/process/version.h"
#include "ps/update/optimizer.h"

namespace varscope {
namespace {

// CLI11 would read "000000010", as checkpoints are named, as an octal number.
std::int64_t parse_step(const std::string& text) {
  std::string_view digits = text;
  if (digits.starts_with("step-")) digits.remove_prefix(5);
  std::int64_t step = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  if (error != std::errc() || end != digits.data() + digits.size() || step < 0) {
    throw CLI::ValidationError(
        "step", fmt::format("\"{}\" is not a step: give a number of 0 or more, such as 1200, or "
                            "the checkpoint's name, such as step-000001200",
                            text));
  }
  return step;
}

// "a|b|c": how help lists the names of a choice, and shells complete them.
template <class Choices>
std::string names_of(const Choices& choices) {
  std::string names;
  for (const auto& choice : choices) names += (names.empty() ? "" : "|") + std::string(choice.name);
  return names;
}

std::vector<std::string> slots_of_optimizer(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& choice : kOptimizerTypes) {
    names.emplace_back(choice.name);
    if (name != choice.name) continue;
    OptimizerConfig config;
    config.type = choice.value;
    return Optimizer(config).slot_names();
  }
  fail(ErrorKind::config, "\"{}\" is not an optimizer; there are {}", name, fmt::join(names, ", "));
}

}  // namespace

void CheckpointCommands::add_to(CLI::App& app, std::function<void(Work)> chosen) {
  chosen_ = std::move(chosen);
  command_ = app.add_subcommand("checkpoint", "List, check, compare, convert and tidy checkpoints");
  command_->require_subcommand(1);
  add_readers();
  add_upkeep();
  add_writers();
  add_exchange();
}

CLI::App* CheckpointCommands::add(const char* name, const char* text, Tool tool) {
  CLI::App* sub = command_->add_subcommand(name, text);
  sub->add_flag("--json", json_, "Print one JSON object instead of text");
  sub->callback([this, tool = std::move(tool)] {
    chosen_([this, tool] {
      PosixFs fs;
      std::string out;
      const int code = tool(fs, out);
      print_result(out, result_to_);
      return code;
    });
  });
  return sub;
}

void CheckpointCommands::add_readers() {
  const char* either = "A checkpoint, or a directory of them";
  add("list", "One line per checkpoint of a directory",
      [this](Fs& fs, std::string& out) {
        out = list_text(fs, path_, format());
        return 0;
      })
      ->add_option("path", path_, "A directory of checkpoints")
      ->type_name("DIR")
      ->required();
  add("inspect", "Facts, variables and values hash of one checkpoint (of a directory: the newest)",
      [this](Fs& fs, std::string& out) {
        out = inspect_text(fs, checkpoint_at(fs, path_), format());
        return 0;
      })
      ->add_option("path", path_, either)
      ->type_name("PATH")
      ->required();
  add("verify", "Check every byte; non-zero when anything is wrong",
      [this](Fs& fs, std::string& out) { return verify_tool(fs, path_, out, format()); })
      ->add_option("path", path_, either)
      ->type_name("PATH")
      ->required();
  CLI::App* diff =
      add("diff", "Compare the values of two checkpoints; non-zero when they differ",
          [this](Fs& fs, std::string& out) {
            return diff_tool(fs, checkpoint_at(fs, path_), checkpoint_at(fs, other_), format(), out);
          });
  diff->add_option("a", path_, either)->type_name("PATH")->required();
  diff->add_option("b", other_, either)->type_name("PATH")->required();
}

void CheckpointCommands::add_step(CLI::App* sub, const std::string& name) {
  sub->add_option_function<std::string>(
         name, [this](const std::string& text) { step_ = parse_step(text); },
         "Step of the checkpoint, or its name")
      ->type_name("STEP")
      ->required();
}

void CheckpointCommands::add_upkeep() {
  const auto add_place = [this](CLI::App* sub) {
    sub->add_option("dir", path_, "A directory of checkpoints")->type_name("DIR")->required();
    add_step(sub, "step");
  };
  add_place(add("rollback", "Go back to the checkpoint of a step: newer ones are set aside, not deleted",
                [this](Fs& fs, std::string& out) {
                  rollback_tool(fs, path_, step_, format(), out);
                  return 0;
                }));
  CLI::App* pin =
      add("pin", "Keep a checkpoint whatever checkpoint.keep says", [this](Fs& fs, std::string& out) {
        pin_tool(fs, path_, step_, unpin_ ? PinChange::unpin : PinChange::pin, format(), out);
        return 0;
      });
  add_place(pin);
  pin->add_flag("--unpin", unpin_, "No longer");
  add_prune();
}

void CheckpointCommands::add_prune() {
  CLI::App* prune = add("prune", "Remove the checkpoints that a job's retention would remove",
                        [this](Fs& fs, std::string& out) {
                          prune_tool(fs, path_, retention(),
                                     dry_run_ ? PruneMode::dry_run : PruneMode::remove, format(), out);
                          return 0;
                        });
  prune->add_option("dir", path_, "A directory of checkpoints")->type_name("DIR")->required();
  CLI::Option* config =
      prune->add_option("--config", config_, "Keep what the checkpoint section of this job's config says")
          ->type_name("FILE");
  CLI::Option* keep = prune->add_option("--keep", keep_, "Newest checkpoints to keep, besides pinned ones");
  keep->check(CLI::Range(1, 1 << 30))->excludes(config);
  const auto add_rule = [&](CLI::Option* rule) { rule->needs(keep)->excludes(config); };
  add_rule(prune->add_option("--keep-every-steps", rules_.keep_every_steps, "As checkpoint.keep_every_steps")
               ->check(CLI::NonNegativeNumber));
  add_rule(prune->add_option("--keep-every-hours", rules_.keep_every_hours, "As checkpoint.keep_every_hours")
               ->check(CLI::NonNegativeNumber));
  CLI::Option* best =
      prune->add_option("--keep-best", best_.metric, "As checkpoint.keep_best.metric")->type_name("METRIC");
  add_rule(best);
  prune->add_option("--keep-best-count", best_.count, "As checkpoint.keep_best.count (default: 1)")
      ->check(CLI::PositiveNumber)
      ->needs(best);
  prune->add_option("--keep-best-mode", best_mode_, "As checkpoint.keep_best.mode (default: auto)")
      ->type_name(names_of(kBestModes))
      ->needs(best);
  prune->add_flag("--dry-run", dry_run_, "Only tell what would be removed, and why the others stay");
}

RetentionPolicy CheckpointCommands::retention() const {
  if (!config_.empty()) return retention_of(load_config(config_, {}).checkpoint);
  if (keep_ < 1) fail(ErrorKind::config, "prune: say what to keep: --keep N, or --config FILE");
  CheckpointConfig rules = rules_;
  rules.keep = keep_;
  if (best_.metric.empty()) return retention_of(rules);
  if (const std::string problem = best_metric_problem(best_.metric); !problem.empty())
    fail(ErrorKind::config, "prune: --keep-best: {}", problem);
  rules.keep_best = best_;
  std::vector<std::string> modes;
  for (const auto& choice : kBestModes) {
    modes.emplace_back(choice.name);
    if (best_mode_ != choice.name) continue;
    rules.keep_best->mode = choice.value;
    return retention_of(rules);
  }
  fail(ErrorKind::config, "prune: --keep-best-mode is one of {}, not \"{}\"", comma_list(modes), best_mode_);
}

void CheckpointCommands::add_writers() {
  const char* either = "A checkpoint, or a directory of them (the newest)";
  CLI::App* reshard = add("reshard", "Write a checkpoint anew as the shards of another number of servers",
                          [this](Fs& fs, std::string& out) {
                            reshard_tool(fs, checkpoint_at(fs, path_), other_, servers_, format(), out);
                            return 0;
                          });
  reshard->add_option("checkpoint", path_, either)->type_name("PATH")->required();
  reshard->add_option("dir", other_, "The directory of checkpoints to write it into")
      ->type_name("DIR")
      ->required();
  reshard->add_option("--servers", servers_, "Number of servers")->required()->check(CLI::Range(1, 65536));
}

void CheckpointCommands::add_exchange() {
  const char* either = "A checkpoint, or a directory of them (the newest)";
  const char* formats = "Format of the file (default: by its suffix)";
  CLI::App* to_file = add(
      "export", "Write a checkpoint's whole variables for other programs", [this](Fs& fs, std::string& out) {
        result_to_ = result_beside(other_);
        const std::string path = checkpoint_at(fs, path_);
        const std::optional<ComparedRun> run = compared_run(load_manifest(fs, path).manifest);
        export_tool(fs, path, other_, exchange_format(other_, file_format_),
                    slots_ ? ExportSlots::include : ExportSlots::leave_out, format(), out,
                    run ? run->model : "");
        return 0;
      });
  to_file->add_option("checkpoint", path_, either)->type_name("PATH")->required();
  to_file->add_option("file", other_, "The file; of a TensorFlow bundle its prefix")
      ->type_name("FILE")
      ->required();
  to_file->add_option("--format", file_format_, formats)->type_name("safetensors|npz|tf");
  to_file->add_flag("--slots", slots_, "Optimizer slots as well, as <variable>/<slot>");
  CLI::App* from_file = add("import", "Make a checkpoint of another program's whole tensors, for eval",
                            [this](Fs& fs, std::string& out) {
                              import_tool(fs, path_, other_, exchange_format(path_, file_format_),
                                          {step_,
                                           optimizer_,
                                           slots_of_optimizer(optimizer_),
                                           kVersion,
                                           widen_ ? Widen::yes : Widen::no,
                                           {string_ids_.begin(), string_ids_.end()}},
                                          format(), out);
                              return 0;
                            });
  from_file->add_option("file", path_, "The file; of a TensorFlow bundle its prefix")
      ->type_name("FILE")
      ->required();
  from_file->add_option("dir", other_, "The directory of checkpoints to write it into")
      ->type_name("DIR")
      ->required();
  add_step(from_file, "--step");
  from_file->add_option("--format", file_format_, formats)->type_name("safetensors|npz|tf");
  from_file
      ->add_option("--optimizer", optimizer_,
                   "Optimizer whose slots it has; those not in the file are 0 (default: sgd)")
      ->type_name(names_of(kOptimizerTypes));
  from_file->add_flag(
      "--widen", widen_,
      "Read float16 as float32, int8, int16 and uint16 as int32, uint32 as int64, bool as uint8");
  from_file
      ->add_option("--string-ids", string_ids_,
                   "Sparse tables whose unsigned ids are those of strings, by name")
      ->type_name("TABLE");
}

}  // namespace varscope
