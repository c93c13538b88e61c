// The commands that do not train, on the bundled configs and on real runs; and what a run writes for other
// programs.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <regex>
#include <set>

#include <nlohmann/json.hpp>

#include "common/config/yaml_reader.h"
#include "common/placement/bucket_plan.h"
#include "common/placement/cluster.h"
#include "common/variables/placement.h"
#include "common/variables/slice.h"
#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

const std::string kDigits = config_file("digits_mlp.yaml");

std::vector<std::string> bundled_configs() {
  std::vector<std::string> files;
  for (const std::string& name : names_in(VARSCOPE_CONFIGS)) {
    if (name.ends_with(".yaml")) files.push_back(config_file(name));
  }
  return files;
}

// Reads a data set that has to be fetched first.
bool needs_data(const std::string& config) {
  return read_text(config).find("type: digits") == std::string::npos;
}

std::string output_of(const Args& args) {
  const Ended ended = run(varscope(args));
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_EQ(ended.err, "") << ended.all();
  return ended.out;
}

// --- help
// -----------------------------------------------------------------------------------------------------------

struct Subcommand {
  Args words;
  std::vector<std::string> options;
};
const Subcommand kSubcommands[] = {
    {{},
     {"train", "eval", "predict", "neighbors", "serve", "plan", "graph", "gradcheck", "config", "init",
      "data", "ingest", "checkpoint"}},
    {{"train"},
     {"config", "--set", "--resume", "--fresh", "--replay", "--from", "--check-numerics", "--profile"}},
    {{"eval"}, {"config", "--set", "--checkpoint", "--json"}},
    {{"predict"},
     {"model", "config", "--in", "--out", "--format", "--outputs", "--keep", "--fetch", "--gradients",
      "--generate", "--prompt", "--temperature", "--seed", "--set"}},
    {{"neighbors"}, {"model", "words", "--top", "--variable", "--json"}},
    {{"serve"},
     {"model", "config", "--listen", "--name", "--version-policy", "--require", "--threads", "--max-batch",
      "--max-delay-us", "--max-queue", "--exact", "--memory-mib", "--replace", "--poll-ms", "--drain-ms",
      "--no-wait", "--set"}},
    {{"plan"}, {"config", "--set", "--servers", "--workers"}},
    {{"graph"}, {"config", "--set", "--dot", "--evaluation"}},
    {{"gradcheck"}, {"config", "--set", "--samples", "--elements", "--tolerance"}},
    {{"config"}, {"config", "--set", "--explain", "--get"}},
    {{"init"}, {"file", "--label", "--delimiter"}},
    {{"ingest"},
     {"--from", "--to", "--max-records", "--max-seconds", "--max-backlog-mib", "--header", "--records",
      "--delimiter", "--suffix", "--end"}},
    {{"data"}, {"show"}},
    {{"data", "show"}, {"config", "--set", "--rows"}},
    {{"checkpoint"},
     {"list", "inspect", "verify", "diff", "rollback", "pin", "prune", "reshard", "export", "import"}},
    {{"checkpoint", "list"}, {"path", "--json"}},
    {{"checkpoint", "inspect"}, {"path", "--json"}},
    {{"checkpoint", "verify"}, {"path", "--json"}},
    {{"checkpoint", "diff"}, {"a", "b", "--json"}},
    {{"checkpoint", "rollback"}, {"dir", "step", "--json"}},
    {{"checkpoint", "pin"}, {"dir", "step", "--unpin", "--json"}},
    {{"checkpoint", "reshard"}, {"checkpoint", "dir", "--servers", "--json"}},
    {{"checkpoint", "export"}, {"checkpoint", "file", "--format", "--slots", "--json"}},
    {{"checkpoint", "import"},
     {"file", "dir", "--step", "--format", "--optimizer", "--widen", "--string-ids", "--json"}},
    {{"checkpoint", "prune"}, {"dir", "--keep", "--dry-run", "--json"}},
};

TEST(Help, EverySubcommandListsItsOptions) {
  for (const Subcommand& c : kSubcommands) {
    const std::string help = output_of(c.words + Args{"--help"});
    EXPECT_EQ(output_of(c.words + Args{"-h"}), help);
    for (const std::string& option : c.options)
      EXPECT_NE(help.find(option), std::string::npos) << option << "\n" << help;
    for (const char* option : {"--help", "--help-all", "--version"})
      EXPECT_NE(help.find(option), std::string::npos) << help;
    // The long one ends with what the short one leaves out.
    const std::string all = output_of(c.words + Args{"--help-all"});
    const std::size_t n = help.rfind("\nWith --help-all");
    ASSERT_NE(n, std::string::npos) << help;
    EXPECT_EQ(help.find('\n', n + 1), help.size() - 1) << "one line";
    EXPECT_EQ(all.substr(0, n), help.substr(0, n));
    for (const char* words :
         {"\nExit status:\n  0    success\n", "\nSignals to train", "  SIGUSR1 ", "VARSCOPE_DATA"}) {
      EXPECT_NE(all.find(words, n), std::string::npos) << all;
      EXPECT_EQ(help.find(words), std::string::npos) << help;
    }
  }
}

TEST(Help, EverySubcommandTellsTheVersion) {
  for (const Subcommand& c : kSubcommands) {
    EXPECT_TRUE(std::regex_match(output_of(c.words + Args{"--version"}),
                                 std::regex("varscope \\d+\\.\\d+\\.\\d+\n")));
  }
}

// As users of other programs ask for it.
TEST(Help, IsAskedForInOtherWordsToo) {
  EXPECT_EQ(output_of({"help"}), output_of({"--help"}));
  EXPECT_EQ(output_of({"help", "train"}), output_of({"train", "--help"}));
  EXPECT_EQ(output_of({"help", "checkpoint", "list"}), output_of({"checkpoint", "list", "--help"}));
  EXPECT_EQ(output_of({"-v"}), output_of({"--version"}));
  const Ended ended = run(varscope({"help", "trian"}));
  EXPECT_EQ(ended.code, 2) << ended.all();
  EXPECT_NE(ended.err.find("\"trian\" is not a command; did you mean \"train\"?"), std::string::npos)
      << ended.err;
}

TEST(Help, EveryKnownSubcommandIsCheckedHere) {
  std::set<std::string> named;
  for (const Subcommand& c : kSubcommands) {
    if (c.words.size() == 1) named.insert(c.words[0]);
  }
  static const std::regex row("  ([a-z]+) {2,}.*");
  bool in_list = false;
  std::size_t listed = 0;
  for (const std::string& line : lines_of(output_of({"--help"}))) {
    std::smatch m;
    if (line.starts_with("Subcommands:")) in_list = true;
    if (in_list && std::regex_match(line, m, row)) {
      EXPECT_TRUE(named.contains(m[1])) << m[1];
      ++listed;
    }
  }
  EXPECT_EQ(listed, named.size());
}

// --- config
// -----------------------------------------------------------------------------------------------------------

// The paths of all scalars, lists and empty maps: "train.batch". Layers and initializers have their own keys.
void leaves_of(const ConfigNode& node, const std::string& path, std::set<std::string>& out) {
  if (!node.is_map() || path == "model.initializer") {
    out.insert(path);
    return;
  }
  for (const ConfigEntry& e : node.entries)
    leaves_of(e.value, path.empty() ? e.key : path + "." + e.key, out);
}

TEST(Config, ExplainListsEveryKey) {
  const std::string explained = "\n" + output_of({"config", "--explain"});
  // The keys of data.test are those of data.train; a type's keys stand behind it.
  const auto lists = [&](std::string key) {
    if (key.starts_with("data.test.")) key.replace(0, 10, "data.train.");
    if (const std::size_t of_input = key.find(".features."); of_input != std::string::npos) {
      const std::string name = key.substr(key.rfind('.') + 1);
      return explained.find("\ndata.train.schema.features[name]." + name + ": ") != std::string::npos;
    }
    const bool is_of_type = key.starts_with("data.train.") && key != "data.train.type";
    return explained.find(is_of_type ? "]." + key.substr(11) + ": " : "\n" + key + ": ") != std::string::npos;
  };
  // Those of a dump, which has all keys with their defaults ...
  const ScratchDir dir;
  for (const std::string& config : bundled_configs()) {
    write_text(dir / "dump.yaml", output_of({"config", config}));
    std::set<std::string> keys;
    leaves_of(read_yaml_file(dir / "dump.yaml"), "", keys);
    EXPECT_GT(keys.size(), 30U);
    for (const std::string& key : keys) EXPECT_TRUE(lists(key)) << key;
  }
  // ... and some by name, of every section and of the layers.
  for (const char* key : {"job.name",
                          "job.seed",
                          "job.run_dir",
                          "cluster.servers",
                          "cluster.logical_workers",
                          "cluster.stall_timeout_s",
                          "data.train.type",
                          "data.train.images",
                          "data.test.samples",
                          "model.layers",
                          "model.loss",
                          "model.dtype",
                          "model.layers[type=dense].units",
                          "model.layers[with variables].reuse",
                          "model.layers[type=activation].kind",
                          "initializer.type",
                          "optimizer.type",
                          "optimizer.beta1",
                          "optimizer.weight_decay",
                          "train.epochs",
                          "train.batch",
                          "train.max_steps",
                          "train.eval_every_epochs",
                          "checkpoint.every_steps",
                          "checkpoint.every_seconds",
                          "checkpoint.keep",
                          "checkpoint.timeout_s",
                          "checkpoint.max_failures",
                          "output.metrics",
                          "output.tensorboard",
                          "output.histogram_every_steps",
                          "output.progress"}) {
    EXPECT_TRUE(lists(key)) << key;
  }
}

TEST(Config, GetPrintsOneValue) {
  const auto get = [](const std::string& key, const Args& more = {}) {
    return output_of(Args{"config", kDigits, "--get", key} + more);
  };
  EXPECT_EQ(get("train.batch"), "64\n");
  EXPECT_EQ(get("train.batch", set({"train.batch=8"})), "8\n");
  EXPECT_EQ(get("job.run_dir"), "runs/digits_mlp\n");
  EXPECT_EQ(get("checkpoint.dir"), "runs/digits_mlp/checkpoints\n");
  EXPECT_EQ(get("checkpoint.dir", set({"job.run_dir=r"})), "r/checkpoints\n");
  EXPECT_EQ(get("checkpoint.dir", set({"checkpoint.dir=/elsewhere/c"})), "/elsewhere/c\n");
  EXPECT_NE(get("data.test").find("type: digits"), std::string::npos);
  const Ended ended = run(varscope({"config", kDigits, "--get", "train.bacth"}));
  EXPECT_EQ(ended.code, 2);
  EXPECT_NE(ended.err.find("digits_mlp.yaml: key \"train.bacth\" is not set, or does not exist; did you mean "
                           "\"train.batch\"?"),
            std::string::npos)
      << ended.err;
}

TEST(Config, AcceptsEveryBundledConfigAndItsOwnDump) {
  const ScratchDir dir;
  ASSERT_GE(bundled_configs().size(), 2U);
  for (const std::string& config : bundled_configs()) {
    const std::string dumped = output_of({"config", config});
    write_text(dir / "dump.yaml", dumped);
    EXPECT_EQ(output_of({"config", dir / "dump.yaml"}), dumped) << config;
  }
  EXPECT_NE(output_of({"config", kDigits, "--set", "train.batch=77"}).find("batch: 77"), std::string::npos);
}

// --- plan
// -----------------------------------------------------------------------------------------------------------

struct PlannedVariable {
  std::string name, scope;
  Shape shape;
  std::int64_t slices;
  std::string servers;
};
struct Plan {
  std::vector<PlannedVariable> variables;
  std::vector<double> bytes, shares;  // by server
  double total_bytes = -1;
};

double bytes_of(const std::string& number, const std::string& unit) {
  static const std::map<std::string, double> units = {
      {"B", 1}, {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824}};
  return std::stod(number) * units.at(unit);
}

Shape shape_of(const std::string& text) {
  std::vector<std::int64_t> dims;
  static const std::regex number("\\d+");
  for (std::sregex_iterator it(text.begin(), text.end(), number), end; it != end; ++it)
    dims.push_back(std::stoll(it->str()));
  return Shape(dims);
}

Plan plan_of(const std::string& text) {
  static const std::regex scope("( *)([^ /]+)/");
  static const std::regex variable(
      "( *)([^ ]+) +(\\[[0-9, ]*\\]) +float32 +[0-9.]+ [KMG]?i?B +(\\d+)  ([0-9,-]+).*");
  static const std::regex server("(\\d+) +([0-9.]+) ([KMG]?i?B) +\\d+ +([0-9.]+)");
  static const std::regex total("total: .* parameters, ([0-9.]+) ([KMG]?i?B)");
  Plan plan;
  std::vector<std::string> path;
  for (const std::string& line : lines_of(text)) {
    std::smatch m;
    if (std::regex_match(line, m, scope)) {
      path.resize(static_cast<std::size_t>(m[1].length()) / 2);
      path.push_back(m[2]);
    } else if (std::regex_match(line, m, variable)) {
      path.resize(static_cast<std::size_t>(m[1].length()) / 2);
      std::string in;
      for (const std::string& p : path) in += (in.empty() ? "" : "/") + p;
      plan.variables.push_back(
          {in.empty() ? m[2].str() : in + "/" + m[2].str(), in, shape_of(m[3]), std::stoll(m[4]), m[5]});
    } else if (std::regex_match(line, m, server)) {
      EXPECT_EQ(std::stoul(m[1]), plan.bytes.size());
      plan.bytes.push_back(bytes_of(m[2], m[3]));
      plan.shares.push_back(std::stod(m[4]));
    } else if (std::regex_match(line, m, total)) {
      plan.total_bytes = bytes_of(m[1], m[2]);
    }
  }
  return plan;
}

// "0-2,5" as numbers.
std::set<int> servers_of(const std::string& text) {
  std::set<int> servers;
  static const std::regex range("(\\d+)(?:-(\\d+))?");
  for (std::sregex_iterator it(text.begin(), text.end(), range), end; it != end; ++it) {
    const int first = std::stoi((*it)[1]), last = (*it)[2].matched ? std::stoi((*it)[2]) : first;
    for (int s = first; s <= last; ++s) servers.insert(s);
  }
  return servers;
}

class PlanOfBundledConfig : public ::testing::TestWithParam<std::string> {};

TEST_P(PlanOfBundledConfig, IsEvenCompleteAndAsPlaced) {
  if (needs_data(GetParam()) && !has_fashion_mnist())
    GTEST_SKIP() << "the data set is not under VARSCOPE_DATA";
  const ScratchDir dir;  // of a stream that is followed: its first file says what the columns are
  Args more;
  if (GetParam().find("online_") != std::string::npos) {
    write_text(dir / "1.csv", "at,user,ad,clicked\n1,u1,a1,0\n");
    more = set({"data.train.follow=" + dir.path()});
  }
  for (const int n : {1, 2, 3, 4, 8}) {
    SCOPED_TRACE(n);
    const std::string text = output_of(Args{"plan", GetParam(), "--servers", std::to_string(n)} + more);
    const Plan plan = plan_of(text);
    ASSERT_EQ(plan.bytes.size(), static_cast<std::size_t>(n)) << text;
    if (plan.variables.empty()) {  // of tables alone, whose rows nobody can count before they are there
      EXPECT_NE(text.find("\ntable "), std::string::npos) << text;
      EXPECT_EQ(plan.total_bytes, 0) << text;
      EXPECT_EQ(std::ranges::count(plan.bytes, 0.0), n) << text;
      continue;
    }

    double sum = 0, model = 0;
    std::vector<double> placed(plan.bytes.size(), 0.0);
    for (const PlannedVariable& v : plan.variables) {
      const std::vector<Slice> slices = slice_variable(v.shape, DType::float32);
      EXPECT_EQ(v.slices, std::ssize(slices)) << v.name;
      std::set<int> servers;
      for (std::size_t i = 0; i < slices.size(); ++i) {
        const int s = Placement::owner(v.scope, static_cast<std::int64_t>(i), n).value;
        servers.insert(s);
        placed[static_cast<std::size_t>(s)] += 4.0 * static_cast<double>(slices[i].n_elements());
      }
      EXPECT_EQ(servers_of(v.servers), servers) << v.name;
      model += 4.0 * static_cast<double>(v.shape.n_elements());
    }
    const double rounding = 0.051 * (model < (1 << 20) ? 1 << 10 : 1 << 20);
    EXPECT_NEAR(plan.total_bytes, model, rounding) << text;
    for (std::size_t s = 0; s < plan.bytes.size(); ++s) {
      EXPECT_NEAR(plan.bytes[s], placed[s], rounding) << "server " << s << "\n" << text;
      EXPECT_NEAR(plan.shares[s], placed[s] / (model / n), 0.0051) << "server " << s << "\n" << text;
      sum += plan.bytes[s];
    }
    EXPECT_NEAR(sum, model, n * rounding) << text;
    constexpr double kLeastSlice = 4096;  // smaller variables stay whole
    EXPECT_LE(*std::max_element(placed.begin(), placed.end()), 1.25 * model / n + kLeastSlice) << text;
  }
}

INSTANTIATE_TEST_SUITE_P(Configs, PlanOfBundledConfig, ::testing::ValuesIn(bundled_configs()),
                         [](const auto& info) { return std::filesystem::path(info.param).stem().string(); });

// --- a real run
// -------------------------------------------------------------------------------------------------------

// Two epochs on two servers and two workers, with checkpoints at steps 3, 6, ...
class RealRun : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = std::make_unique<ScratchDir>();
    const Ended ended =
        run(mpirun(4, Args{"train", kDigits} + overrides() +
                          set({"cluster.servers=2", "train.epochs=2", "train.log_every_steps=2"})));
    ASSERT_EQ(ended.code, 0) << ended.all();
    out_ = ended.out;
    err_ = ended.err;
    summary_ = summary_of(out_);
  }
  static void TearDownTestSuite() { dir_.reset(); }

  static Args overrides() {
    return set({"job.run_dir=" + (*dir_ / "run"), "data.train.samples=640", "data.test.samples=500",
                "checkpoint.every_steps=9", "checkpoint.keep=2"});
  }
  static std::string checkpoints() { return *dir_ / "run/checkpoints"; }
  static std::string newest() { return checkpoints() + "/step-000000020"; }
  // The name of the other that is kept: which one, depends on how fast the disk was.
  static std::string older() {
    for (const std::string& name : names_in(checkpoints())) {
      if (name.starts_with("step-")) return name;
    }
    return "none";
  }

  static std::unique_ptr<ScratchDir> dir_;
  static std::string out_, err_;
  static Summary summary_;
};
std::unique_ptr<ScratchDir> RealRun::dir_;
std::string RealRun::out_, RealRun::err_;
Summary RealRun::summary_;

TEST_F(RealRun, EvalAgreesWithTheTrainingSummary) {
  ASSERT_GE(summary_.test_accuracy, 0) << out_;
  for (const Args& where : {Args{}, Args{"--checkpoint", checkpoints()}, Args{"--checkpoint", newest()}}) {
    const std::string text = output_of(Args{"eval", kDigits} + overrides() + where);
    std::smatch m;
    static const std::regex numbers(
        "[^]*test samples  500\n  loss          ([0-9.]+)\n  accuracy      ([0-9.]+)\n");
    ASSERT_TRUE(std::regex_match(text, m, numbers)) << text;
    EXPECT_NE(text.find("step 20"), std::string::npos) << text;
    EXPECT_EQ(std::stod(m[2]), summary_.test_accuracy);
    EXPECT_NEAR(std::stod(m[1]), summary_.test_loss, 2e-4);  // summed over other chunks, and printed rounded
  }
}

TEST_F(RealRun, ListShowsWhatIsThere) {
  const std::string text = output_of({"checkpoint", "list", checkpoints()});
  std::vector<std::string> names;
  for (const std::string& name : names_in(checkpoints())) {
    if (name.starts_with("step-")) names.push_back(name);
  }
  ASSERT_EQ(names.size(), 2U) << "checkpoint.keep is 2\n" << text;
  EXPECT_EQ(names.back(), "step-000000020");
  for (const std::string& name : names) EXPECT_NE(text.find(name), std::string::npos) << text;
  EXPECT_NE(text.find("committed"), std::string::npos) << text;
  EXPECT_EQ(text.find("damaged"), std::string::npos) << text;
  EXPECT_LT(text.find(names.back()), text.find(names.front())) << "newest first\n" << text;
}

// A script must not take half a list for the whole.
TEST_F(RealRun, AResultThatCannotBeWrittenIsAnError) {
  for (const std::string& command :
       {"checkpoint list " + checkpoints(), "checkpoint verify " + checkpoints() + " --json",
        "config " + kDigits, "plan " + kDigits}) {
    const Ended ended =
        run({{"/bin/sh", "-c", std::string(VARSCOPE_BINARY) + " " + command + " >/dev/full"}});
    EXPECT_EQ(ended.code, 11) << command << ended.all();
    EXPECT_EQ(ended.err,
              "varscope: cannot write the result to standard output: No space left on device; the command "
              "has done its work\n")
        << command;
  }
}

TEST_F(RealRun, InspectShowsTheRunsValues) {
  const std::string text = output_of({"checkpoint", "inspect", newest()});
  EXPECT_EQ(output_of({"checkpoint", "inspect", checkpoints()}), text) << "of a directory: the newest";
  EXPECT_NE(text.find("values hash  " + summary_.hash + "\n"), std::string::npos) << text << out_;
  for (const char* name : {"hidden1/weights", "hidden2/bias", "output/weights", "[256, 128]", "float32"}) {
    EXPECT_NE(text.find(name), std::string::npos) << text;
  }
}

TEST_F(RealRun, VerifyFindsOneFlippedByteInEachFile) {
  EXPECT_NE(output_of({"checkpoint", "verify", newest()}).find("step-000000020"), std::string::npos);
  output_of({"checkpoint", "verify", checkpoints()});
  const ScratchDir dir;
  int flips = 0;
  for (const std::string& name : names_in(newest())) {
    if (name == "manifest.json") continue;  // for other programs; never read back
    if (name == "METRICS") continue;        // of retention: damaged it counts as missing, and harms nothing
    const std::uintmax_t size = std::filesystem::file_size(newest() + "/" + name);
    for (const std::uintmax_t at : {std::uintmax_t{0}, size / 2, size - 1}) {
      SCOPED_TRACE(::testing::Message() << name << " byte " << at);
      const std::string copy = dir / "step-000000020";
      std::filesystem::remove_all(copy);
      std::filesystem::copy(newest(), copy, std::filesystem::copy_options::recursive);
      flip_byte(copy + "/" + name, at);
      ++flips;
      for (const std::string& path : {copy, dir.path()}) {
        const Ended ended = run(varscope({"checkpoint", "verify", path}));
        EXPECT_EQ(ended.code, 5) << ended.all();
        EXPECT_NE(ended.out.find(name), std::string::npos) << ended.all();
      }
    }
  }
  EXPECT_EQ(flips, 3 * (1 + 2 + 2)) << "the manifest, two shards, two workers' states";
}

TEST_F(RealRun, DiffTellsCheckpointsApart) {
  const std::string before = checkpoints() + "/" + older();
  EXPECT_NE(output_of({"checkpoint", "diff", newest(), checkpoints()}).find("equal: "), std::string::npos)
      << "of a directory: the newest";
  const Ended ended = run(varscope({"checkpoint", "diff", "--json", before, newest()}));
  EXPECT_EQ(ended.code, 5) << ended.all();
  const nlohmann::json json = nlohmann::json::parse(ended.out);
  EXPECT_EQ(json.at("a").at("step"), std::stoll(older().substr(5)));
  EXPECT_EQ(json.at("b").at("step"), 20);
  EXPECT_EQ(json.at("b").at("values_hash"), summary_.hash);
  ASSERT_FALSE(json.at("values").empty());
  EXPECT_GE(json["values"].front().at("max_abs"), json["values"].back().at("max_abs"));
  EXPECT_EQ(run(varscope({"checkpoint", "diff", before, before + "x"})).code, 4);
}

TEST_F(RealRun, RollbackPinAndPruneChangeADirectory) {
  const ScratchDir dir;
  std::filesystem::copy(checkpoints(), dir / "c", std::filesystem::copy_options::recursive);
  const std::string c = dir / "c", step = std::to_string(std::stoll(older().substr(5)));
  output_of({"checkpoint", "pin", c, step});
  EXPECT_NE(output_of({"checkpoint", "prune", c, "--keep", "1"}).find("0 checkpoints"), std::string::npos);
  output_of({"checkpoint", "rollback", c, step});
  const std::string text = output_of({"checkpoint", "list", c});
  EXPECT_NE(text.find("committed, pinned"), std::string::npos) << text;
  EXPECT_NE(text.find("set aside: superseded-step-000000020"), std::string::npos) << text;
  EXPECT_EQ(run(varscope({"checkpoint", "rollback", c, "20"})).code, 4);
  // Steps are decimal, as the names have them; a name does as well.
  const std::string name = fmt::format("step-{:09d}", std::stoll(step));
  EXPECT_NE(output_of({"checkpoint", "pin", c, name.substr(5)}).find(name + " is pinned"), std::string::npos);
  EXPECT_NE(output_of({"checkpoint", "pin", c, name}).find(name + " is pinned"), std::string::npos);
  for (const char* wrong : {"abc", "0x10", "99999999999999999999", "step-"}) {
    const Ended ended = run(varscope({"checkpoint", "rollback", c, wrong}));
    EXPECT_EQ(ended.code, 2) << ended.all();
    EXPECT_NE(ended.err.find(fmt::format("\"{}\" is not a step: give a number of 0 or more", wrong)),
              std::string::npos)
        << ended.err;
  }
  EXPECT_EQ(run(varscope({"checkpoint", "prune", c, "--keep", "0"})).code, 2);
}

TEST_F(RealRun, ReshardKeepsTheRunAndItsValues) {
  const ScratchDir dir;
  const std::string text = output_of({"checkpoint", "reshard", checkpoints(), dir / "c", "--servers", "3"});
  EXPECT_NE(text.find("3 shards instead of 2, values hash " + summary_.hash), std::string::npos) << text;
  // The 21st step from either is the same.
  std::vector<std::string> hashes;
  for (const std::string& from : {newest(), dir / "c/step-000000020"}) {
    const Ended ended =
        run(varscope(Args{"train", kDigits} + overrides() +
                     set({"job.run_dir=" + (dir / std::to_string(hashes.size())), "cluster.logical_workers=2",
                          "train.max_steps=21", "train.epochs=3"}) +
                     Args{"--resume=" + from}));
    ASSERT_EQ(ended.code, 0) << ended.all();
    hashes.push_back(summary_of(ended.out).hash);
  }
  EXPECT_EQ(hashes[0], hashes[1]);
}

TEST_F(RealRun, WhatIsExportedAndImportedEvaluatesAlike) {
  const ScratchDir dir;
  const std::string expected =
      output_of(Args{"eval", kDigits} + overrides() + Args{"--checkpoint", newest()});
  const std::string metrics = expected.substr(expected.find('\n'));
  for (const std::string& file : {dir / "m.safetensors", dir / "m.npz", dir / "m.ckpt"}) {
    const std::string c = file + "-checkpoints", optimizer = "adam";
    output_of({"checkpoint", "export", checkpoints(), file});
    output_of({"checkpoint", "import", file, c, "--step", "20", "--optimizer", optimizer});
    EXPECT_NE(output_of({"checkpoint", "verify", c}).find(summary_.hash), std::string::npos)
        << "the same values in the same slices";
    const std::string text = output_of(Args{"eval", kDigits} + overrides() + Args{"--checkpoint", c});
    EXPECT_EQ(text.substr(text.find('\n')), metrics);
    const Ended ended =
        run(varscope(Args{"train", kDigits} + overrides() + set({"job.run_dir=" + (dir / "run")}) +
                     Args{"--resume=" + c + "/step-000000020"}));
    EXPECT_EQ(ended.code, 4) << ended.all();
    EXPECT_NE(ended.err.find("was imported from a file and has no place in the data"), std::string::npos)
        << ended.all();
  }
  const Ended ended =
      run(varscope({"checkpoint", "import", dir / "m.npz", dir / "c", "--step", "1", "--optimizer", "sdg"}));
  EXPECT_EQ(ended.code, 2) << ended.all();
  EXPECT_NE(ended.err.find("there are sgd, momentum"), std::string::npos) << ended.all();
  EXPECT_EQ(run(varscope({"checkpoint", "import", dir / "m.txt", dir / "c", "--step", "1"})).code, 2);
  EXPECT_EQ(run(varscope({"checkpoint", "export", newest(), dir / "m.txt"})).code, 2);
}

TEST_F(RealRun, VerifyFindsMissingAndTruncatedFiles) {
  const ScratchDir dir;
  const std::string copy = dir / "step-000000020", shard = copy + "/shard-00001-of-00002.safetensors";
  std::filesystem::copy(newest(), copy, std::filesystem::copy_options::recursive);
  std::filesystem::resize_file(shard, std::filesystem::file_size(shard) - 1);
  EXPECT_EQ(run(varscope({"checkpoint", "verify", copy})).code, 5);
  std::filesystem::remove(shard);
  const Ended ended = run(varscope({"checkpoint", "verify", copy}));
  EXPECT_EQ(ended.code, 5) << ended.all();
  EXPECT_NE(ended.out.find("shard-00001-of-00002.safetensors"), std::string::npos) << ended.all();
}

// Values and momentum of 41,802 float32; the costs are this machine's.
TEST_F(RealRun, ForecastsWhatACheckpointCostsAndCompares) {
  static const std::string cost =
      "training stops [0-9.]+ m?s, updates take [0-9.]+ m?s longer once, on disk after [0-9.]+ m?s";
  const std::regex prediction("[^]*\n  prediction   a checkpoint of 326\\.6 KiB: " + cost +
                              "; snapshot memory [0-9.]+ KiB on a server\n  interval     a checkpoint every "
                              "[^\n]+ with a failure every 24h 00m "
                              "\\(assumed; set checkpoint\\.mean_time_between_failures_s\\)\n[^]*");
  EXPECT_TRUE(std::regex_match(out_, prediction)) << out_;
  // Where the next step comes after the disk has all, updates have nothing to save.
  const std::string actual = std::regex_replace(cost, std::regex("(, updates .* once)"), "($1)?");
  const std::regex comparison("[^]*\n  predicted    " + cost + "\n  actual       " + actual +
                              ", on average\n  interval     [^]*");
  EXPECT_TRUE(std::regex_match(out_, comparison)) << out_;
  const nlohmann::json start =
      nlohmann::json::parse(lines_of(read_text(*dir_ / "run/metrics.jsonl")).front());
  EXPECT_EQ(start.at("checkpoint").at("bytes"), 2 * 4 * 41802);
  EXPECT_GT(start.at("checkpoint").at("total_s"), 0);
}

TEST_F(RealRun, MetricsHoldWhatTheConsolePrinted) {
  std::map<std::string, std::vector<nlohmann::json>> events;
  for (const std::string& line : lines_of(read_text(*dir_ / "run/metrics.jsonl"))) {
    const nlohmann::json j = nlohmann::json::parse(line);
    for (const char* key : {"event", "step", "time", "run", "attempt"}) EXPECT_TRUE(j.contains(key)) << line;
    events[j.at("event")].push_back(j);
  }
  ASSERT_EQ(events["start"].size(), 1U);
  EXPECT_EQ(events["start"][0].at("servers"), 2);
  EXPECT_EQ(events["start"][0].at("workers"), 2);
  EXPECT_EQ(events["start"][0].at("parameters"), 41802);
  EXPECT_NE(out_.find("run " + events["start"][0].at("run").get<std::string>() + ","), std::string::npos)
      << out_;

  ASSERT_EQ(events["epoch"].size(), 2U);
  ASSERT_EQ(summary_.epoch_losses.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_NEAR(events["epoch"][i].at("loss").get<double>(), summary_.epoch_losses[i], 5.1e-5);
    EXPECT_EQ(events["epoch"][i].at("samples"), 640);
    EXPECT_EQ(events["epoch"][i].at("step"), 10 * (i + 1));
  }
  ASSERT_EQ(events["eval"].size(), 2U);
  EXPECT_NEAR(events["eval"][1].at("accuracy").get<double>(), summary_.test_accuracy, 5.1e-5);
  EXPECT_NEAR(events["eval"][1].at("loss").get<double>(), summary_.test_loss, 5.1e-5);

  std::vector<std::int64_t> saved;
  for (const auto& j : events["checkpoint"]) {
    saved.push_back(j.at("step"));
    EXPECT_NE(out_.find(j.at("path").get<std::string>()), std::string::npos) << j;
  }
  EXPECT_EQ(saved, summary_.checkpoints);
  ASSERT_EQ(events["finish"].size(), 1U);
  EXPECT_EQ(events["finish"][0].at("values_hash"), summary_.hash);
  EXPECT_EQ(events["finish"][0].at("step"), summary_.step);
  EXPECT_EQ(events["finish"][0].at("checkpoints"), summary_.checkpoints.size());

  // Periodic lines: on standard error, as it is no terminal here.
  std::size_t steps = 0;
  for (const std::string& line : lines_of(err_)) steps += line.starts_with("step ") ? 1 : 0;
  EXPECT_EQ(steps, 10U) << err_;
  EXPECT_EQ(events["step"].size(), steps);
}

// What --resume takes: nothing or "latest", a directory of checkpoints, a run's folder, one checkpoint;
// behind "=" or as a word of its own; before the config where it cannot be meant by it.
TEST(Resumed, FromWhatResumeNames) {
  const ScratchDir dir;
  const std::string run_dir = dir / "run";
  const Args settings = set({"job.run_dir=" + run_dir, "data.train.samples=640", "data.test.samples=100",
                             "checkpoint.every_steps=2", "train.log_every_steps=0"});
  const Args train_it{"train", kDigits};
  train(varscope(train_it + settings + set({"train.max_steps=3"})));
  std::int64_t newest = 3;
  for (const Args& how :
       {Args{"--resume"}, Args{"--resume", "latest"}, Args{"--resume=latest"},
        Args{"--resume", run_dir + "/checkpoints"}, Args{"--resume=" + run_dir + "/checkpoints/"},
        Args{"--resume=" + run_dir}, Args{"--resume", run_dir}}) {
    const Summary s =
        train(varscope(train_it + how + settings + set({"train.max_steps=" + std::to_string(newest + 1)})));
    EXPECT_EQ(s.first_step, newest) << how[0];
    newest = s.step;
  }
  const std::string longer = "train.max_steps=" + std::to_string(newest + 1);
  EXPECT_EQ(train(varscope(Args{"train", "--resume", kDigits} + settings + set({longer.c_str()}))).first_step,
            newest);
  const std::string older = run_dir + "/checkpoints/" + names_in(run_dir + "/checkpoints")[2];
  EXPECT_LT(train(varscope(train_it + Args{"--resume", older} + settings + set({longer.c_str()}))).first_step,
            newest);
}

// The key that ended the run is the one to raise.
TEST(Resumed, AtTheLastStepSaysWhichKeyToRaise) {
  const ScratchDir dir;
  const Args args = Args{"train", kDigits} +
                    set({"job.run_dir=" + (dir / "run"), "data.train.samples=640", "data.test.samples=100"});
  const auto told = [&](const Args& limits) {
    const Ended ended = run(varscope(args + limits + Args{"--resume"}));
    EXPECT_EQ(ended.code, 0) << ended.all();
    return ended.out;
  };
  train(varscope(args + set({"train.epochs=1"})));  // 10 steps
  EXPECT_NE(told(set({"train.max_steps=5"})).find("raise train.max_steps to go on"), std::string::npos);
  EXPECT_NE(told(set({"train.epochs=1"})).find("raise train.epochs to go on"), std::string::npos);
  EXPECT_NE(told(set({"train.epochs=1", "train.max_steps=10"}))
                .find("raise train.epochs and train.max_steps to go on"),
            std::string::npos);
}

TEST(Resumed, MetricsGoOnInTheSameFile) {
  const ScratchDir dir;
  const Args args = Args{"train", kDigits} +
                    set({"job.run_dir=" + (dir / "run"), "data.train.samples=640", "data.test.samples=100"});
  train(varscope(args + set({"train.max_steps=3"})));
  train(varscope(args + set({"train.max_steps=5"}) + Args{"--resume"}));
  std::set<std::string> runs;
  std::vector<int> attempts;
  for (const std::string& line : lines_of(read_text(dir / "run/metrics.jsonl"))) {
    const nlohmann::json j = nlohmann::json::parse(line);
    runs.insert(j.at("run").get<std::string>());
    if (j.at("event") == "start") attempts.push_back(j.at("attempt"));
  }
  EXPECT_EQ(runs.size(), 1U);
  EXPECT_EQ(attempts, (std::vector<int>{1, 2}));
  const std::string text = output_of({"checkpoint", "list", dir / "run/checkpoints"});
  EXPECT_NE(text.find("step-000000005"), std::string::npos) << text;
}

}  // namespace
}  // namespace varscope::testing
