#include "launch/observe/mode_words.h"

#include <algorithm>
#include <map>

#include "common/base/text.h"
#include "common/config/binder.h"

namespace varscope {
namespace {

const char* dealing_name(const StepRule& rule) {
  return choice_name(kDealings, rule.is_dynamic() ? DealingChoice::to_whoever_asks : DealingChoice::in_place);
}

std::string backups_text(const StepRule& rule) { return counted(rule.backups, "backup worker"); }

// What such a run promises, and what it does not.
std::vector<std::string> lines_of_backups(const StepRule& rule) {
  constexpr const char* kIndent = "               ";
  return {fmt::format(
              "  consistency  bsp, {}: a step is the mean over the first workers that have their gradient, "
              "all but {}",
              backups_text(rule), with_commas(rule.backups)),
          kIndent +
              std::string(
                  "what the late ones have computed is dropped, and is listed; bits depend on who was late"),
          kIndent + std::string(
                        "a worker that dies ends the run all the same: backups stand in for the late only")};
}

std::string promise_of_bsp(const JobConfig& job, const StepRule& rule) {
  const std::int64_t v = job.cluster.logical_workers;
  const std::string text =
      (rule.delay == 0 ? "bsp"
                       : fmt::format("bsp, delay {}: step t is computed with the values after step t-{}",
                                     rule.delay, rule.delay + 1)) +
      ": the same bits whatever the timing, and on any number of servers";
  if (v == 0) return text + "; of workers too with cluster.logical_workers";
  return text + fmt::format(" and of workers up to {}", with_commas(v));
}

// The periods, in steps, after which a delay, or what is kept back, ends: none is a multiple of another.
std::vector<std::int64_t> drain_periods(const JobConfig& job) {
  const std::int64_t drains = job.cluster.drain_every_steps, saves = job.checkpoint.every_steps;
  if (saves <= 0 || saves % drains == 0) return {drains};
  if (drains % saves == 0) return {saves};
  return {drains, saves};
}

// Where a delay, or what is kept back, ends, and with it what a checkpoint need not hold.
std::string drains_text(const JobConfig& job, const char* what) {
  std::string periods;
  for (const std::int64_t n : drain_periods(job))
    periods += fmt::format("{}every {}", periods.empty() ? "" : " and ", with_commas(n));
  return fmt::format(
      "{}, and checkpoints are cut, {} steps{} at the end", what, periods,
      job.data.test_source() != nullptr && job.train.eval_every_epochs > 0 ? ", at evaluations and" : " and");
}

// In how many steps before such a one what is kept back goes up in parts, at most: FlushRule::part_sent().
std::int64_t settling_steps(const JobConfig& job) {
  return std::min(job.cluster.settle_steps, std::ranges::min(drain_periods(job)) / 2) - 1;
}

std::string bound_text(const StepRule& rule) {
  if (rule.consistency == Consistency::asp)
    return "asp: values may be behind those of bsp by any number of steps";
  return fmt::format("ssp: values are at most {} behind those of bsp", counted(rule.staleness, "step"));
}

// Asynchrony works as momentum does, which a velocity already has (Mitliagkas et al., Allerton 2016); nothing
// for a rule without one.
std::string momentum_text(const OptimizerConfig& optimizer, const char* why) {
  switch (optimizer.type) {
    case OptimizerType::momentum:
    case OptimizerType::nesterov:
      if (optimizer.momentum <= 0) return "";
      return fmt::format(
          "lr/(1-momentum) = {:.4g}; {}: where the loss does not fall, lower the rate or momentum",
          optimizer.learning_rate / (1 - optimizer.momentum), why);
    case OptimizerType::adam:
    case OptimizerType::adamw:
      if (optimizer.beta1 <= 0) return "";
      return fmt::format("beta1 = {:.4g}; {}: where the loss does not fall, lower it", optimizer.beta1, why);
    default:
      return "";
  }
}

}  // namespace

std::string mode_text(const StepRule& rule) {
  if (rule.has_backups()) return "BSP, " + backups_text(rule);
  if (rule.is_bsp()) return rule.delay == 0 ? "BSP" : fmt::format("BSP, delay {}", rule.delay);
  const std::string name =
      rule.consistency == Consistency::asp ? "ASP" : fmt::format("SSP({})", rule.staleness);
  return fmt::format("{}, dealing {}", name, dealing_name(rule));
}

std::vector<std::string> mode_lines(const JobConfig& job, const StepRule& rule) {
  if (rule.has_backups()) return lines_of_backups(rule);
  std::vector<std::string> lines;
  const auto add_momentum = [&] {
    const char* why = rule.is_bsp() ? "a delay adds momentum" : "asynchrony adds momentum";
    if (const std::string text = momentum_text(job.optimizer, why); !text.empty())
      lines.push_back("  optimizer    " + text);
  };
  if (rule.is_bsp()) {
    lines.push_back("  consistency  " + promise_of_bsp(job, rule));
    if (rule.delay == 0) return lines;
    lines.push_back("               " + drains_text(job, "all workers come together"));
    add_momentum();
    return lines;
  }
  lines.push_back(
      fmt::format("  consistency  {}; each sample of an epoch is learnt exactly once", bound_text(rule)));
  lines.push_back(
      fmt::format("               bits depend on timing{}; a resumed run is a valid one, not the same one",
                  job.cluster.logical_workers > 0 ? ", with cluster.logical_workers all the same" : ""));
  add_momentum();
  return lines;
}

std::vector<std::string> compression_lines(const JobConfig& job, const StepRule& rule,
                                           const VariableTable& variables) {
  std::map<std::string, int> n_of;
  bool keeps_back = false;
  for (const auto& [name, compression] : variables.compressions()) {
    ++n_of[compression.str()];
    keeps_back = keeps_back || compression.has_residual();
  }
  std::vector<std::string> lines;
  lines.reserve(n_of.size() + 3);
  for (const auto& [text, n] : n_of) {
    lines.push_back(fmt::format("{}{} of {}", lines.empty() ? "  compression  " : "               ", text,
                                counted(n, "variable")));
  }
  if (!keeps_back) return lines;
  lines.push_back("               " +
                  (rule.delay > 0 ? "what is kept back of gradients is sent where all workers come together"
                                  : drains_text(job, "what is kept back of gradients is sent")));
  if (const std::int64_t n = settling_steps(job); n > 0) {
    lines.push_back(fmt::format(
        "               in parts: with such a step and up to {} before it, whose gradients go up in full "
        "(cluster.settle_steps)",
        with_commas(n)));
  }
  const std::string text = momentum_text(job.optimizer, "what is kept back comes late, which adds momentum");
  if (rule.is_bsp() && rule.delay == 0 && !text.empty()) lines.push_back("  optimizer    " + text);
  return lines;
}

}  // namespace varscope
