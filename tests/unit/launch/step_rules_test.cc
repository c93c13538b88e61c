// Which rule a job's keys and model make, what is refused, and what the header says of it.
#include "launch/job/step_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/config/yaml_reader.h"
#include "launch/commands/plan.h"
#include "launch/job/check_config.h"
#include "launch/job/job_setup.h"
#include "launch/job/job_warnings.h"
#include "launch/observe/mode_words.h"
#include "launch/observe/terminal.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kDigits = "{type: digits, samples: 40, size: 8}";
constexpr const char* kText = "{type: text, file: none.txt, vocabulary: 9, steps: 3}";
constexpr const char* kDense =
    "    - {type: dense, scope: h, units: 6}\n    - {type: dense, scope: out, units: 10}\n";
constexpr const char* kLstm =
    "    - {type: lstm, scope: r, units: 4}\n    - {type: dense, scope: out, units: 10}\n";
constexpr const char* kReader =
    "    - {type: embedding, scope: e, vocabulary: 9, units: 3}\n"
    "    - {type: lstm, scope: r, units: 4}\n"
    "    - {type: dense, scope: out, units: 9, each_step: true}\n";

// Lines 1 to 6, then layers.
JobConfig job(const std::string& cluster, const std::string& layers = kDense,
              const std::string& data = kDigits,
              const std::string& optimizer = "{type: sgd, learning_rate: 0.1}") {
  return parse_job(read_yaml_text("job: {name: t}\ncluster: {" + cluster + "}\ndata: {train: " + data +
                                      "}\noptimizer: " + optimizer +
                                      "\nmodel:\n  loss: softmax_cross_entropy\n  layers:\n" + layers,
                                  "job.yaml"),
                   "job.yaml");
}

std::string refusal(const JobConfig& config) {
  return error_of([&] { check_without_data(config, LayerRegistry::built_in()); });
}

TEST(StepRules, AutomaticDealingDependsOnWhetherStateIsCarriedOn) {
  const auto dealing = [](const std::string& keys, bool carries) {
    return step_rule_of(job(keys), carries).dealing;
  };
  EXPECT_EQ(dealing("consistency: asp", false), Dealing::to_whoever_asks);
  EXPECT_EQ(dealing("consistency: asp", true), Dealing::in_place);
  EXPECT_EQ(dealing("consistency: asp, dealing: static", false), Dealing::in_place);
  EXPECT_EQ(dealing("consistency: ssp, staleness: 1, dealing: dynamic", false), Dealing::to_whoever_asks);
  EXPECT_EQ(dealing("consistency: bsp", false), Dealing::in_place);
  const StepRule ssp = step_rule_of(job("consistency: ssp, staleness: 3"), false);
  EXPECT_EQ(ssp.consistency, Consistency::ssp);
  EXPECT_EQ(ssp.staleness, 3);
}

// Rows of images are sequences, too, but each sample begins anew.
TEST(StepRules, StateIsCarriedOnOverATextAlone) {
  const auto carries = [](const std::string& layers, bool is_sequential) {
    const LayerRegistry all = LayerRegistry::built_in();
    const auto model = load_worker_model(job("servers: 1", layers), all);
    EXPECT_FALSE(carries_state(*model));
    return carries_state(model->model.graph, is_sequential);
  };
  EXPECT_FALSE(carries(kDense, true));
  EXPECT_FALSE(carries(kLstm, false));
  EXPECT_TRUE(carries(kLstm, true));
}

TEST(StepRules, DynamicDealingIsRefusedWhereStateStaysOnItsWorker) {
  EXPECT_THAT(
      refusal(job("consistency: asp, dealing: dynamic", kReader, kText)),
      AllOf(HasSubstr("job.yaml:2:38: cluster.dealing: dynamic does not go with \"r/"),
            HasSubstr("a state that is carried from step to step over the text and so stays on its worker; "
                      "set it to static, or remove it (auto)")));
  EXPECT_THAT(refusal(job("consistency: ssp, staleness: 1, dealing: dynamic", kReader, kText)),
              HasSubstr("cluster.dealing: dynamic does not go with"));
  for (const char* keys : {"consistency: asp", "consistency: asp, dealing: static", "consistency: bsp"})
    EXPECT_EQ(refusal(job(keys, kReader, kText)), "no error") << keys;
  EXPECT_EQ(refusal(job("consistency: asp, dealing: dynamic", kLstm)), "no error");
}

std::string constrained(const std::string& constraint, const std::string& more = "") {
  return "    - {type: dense, scope: h, units: 6, constraint: " + constraint + more + "}\n" +
         "    - {type: dense, scope: out, units: 10}\n";
}

TEST(StepRules, ConstraintsByNormAreOfBsp) {
  EXPECT_THAT(
      refusal(job("consistency: asp", constrained("{type: max_norm, limit: 3}"))),
      HasSubstr("job.yaml:8:7: variable \"h/weights\" has constraint max_norm(3), which does not go with "
                "cluster.consistency: asp: a norm needs one version of the values over all servers, and only "
                "bsp has one; remove the constraint, or set cluster.consistency to bsp"));
  EXPECT_THAT(refusal(job("consistency: ssp, staleness: 2", constrained("unit_norm"))),
              HasSubstr("has constraint unit_norm, which does not go with cluster.consistency: ssp: "));
  // A variable in parts goes by its own name.
  EXPECT_THAT(refusal(job("consistency: asp",
                          constrained("unit_norm", ", partitioner: {type: fixed_size, parts: 2}"))),
              HasSubstr("variable \"h/weights\" has constraint"));
  EXPECT_EQ(refusal(job("consistency: bsp", constrained("unit_norm"))), "no error");
  EXPECT_EQ(refusal(job("consistency: asp", constrained("non_neg"))), "no error");
  EXPECT_EQ(refusal(job("consistency: asp", constrained("unit_norm", ", trainable: false"))), "no error");
}

// The rows of a table are whole on their servers; those of a dense embedding may be cut.
TEST(StepRules, RowsOfTablesKeepToTheirNormsInAnyMode) {
  const auto embedding = [](const std::string& keys) {
    return "    - {type: embedding, scope: e, units: 3, constraint: unit_norm, " + keys + "}\n" +
           "    - {type: dense, scope: out, units: 9, each_step: true}\n";
  };
  EXPECT_EQ(refusal(job("consistency: asp", embedding("table: {parts: 2}"), kText)), "no error");
  EXPECT_THAT(refusal(job("consistency: asp", embedding("vocabulary: 9"), kText)),
              HasSubstr("has constraint unit_norm of each row, which does not go with"));
}

// With data as without them.
TEST(StepRules, TrainingRefusesInTheSameWords) {
  const JobConfig config = job("consistency: asp", constrained("unit_norm"));
  const std::string trained = error_of([&] { load_worker_model(config, LayerRegistry::built_in()); });
  EXPECT_THAT(trained, HasSubstr("variable \"h/weights\" has constraint unit_norm"));
  EXPECT_EQ(trained, refusal(config));
}

// --- backup workers

TEST(BackupRules, WhatADroppedStepWouldLeaveAHoleInIsRefused) {
  EXPECT_EQ(refusal(job("backup_workers: 1")), "no error");
  EXPECT_THAT(
      refusal(job("backup_workers: 1", kReader, kText)),
      AllOf(HasSubstr("job.yaml:2:27: cluster.backup_workers: does not go with \"r/"),
            HasSubstr("a state that is carried from step to step over the text: a dropped step would be "
                      "missing in it; remove the key")));
  const std::string table =
      "    - {type: embedding, scope: e, units: 3, table: {parts: 2}}\n"
      "    - {type: dense, scope: out, units: 9, each_step: true}\n";
  EXPECT_EQ(refusal(job("backup_workers: 1", table, kText)), "no error");
  const auto compressed = [](const std::string& type) {
    return "    - {type: dense, scope: h, units: 64, compression: {type: " + type + "}}\n" +
           "    - {type: dense, scope: out, units: 10}\n";
  };
  for (const char* lossy : {"onebit", "topk"}) {
    EXPECT_THAT(refusal(job("backup_workers: 1", compressed(lossy))),
                HasSubstr("job.yaml:2:27: cluster.backup_workers: does not go with the compression of \"h/"))
        << lossy;
  }
  EXPECT_EQ(refusal(job("backup_workers: 1", compressed("bf16"))), "no error");
}

TEST(BackupRules, AreFewerThanWorkersWithALogicalWorkerEach) {
  const auto told = [](const std::string& keys, int n_workers) {
    const JobConfig config = job(keys);
    return error_of([&] {
      check_backups_of_cluster(
          config, assign_roles(std::vector<std::string>(static_cast<std::size_t>(n_workers + 1), "a"), 1,
                               static_cast<int>(config.cluster.logical_workers)));
    });
  };
  EXPECT_EQ(told("backup_workers: 2", 3), "no error");
  EXPECT_EQ(told("backup_workers: 2, logical_workers: 3", 3), "no error");
  EXPECT_THAT(
      told("backup_workers: 3", 3),
      HasSubstr(
          "job.yaml:2:27: cluster.backup_workers: 3 is too many for 3 workers: a step needs one at "
          "least; set it to 2 or less, or have more workers: more ranks of mpirun, or --workers of varscope "
          "plan"));
  EXPECT_THAT(
      told("backup_workers: 1", 1),
      HasSubstr("1 is too many for 1 worker: a step needs one at least; set it to 0, or have more workers"));
  EXPECT_THAT(
      told("backup_workers: 1, logical_workers: 4", 3),
      HasSubstr("job.yaml:2:47: cluster.logical_workers: 4 does not go with cluster.backup_workers and 3 "
                "workers: of a worker all or nothing counts; remove the key, or set it to 3"));
  EXPECT_THAT(error_of([] {
                plan_text(job("backup_workers: 2"), 1, 2, PlanDetail::summary, LayerRegistry::built_in());
              }),
              HasSubstr("2 is too many for 2 workers"));
  EXPECT_THAT(plan_text(job("backup_workers: 1"), 1, 2, PlanDetail::summary, LayerRegistry::built_in()),
              AllOf(HasSubstr("; BSP, 1 backup worker\n  consistency  bsp, 1 backup worker: "),
                    HasSubstr(" + 16.0 KiB (answers that late workers take later)")));
}

TEST(StepRules, ADelayIsOfBsp) {
  EXPECT_EQ(step_rule_of(job("delay: 2"), false).delay, 2);
  EXPECT_TRUE(step_rule_of(job("delay: 2"), false).is_bsp());
  EXPECT_EQ(step_rule_of(job("consistency: ssp, staleness: 2"), false).delay, 0);
}

TEST(StepRules, ADelayGoesWithNormsCarriedStateAndTables) {
  for (const char* layers : {kDense, kLstm}) EXPECT_EQ(refusal(job("delay: 1", layers)), "no error");
  EXPECT_EQ(refusal(job("delay: 1", kReader, kText)), "no error");
  EXPECT_EQ(refusal(job("delay: 2", constrained("unit_norm"))), "no error");
  const std::string table =
      "    - {type: embedding, scope: e, units: 3, table: {parts: 2}}\n"
      "    - {type: dense, scope: out, units: 9, each_step: true}\n";
  EXPECT_EQ(refusal(job("delay: 2", table, kText)), "no error");
}

std::vector<std::string> words(const std::string& cluster, const std::string& optimizer = "{type: sgd}") {
  const JobConfig config = job(cluster, kDense, kDigits, optimizer);
  return mode_lines(config, step_rule_of(config, false));
}

TEST(ModeWords, SayWhatBspPromises) {
  EXPECT_THAT(
      words("consistency: bsp"),
      ElementsAre("  consistency  bsp: the same bits whatever the timing, and on any number of servers; of "
                  "workers too with cluster.logical_workers"));
  EXPECT_THAT(
      words("logical_workers: 4", "{type: adam}"),
      ElementsAre(
          "  consistency  bsp: the same bits whatever the timing, and on any number of servers and of "
          "workers up to 4"));
}

TEST(ModeWords, SayWhatADelayMeans) {
  const std::string drains = "               all workers come together, and checkpoints are cut, every 100";
  EXPECT_THAT(
      words("delay: 1, logical_workers: 4"),
      ElementsAre(
          "  consistency  bsp, delay 1: step t is computed with the values after step t-2: the same bits "
          "whatever the timing, and on any number of servers and of workers up to 4",
          drains + " steps and at the end"));
  EXPECT_THAT(
      words("delay: 2, drain_every_steps: 2000", "{type: momentum, learning_rate: 0.1, momentum: 0.9}"),
      ElementsAre(
          HasSubstr("bsp, delay 2: step t is computed with the values after step t-3: "),
          HasSubstr("every 2,000 steps"),
          "  optimizer    lr/(1-momentum) = 1; a delay adds momentum: where the loss does not fall, lower the rate or momentum"));
}

TEST(ModeWords, SayWhatBackupWorkersCost) {
  EXPECT_THAT(
      words("backup_workers: 2"),
      ElementsAre(
          "  consistency  bsp, 2 backup workers: a step is the mean over the first workers that have their "
          "gradient, all but 2",
          "               what the late ones have computed is dropped, and is listed; bits depend on who was late",
          "               a worker that dies ends the run all the same: backups stand in for the late only"));
}

TEST(ModeWords, SayWhatSspAndAspPromiseAndWhatNot) {
  const std::string timing =
      "               bits depend on timing; a resumed run is a valid one, not the same one";
  EXPECT_THAT(
      words("consistency: ssp, staleness: 2"),
      ElementsAre(
          "  consistency  ssp: values are at most 2 steps behind those of bsp; each sample of an epoch "
          "is learnt exactly once",
          timing));
  EXPECT_THAT(words("consistency: ssp, staleness: 1"), Contains(HasSubstr("at most 1 step behind")));
  EXPECT_THAT(
      words("consistency: asp"),
      ElementsAre("  consistency  asp: values may be behind those of bsp by any number of steps; each sample "
                  "of an epoch is learnt exactly once",
                  timing));
  EXPECT_THAT(
      words("consistency: asp, logical_workers: 4"),
      Contains(
          "               bits depend on timing, with cluster.logical_workers all the same; a resumed run "
          "is a valid one, not the same one"));
}

TEST(ModeWords, WarnOfMomentumOutsideBsp) {
  const auto last = [](const std::string& optimizer) { return words("consistency: asp", optimizer).back(); };
  EXPECT_EQ(
      last("{type: momentum, learning_rate: 0.1, momentum: 0.9}"),
      "  optimizer    lr/(1-momentum) = 1; asynchrony adds momentum: where the loss does not fall, lower the rate or momentum");
  EXPECT_EQ(
      last("{type: nesterov, learning_rate: 0.05, momentum: 0.5}"),
      "  optimizer    lr/(1-momentum) = 0.1; asynchrony adds momentum: where the loss does not fall, lower the rate or momentum");
  for (const char* type : {"adam", "adamw"})
    EXPECT_EQ(last(fmt::format("{{type: {}}}", type)),
              "  optimizer    beta1 = 0.9; asynchrony adds momentum: where the loss does not fall, lower it");
  for (const char* without : {"{type: sgd}", "{type: adagrad}", "{type: rmsprop}", "{type: ftrl}",
                              "{type: momentum, momentum: 0}", "{type: adam, beta1: 0}"})
    EXPECT_THAT(last(without), HasSubstr("bits depend on timing")) << without;
}

std::vector<std::string> words_of_compression(const std::string& of_first, const std::string& of_second,
                                              const std::string& cluster = "drain_every_steps: 50",
                                              const std::string& optimizer = "{type: sgd}") {
  const JobConfig config = job(cluster,
                               "    - {type: dense, scope: h, units: 40, compression: " + of_first +
                                   "}\n    - {type: dense, scope: g, units: 40, compression: " + of_second +
                                   "}\n    - {type: dense, scope: out, units: 10}\n",
                               kDigits, optimizer);
  return compression_lines(config, step_rule_of(config, false),
                           load_worker_model(config, LayerRegistry::built_in())->table);
}

TEST(CompressionWords, SayHowVariablesTravel) {
  EXPECT_THAT(words_of_compression("none", "none"), ElementsAre());
  EXPECT_THAT(words_of_compression("bf16", "bf16"), ElementsAre("  compression  bf16 of 2 variables"));
  EXPECT_THAT(words_of_compression("none", "{type: fp16, values: bf16}"),
              ElementsAre("  compression  fp16, bf16 values of 1 variable"));
}

TEST(CompressionWords, SayWhenWhatIsKeptBackIsSent) {
  EXPECT_THAT(words_of_compression("bf16", "{type: topk, ratio: 0.02}"),
              ElementsAre("  compression  bf16 of 1 variable", "               topk(0.02) of 1 variable",
                          "               what is kept back of gradients is sent, and checkpoints are cut, "
                          "every 50 steps and at the end",
                          "               in parts: with such a step and up to 9 before it, whose "
                          "gradients go up in full "
                          "(cluster.settle_steps)"));
  EXPECT_THAT(words_of_compression("none", "onebit", "settle_steps: 1").back(), HasSubstr("at the end"));
  EXPECT_THAT(words_of_compression("none", "onebit", "settle_steps: 60, drain_every_steps: 50").back(),
              HasSubstr("up to 24 before it"))
      << "half of the steps between two";
  EXPECT_THAT(words_of_compression("none", "onebit", "delay: 1").at(1),
              HasSubstr("what is kept back of gradients is sent where all workers come together"));
}

TEST(ModeWords, NamePeriodsOnceAndEvaluationsWhereThereAreSome) {
  const JobConfig with_test = job("delay: 1", kDense, std::string(kDigits) + ", test: " + kDigits);
  EXPECT_THAT(mode_lines(with_test, step_rule_of(with_test, false)).at(1),
              HasSubstr(", every 100 steps, at evaluations and at the end"));
  const auto drains = [](const std::string& cluster) { return words(cluster).at(1); };
  EXPECT_THAT(drains("delay: 1, drain_every_steps: 100}\ncheckpoint: {every_steps: 100"),
              HasSubstr(", every 100 steps"));
  EXPECT_THAT(drains("delay: 1, drain_every_steps: 100}\ncheckpoint: {every_steps: 500"),
              HasSubstr(", every 100 steps"));
  EXPECT_THAT(drains("delay: 1, drain_every_steps: 100}\ncheckpoint: {every_steps: 50"),
              HasSubstr(", every 50 steps"));
  EXPECT_THAT(drains("delay: 1, drain_every_steps: 100}\ncheckpoint: {every_steps: 30"),
              HasSubstr(", every 100 and every 30 steps"));
}

TEST(CompressionWarnings, AreOfWhatHasNoEffect) {
  const auto warnings = [](const std::string& cluster, const std::string& compression) {
    const JobConfig config =
        job(cluster, "    - {type: dense, scope: h, units: 40, compression: " + compression +
                         "}\n    - {type: dense, scope: out, units: 10}\n");
    return compression_warnings(config, load_worker_model(config, LayerRegistry::built_in())->table);
  };
  const std::string some = "servers: 1";
  EXPECT_THAT(warnings(some, "none"), ElementsAre());
  EXPECT_THAT(warnings(some, "bf16"), ElementsAre());
  EXPECT_THAT(warnings("settle_steps: 5, drain_every_steps: 20", "onebit"), ElementsAre());
  EXPECT_THAT(warnings("drain_every_steps: 20, delay: 1", "none"), ElementsAre());
  EXPECT_THAT(warnings(some, "{type: none, min_bytes: 4}"), ElementsAre());
  for (const char* in_vain :
       {"{type: bf16, min_bytes: 1000000}", "{type: none, values: bf16, min_bytes: 1000000}"}) {
    EXPECT_THAT(
        warnings(some, in_vain),
        ElementsAre(::testing::MatchesRegex(
            "job.yaml:[0-9]+:[0-9]+: compression: no variable is compressed: biases, embeddings, tables, what "
            "is not trained and what is smaller than min_bytes never are; remove it, or lower min_bytes")));
  }
  EXPECT_THAT(
      warnings("drain_every_steps: 20", "bf16"),
      ElementsAre(::testing::MatchesRegex(
          "job.yaml:[0-9]+:[0-9]+: cluster.drain_every_steps: has no effect in this run: only cluster.delay, "
          "and compression by onebit and topk, need it; remove it")));
  EXPECT_THAT(warnings("delay: 1, settle_steps: 5", "bf16"),
              ElementsAre(::testing::MatchesRegex(
                  "job.yaml:[0-9]+:[0-9]+: cluster.settle_steps: has no effect in "
                  "this run: only compression by onebit and topk needs it; remove it")));
}

TEST(CompressionWarnings, AreOfAStartBehindTheEnd) {
  const auto warnings = [](const std::string& compression, std::int64_t last) {
    const JobConfig config =
        job("servers: 1", "    - {type: dense, scope: h, units: 40, compression: " + compression +
                              "}\n    - {type: dense, scope: out, units: 10}\n");
    return start_step_warnings(config, load_worker_model(config, LayerRegistry::built_in())->table,
                               Clock(last));
  };
  EXPECT_THAT(warnings("{type: bf16, start_step: 100}", 101), ElementsAre());
  EXPECT_THAT(warnings("{type: bf16, start_step: 100}", 0), ElementsAre()) << "nobody knows how long it is";
  EXPECT_THAT(warnings("onebit", 10), ElementsAre());
  EXPECT_THAT(
      warnings("{type: bf16, start_step: 100}", 100),
      ElementsAre(::testing::MatchesRegex(
          "job.yaml:[0-9]+:[0-9]+: compression.start_step: 100 is not less than the 100 steps of this run: no "
          "gradient of \"h/weights\" is compressed; lower it")));
}

TEST(CompressionWords, WarnOfMomentum) {
  const auto last = [](const std::string& type, const std::string& cluster, const std::string& optimizer) {
    return words_of_compression(type, "none", cluster, optimizer).back();
  };
  const std::string momentum = "{type: momentum, learning_rate: 0.1, momentum: 0.9}";
  EXPECT_EQ(
      last("onebit", "servers: 1", momentum),
      "  optimizer    lr/(1-momentum) = 1; what is kept back comes late, which adds momentum: where the loss does not fall, lower the rate or momentum");
  EXPECT_THAT(last("onebit", "servers: 1", "{type: sgd}"), HasSubstr("up to 9 before it"));
  EXPECT_THAT(last("bf16", "servers: 1", momentum), HasSubstr("  compression  bf16"));
  EXPECT_THAT(last("onebit", "consistency: asp", momentum), Not(HasSubstr("optimizer")))
      << "the lines of the mode have said it";
}

TEST(CompressionWords, AreInThePlan) {
  const JobConfig config =
      job("servers: 1",
          "    - {type: dense, scope: h, units: 400, compression: bf16}\n    - {type: dense, units: 10}\n");
  EXPECT_THAT(plan_text(config, 1, 2, PlanDetail::summary, LayerRegistry::built_in()),
              HasSubstr("\n  compression  bf16 of 1 variable\n"));
}

TEST(ModeWords, NameTheModeAndWhoGetsWhat) {
  EXPECT_EQ(mode_text({}), "BSP");
  EXPECT_EQ(mode_text({.delay = 2}), "BSP, delay 2");
  EXPECT_EQ(mode_text({.backups = 1}), "BSP, 1 backup worker");
  EXPECT_EQ(mode_text({.backups = 3}), "BSP, 3 backup workers");
  EXPECT_EQ(mode_text({Consistency::ssp, 2, Dealing::to_whoever_asks}), "SSP(2), dealing dynamic");
  EXPECT_EQ(mode_text({Consistency::asp, 0, Dealing::in_place}), "ASP, dealing static");
}

TEST(ModeWords, AreInTheHeaderOfARun) {
  const JobConfig config = job("consistency: ssp, staleness: 2");
  const ClusterMap cluster = assign_roles({"n1", "n1", "n1"}, 1, 2);
  const VariableTable none;
  RunFacts facts{config, cluster, none, {"n1", "n1", "n1"}, TrainPlan{Clock(0), Clock(8), 4}, 8, 4,
                 "run",  1,       ""};
  facts.rule = step_rule_of(config, false);
  EXPECT_THAT(header_lines(facts),
              AllOf(Contains(HasSubstr("2 logical workers; SSP(2), dealing dynamic")),
                    Contains(HasSubstr("consistency  ssp: values are at most 2 steps behind")),
                    Contains(HasSubstr("bits depend on timing"))));
  const JobConfig bulk = job("consistency: bsp");
  const RunFacts of_bsp{bulk,  cluster, none, {"n1", "n1", "n1"}, TrainPlan{Clock(0), Clock(8), 4}, 8, 4,
                        "run", 1,       ""};
  EXPECT_THAT(header_lines(of_bsp), AllOf(Contains(HasSubstr("2 logical workers; BSP")),
                                          Contains(HasSubstr("consistency  bsp: the same bits")),
                                          Not(Contains(HasSubstr("depend on timing")))));
}

TEST(ModeWords, AreInThePlan) {
  const auto plan = [](const JobConfig& config) {
    return plan_text(config, 2, 2, PlanDetail::summary, LayerRegistry::built_in());
  };
  EXPECT_THAT(
      plan(job("consistency: asp", kDense, kDigits, "{type: momentum, learning_rate: 0.1, momentum: 0.9}")),
      AllOf(
          HasSubstr("t: 2 servers, 2 workers, 2 logical workers; ASP, dealing dynamic\n  consistency  asp: "),
          HasSubstr("\n  optimizer    lr/(1-momentum) = 1; ")));
  EXPECT_THAT(
      plan(job("consistency: bsp")),
      HasSubstr("t: 2 servers, 2 workers, 2 logical workers; BSP\n  consistency  bsp: the same bits"));
}

}  // namespace
}  // namespace varscope
