// Values of a config beyond their types: durations, ranges of integers, paths, keys that are removed, and
// what is suggested for the words of other programs.
#include <gtest/gtest.h>

#include <cstdlib>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "common/base/clock.h"
#include "common/base/synonyms.h"
#include "common/base/text.h"
#include "common/config/config_override.h"
#include "common/config/job_config.h"
#include "common/config/paths.h"
#include "common/config/yaml_reader.h"

namespace varscope {
namespace {

constexpr const char* kJob =
    "job: {name: t}\n"
    "data: {train: {type: digits}}\n"
    "model: {loss: softmax_cross_entropy, layers: [{type: dense, units: 10}]}\n";

// As load_config reads it.
JobConfig load(const std::string& text, const std::vector<std::string>& overrides = {}) {
  ConfigNode root = read_yaml_text(text, "job.yaml");
  for (const std::string& o : overrides) apply_override(root, o);
  expand_paths(root, "job.yaml");
  return parse_job(root, "job.yaml");
}
JobConfig load_with(const std::vector<std::string>& overrides) { return load(kJob, overrides); }

template <class Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::config) << e.what();
    return e.what();
  }
  return "no error";
}

std::string refusal_of(const std::string& override_) {
  std::string message = message_of([&] { load_with({override_}); });
  const std::string position = "--set " + override_ + ": ";
  EXPECT_TRUE(message.starts_with(position)) << message;
  return message.starts_with(position) ? message.substr(position.size()) : message;
}

// The keys of a section whose values are numbers, each with what makes it apply.
struct NumberKey {
  std::string path;
  Rule rule;
  bool is_integer;
  std::string selector;  // what the section must say to have it: "type: adam", or empty
};
class NumberKeys final : public Keys {
 public:
  NumberKeys(std::string path, std::vector<NumberKey>& found) : path_(std::move(path)), found_(found) {}

 private:
  void on_value(const KeyInfo& info, const ValueRef& value) override {
    const bool is_integer = std::holds_alternative<std::int64_t*>(value) ||
                            std::holds_alternative<std::vector<std::int64_t>*>(value);
    if (!is_integer && !std::holds_alternative<double*>(value)) return;
    std::string selector = type_;
    if (*info.rule.only_for) {
      const std::string list = info.rule.only_for;
      selector = fmt::format("{}{}{}: {}", type_, type_.empty() ? "" : ", ", selector_name(),
                             list.substr(0, list.find(',')));
    }
    found_.push_back({join_keys(path_, info.name), info.rule, is_integer, selector});
  }
  void on_choice(const KeyInfo&, const ChoiceRef&) override {}
  void on_variant(const KeyInfo& info, const VariantRef& variant) override {
    for (std::size_t i = 0; i < variant.names.size(); ++i) {
      type_ = fmt::format("{}: {}", info.name, variant.names[i]);
      variant.describe_type(i, *this);
    }
  }
  void on_section(const KeyInfo& info, const SectionRef& section) override {
    NumberKeys inner(join_keys(path_, info.name), found_);
    section.describe(inner);
  }
  std::string path_;
  std::string type_;
  std::vector<NumberKey>& found_;
};
std::vector<NumberKey> number_keys() {
  std::vector<NumberKey> found;
  NumberKeys keys("", found);
  JobConfig any;
  any.describe(keys);
  return found;
}

// --- durations

TEST(Durations, EveryOneTakesAnyFiniteTimeAndOff) {
  int n = 0;
  for (const NumberKey& key : number_keys()) {
    const std::string unit = key.rule.unit;
    if (unit != "seconds" && unit != "hours") continue;
    ++n;
    for (const char* value : {"1e10", "1e300", "1.7976931348623157e308", "0", "off", "0.0"})
      EXPECT_NO_THROW(load_with({key.path + "=" + value})) << key.path << " " << value;
    EXPECT_EQ(refusal_of(key.path + "=-1"),
              fmt::format("{}: -1 is out of range; allowed: {}", key.path, range_text(key.rule)));
    EXPECT_TRUE(range_text(key.rule).ends_with(", or off")) << key.path;
    EXPECT_EQ(refusal_of(key.path + "=never"),
              key.path + ": expected a number or off, got \"never\"; did you mean off?");
    EXPECT_EQ(refusal_of(key.path + "='off'"),
              key.path + ": expected a number or off, got \"off\" in quotes; did you mean off?");
  }
  EXPECT_EQ(n, 7);
}

TEST(Durations, OffIsZeroAndHasNoLimit) {
  const JobConfig job = load_with({"cluster.stall_timeout_s=off", "checkpoint.timeout_s=0"});
  EXPECT_EQ(job.cluster.stall_timeout_s, 0);
  EXPECT_EQ(time_limit(job.cluster.stall_timeout_s), std::numeric_limits<double>::infinity());
  EXPECT_EQ(time_limit(2.5), 2.5);
  EXPECT_EQ(dump(job).find("off"), std::string::npos);
  EXPECT_TRUE(load(dump(job)) == job);
  EXPECT_EQ(refusal_of("cluster.stall_timeout_s=0.5"),
            "cluster.stall_timeout_s: 0.5 is out of range; allowed: 1 or more (seconds), or off");
}

TEST(Durations, NeverOverflowAsNanoseconds) {
  EXPECT_EQ(ns_of(1.5), 1'500'000'000);
  EXPECT_EQ(ns_of(-1), 0);
  for (const double seconds :
       {1e10, 1e300, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_GT(ns_of(seconds), std::int64_t{99} * 365 * 86400 * 1'000'000'000) << seconds;
    EXPECT_LT(ns_of(seconds), std::numeric_limits<std::int64_t>::max() / 2) << seconds;
  }
}

TEST(Durations, AreShownWhateverTheirSize) {
  EXPECT_EQ(duration_text(86400), "24h 00m");
  EXPECT_EQ(duration_text(1e10), "2.78e+06 hours");
  EXPECT_EQ(duration_text(1e300), "2.78e+296 hours");
  EXPECT_EQ(duration_text(std::numeric_limits<double>::quiet_NaN()), "0.0 s");
  EXPECT_EQ(duration_text(-5), "0.0 s");
}

// --- integers

TEST(Integers, EveryKeyHasARangeAndSaysItInPlace) {
  for (const NumberKey& key : number_keys()) {
    if (!key.is_integer) continue;
    SCOPED_TRACE(key.path);
    const bool is_seed = key.path.ends_with("seed");  // all bits of a seed count
    EXPECT_TRUE(key.rule.min) << "integers have a lower bound";
    EXPECT_EQ(key.rule.max.has_value(), !is_seed);
    const bool is_list = key.path.ends_with("boundaries");
    for (const char* huge : {"1000000000000000000", "9223372036854775807", "9223372036854775808",
                             "-9223372036854775808", "-99999999999999999999999"}) {
      if (is_seed && std::string(huge) == "9223372036854775807") continue;
      if (is_seed && std::string(huge) == "1000000000000000000") continue;
      const std::string section = key.path.substr(0, key.path.rfind('.'));
      const std::string name = key.path.substr(section.size() + 1);
      // One section whole, so that it has what the selector wants.
      std::string value = fmt::format("{}: {}", name, is_list ? fmt::format("[{}]", huge) : huge);
      if (!key.selector.empty()) value = fmt::format("{}, {}", key.selector, value);
      if (section == "data.train" || section == "data.test") {
        if (key.selector.empty()) value = "type: digits, " + value;
        if (value.starts_with("type: text") || value.starts_with("type: skipgram")) value += ", file: f";
        if (value.starts_with("type: csv") || value.starts_with("type: libsvm") ||
            value.starts_with("type: tfrecord"))
          value += ", files: f";
        if (value.starts_with("type: idx")) value += ", images: f, labels: f";
        if (value.starts_with("type: npy")) value += ", inputs: f, labels: f";
        if (value.starts_with("type: npz")) value += ", file: f";
      }
      if (section == "checkpoint.keep_best") value += ", metric: loss";
      if (section == "job") value += ", name: t";
      const std::string message = message_of([&] { load_with({fmt::format("{}={{{}}}", section, value)}); });
      EXPECT_NE(message.find(
                    fmt::format("{}{}: {} is out of range; allowed: ", key.path, is_list ? ".0" : "", huge)),
                std::string::npos)
          << message;
    }
  }
}

TEST(Integers, AreNotTakenModulo) {
  EXPECT_EQ(refusal_of("cluster.logical_workers=4294967298"),
            "cluster.logical_workers: 4294967298 is out of range; allowed: 0 to 1048576");
  EXPECT_EQ(refusal_of("train.epochs=1000000000000000000"),
            "train.epochs: 1000000000000000000 is out of range; allowed: 1 to 1000000000000 (epochs)");
  EXPECT_EQ(refusal_of("job.seed=9223372036854775808"),
            "job.seed: 9223372036854775808 is out of range; allowed: 0 to 9223372036854775807");
  EXPECT_EQ(load_with({"job.seed=9223372036854775807"}).job.seed, std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(load_with({"train.epochs=1000000000000"}).train.epochs, 1000000000000);
}

// --- paths

class Paths : public testing::Test {
 protected:
  void SetUp() override {
    setenv("HOME", "/home/someone", 1);
    setenv("VARSCOPE_TEST_A", "/a b", 1);
    setenv("VARSCOPE_TEST_B", "$HOME", 1);
    setenv("VARSCOPE_TEST_EMPTY", "", 1);
    unsetenv("VARSCOPE_TEST_UNSET");
  }
  static std::string run_dir(const std::string& text) {
    return load("job: {name: t, run_dir: \"" + text + "\"}\n" + std::string(kJob).substr(15)).job.run_dir;
  }
  static std::string problem(const std::string& text) {
    return message_of([&] { run_dir(text); });
  }
};

TEST_F(Paths, AreExpandedAsAShellWould) {
  EXPECT_EQ(run_dir("~"), "/home/someone");
  EXPECT_EQ(run_dir("~/x"), "/home/someone/x");
  EXPECT_EQ(run_dir("~root/x"), "/root/x");
  EXPECT_EQ(run_dir("${VARSCOPE_TEST_A}/x"), "/a b/x");
  EXPECT_EQ(run_dir("$VARSCOPE_TEST_A/x"), "/a b/x");
  EXPECT_EQ(run_dir("p${VARSCOPE_TEST_A}${VARSCOPE_TEST_A}q"), "p/a b/a bq");
  EXPECT_EQ(run_dir("x${VARSCOPE_TEST_EMPTY}y"), "xy");
  EXPECT_EQ(run_dir("${VARSCOPE_TEST_B}/x"), "$HOME/x") << "what is put in is not looked at again";
  EXPECT_EQ(run_dir("a$$b"), "a$b");
  EXPECT_EQ(run_dir("$${HOME}"), "${HOME}");
  EXPECT_EQ(run_dir("a~b/~"), "a~b/~");
  EXPECT_EQ(run_dir("./~"), "./~");
}

TEST_F(Paths, SayWhatCannotBeExpandedAndWhere) {
  const std::string at = "job.yaml:1:25: job.run_dir: ";
  EXPECT_EQ(
      problem("${VARSCOPE_TEST_UNSET}/x"),
      at + "\"${VARSCOPE_TEST_UNSET}/x\": the environment has no variable VARSCOPE_TEST_UNSET; set it, or "
           "write $$ for a dollar sign");
  EXPECT_EQ(
      problem("$VARSCOPE_TEST_UNSET"),
      at + "\"$VARSCOPE_TEST_UNSET\": the environment has no variable VARSCOPE_TEST_UNSET; set it, or write "
           "$$ for a dollar sign");
  EXPECT_EQ(problem("a${b"), at + "\"a${b\": ${ without a }");
  EXPECT_EQ(problem("a${}"), at + "\"a${}\": \"\" is no name of a variable; write $$ for a dollar sign");
  EXPECT_EQ(problem("${a b}"),
            at + "\"${a b}\": \"a b\" is no name of a variable; write $$ for a dollar sign");
  for (const char* text : {"a$", "a$/b", "$1"}) {
    EXPECT_EQ(
        problem(text),
        fmt::format("{}\"{}\": no name of a variable comes after $; write $$ for a dollar sign", at, text));
  }
  EXPECT_EQ(problem("~no-such-user-here/x"),
            at + "\"~no-such-user-here/x\": there is no user \"no-such-user-here\" whose home folder "
                 "~no-such-user-here could be");
  EXPECT_EQ(
      refusal_of("checkpoint.dir=~"),
      "checkpoint.dir: expected a text, got nothing (the value is empty, or a bare ~, which YAML reads as "
      "nothing; the home folder is \"~\")");
  EXPECT_EQ(
      refusal_of("checkpoint.dir=${VARSCOPE_TEST_UNSET}"),
      "checkpoint.dir: \"${VARSCOPE_TEST_UNSET}\": the environment has no variable VARSCOPE_TEST_UNSET; set "
      "it, "
      "or write $$ for a dollar sign");
}

TEST_F(Paths, AreAllKeysOfFilesAndFoldersAndNoOthers) {
  const JobConfig job =
      load_with({"job.run_dir=~/a", "checkpoint.dir=~/b", "warm_start.from=~/c",
                 "data.train={type: idx, images: ~/d, labels: ~/e}",
                 "data.test={type: idx, images: $HOME/f, labels: $HOME/g}", "checkpoint.variables=['~/h']"});
  EXPECT_EQ(job.run_dir(), "/home/someone/a");
  EXPECT_EQ(job.checkpoint_dir(), "/home/someone/b");
  EXPECT_EQ(job.warm_start->from, "/home/someone/c");
  EXPECT_EQ(job.data.train.get<IdxSource>()->images, "/home/someone/d");
  EXPECT_EQ(job.data.train.get<IdxSource>()->labels, "/home/someone/e");
  EXPECT_EQ(job.data.test->get<IdxSource>()->images, "/home/someone/f");
  EXPECT_EQ(job.data.test->get<IdxSource>()->labels, "/home/someone/g");
  EXPECT_EQ(job.checkpoint.variables.front(), "~/h");
  const JobConfig arrays = load_with({"data.train={type: npy, inputs: {a: ~/i, b: /j}, labels: ~/k}",
                                      "data.test={type: npz, file: ~/l, inputs: ~x}"});
  EXPECT_EQ(arrays.data.train.get<NpySource>()->inputs.find("a")->scalar, "/home/someone/i");
  EXPECT_EQ(arrays.data.train.get<NpySource>()->inputs.find("b")->scalar, "/j");
  EXPECT_EQ(arrays.data.train.get<NpySource>()->labels, "/home/someone/k");
  EXPECT_EQ(arrays.data.test->get<NpzSource>()->file, "/home/someone/l");
  EXPECT_EQ(arrays.data.test->get<NpzSource>()->inputs.scalar, "~x") << "an array is no path";
  EXPECT_EQ(load_with({"data.train={type: text, file: ~/t}"}).data.train.get<TextSource>()->file,
            "/home/someone/t");
  EXPECT_EQ(load_with({"data.train={type: fashion_mnist, folder: ~/m}"})
                .data.train.get<FashionMnistSource>()
                ->folder,
            "/home/someone/m");
}

TEST_F(Paths, SurviveADump) {
  const JobConfig job = load_with({"job.run_dir=/x/$${HOME}/$$$$a", "checkpoint.dir=${VARSCOPE_TEST_B}"});
  EXPECT_EQ(job.run_dir(), "/x/${HOME}/$$a");
  EXPECT_EQ(value_text(job, "job.run_dir"), "/x/${HOME}/$$a\n");
  EXPECT_TRUE(load(dump(job)) == job) << dump(job);
  EXPECT_EQ(dump(load(dump(job))), dump(job));
}

// --- removal

TEST(Removal, TakesAKeyAway) {
  const std::string text = std::string(kJob) +
                           "optimizer: {type: momentum, momentum: 0.5}\ntrain: {epochs: 7, batch: 3}\n"
                           "warm_start: {from: c}\n";
  EXPECT_EQ(load(text, {"train.epochs="}).train.epochs, 1);
  EXPECT_EQ(load(text, {"train.epochs="}).train.batch, 3);
  EXPECT_EQ(load(text, {"train="}).train.batch, 128);
  EXPECT_EQ(load(text, {"optimizer.type=sgd", "optimizer.momentum="}).optimizer.type, OptimizerType::sgd);
  EXPECT_FALSE(load(text, {"warm_start="}).warm_start);
  EXPECT_EQ(load(text, {"train.epochs=9", "train.epochs="}).train.epochs, 1);
  EXPECT_EQ(load(text, {"model.layers.0={type: dense, units: 3, note: 4}", "model.layers.0.note="})
                .model.layers.items[0]
                .find("note"),
            nullptr);
  const JobConfig two =
      load(text, {"model.layers=[{type: flatten}, {type: dense, units: 10}]", "model.layers.0="});
  ASSERT_EQ(two.model.layers.items.size(), 1U);
  EXPECT_EQ(two.model.layers.items[0].find("type")->scalar, "dense");
}

TEST(Removal, OfAKeyThatIsNotSetChangesNothing) {
  EXPECT_TRUE(load_with({"train.epochs="}) == load_with({}));
  EXPECT_TRUE(load_with({"optimizer.clip.limit=", "data.test="}) == load_with({}));
  EXPECT_EQ(load_with({"job.run_dir=''"}).job.run_dir, "") << "quotes are the empty text";
}

TEST(Removal, OfWhatCannotBeThereIsRefused) {
  EXPECT_EQ(refusal_of("train.epohcs="),
            "there is no train.epohcs to remove; did you mean \"train.epochs\"?");
  EXPECT_EQ(refusal_of("nothing.like.this="), "there is no nothing.like.this to remove");
  EXPECT_EQ(refusal_of("model.layers.0.unitz="),
            "there is no model.layers.0.unitz to remove; did you mean \"units\"?");
  EXPECT_EQ(
      refusal_of("model.layers.1="),
      "model.layers is a list of 1, \"1\" is not one of its positions (they begin at 0); expected --set "
      "KEY=VALUE, for example --set train.epochs=3");
  EXPECT_EQ(
      message_of([] { load_with({"job.name="}); }).find("job.yaml:1:1: job.name: missing; section job needs"),
      0U);
}

// --- suggestions

TEST(Synonyms, AreSuggestedForKeysOfOtherPrograms) {
  const auto suggests = [](const std::string& override_, const std::string& name) {
    const std::string message = message_of([&] { load_with({override_}); });
    EXPECT_NE(message.find(fmt::format("; did you mean \"{}\"?", name)), std::string::npos) << message;
  };
  suggests("optimizer.lr=1", "learning_rate");
  suggests("train.lr=1", "optimizer.learning_rate");
  suggests("lr=1", "optimizer.learning_rate");
  suggests("train.batch_size=1", "batch");
  suggests("batch_size=1", "train.batch");
  suggests("train.num_epochs=1", "epochs");
  suggests("train.steps=1", "max_steps");
  suggests("optimizer.eps=1", "epsilon");
  suggests("optimizer.wd=1", "weight_decay");
  suggests("optimizer.l2=1", "weight_decay");
  suggests("optimizer.weightdecay=1", "weight_decay");
  suggests("optimizer.lambda1=1", "l1");
  suggests("optimizer.initial_accumulator_value=1", "initial_accumulator");
  suggests("optimizer.type=ftrl-proximal", "ftrl");
  suggests("optimizer.type=gd", "sgd");
  suggests("model.loss=mse", "mean_squared_error");
  suggests("model.loss=cross-entropy", "softmax_cross_entropy");
  suggests("model.loss=BCE", "sigmoid_cross_entropy");
  suggests("model.dtype=float", "float32");
  suggests("cluster.num_servers=1", "servers");
  suggests("checkpoint.max_to_keep=1", "keep");
  suggests("job.output_dir=x", "run_dir");
}

TEST(Synonyms, KnowNothingThatIsNoCandidate) {
  EXPECT_EQ(synonym_of("lr", {"batch", "epochs"}), "");
  EXPECT_EQ(synonym_of("", {"batch"}), "");
  EXPECT_EQ(synonym_of("Batch-Size", {"batch"}), "batch");
  EXPECT_EQ(synonym_of("linear", {"dense", "conv2d"}), "dense");
  EXPECT_EQ(synonym_of("SiLU", {"relu", "swish"}), "swish");
  EXPECT_EQ(synonym_of("async", {"bsp", "ssp", "asp"}), "asp");
  EXPECT_EQ(synonym_of("stale", {"bsp", "ssp", "asp"}), "ssp");
  EXPECT_EQ(synonym_of("bfloat16", {"none", "bf16"}), "bf16");
  EXPECT_EQ(synonym_of("linear", {"cosine", "polynomial"}), "polynomial");
}

TEST(Suggestions, OfTheRightForm) {
  EXPECT_EQ(refusal_of("train.metrics=accuracy"),
            "train.metrics: expected a list of texts, got \"accuracy\"; did you mean [accuracy]?");
  EXPECT_EQ(refusal_of("train.batch=[64]"), "train.batch: expected an integer, got a list; did you mean 64?");
  EXPECT_EQ(refusal_of("train.batch=64.0"),
            "train.batch: expected an integer, got \"64.0\"; did you mean 64?");
  EXPECT_EQ(refusal_of("train.shuffle=off"),
            "train.shuffle: expected true or false, got \"off\"; did you mean false?");
  EXPECT_EQ(refusal_of("optimizer.schedule={type: piecewise, boundaries: 10, factors: [1]}"),
            "optimizer.schedule.boundaries: expected a list of integers, got \"10\"; did you mean [10]?");
}

}  // namespace
}  // namespace varscope
