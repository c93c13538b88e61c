// Files that commands write and read, through the real program: what is no plain file is written into, a
// plain one is replaced with its mode kept; data that are not what they were; files of another user.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

std::string read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void expect_words(const std::string& text, std::initializer_list<std::string> words) {
  for (const std::string& word : words)
    EXPECT_NE(text.find(word), std::string::npos) << word << "\nin: " << text;
}

Command shell(const std::string& line) { return {{"/bin/sh", "-c", line}}; }
const std::string kProgram = VARSCOPE_BINARY;

// Words w0 .. w9, some more often than others, so that an edit changes the order of the vocabulary.
std::string words(int n, int seed) {
  std::string text;
  unsigned x = static_cast<unsigned>(seed);
  for (int i = 0; i < n; ++i) {
    x = x * 1664525U + 1013904223U;
    text += "w" + std::to_string((x >> 16) % 10 * ((x >> 8) % 10) / 9) + (i % 10 == 9 ? "\n" : " ");
  }
  return text;
}

class Files : public ::testing::Test {
 protected:
  std::string write_job(const std::string& more = "") {
    const std::string path = dir / "job.yaml";
    write_text(path, "job: {name: t, run_dir: " + (dir / "run") +
                         "}\n"
                         "cluster: {logical_workers: 2}\n"
                         "data:\n"
                         "  train: {type: text, file: " +
                         (dir / "text") +
                         ", vocabulary: 8, steps: 4, test_fraction: 0.2}\n"
                         "  test: {type: text, file: " +
                         (dir / "text") +
                         ", vocabulary: 8, steps: 4, test_fraction: 0.2}\n"
                         "model:\n"
                         "  layers:\n"
                         "    - {type: embedding, scope: e, vocabulary: 8, units: 4}\n"
                         "    - {type: dense, scope: d, units: 8, each_step: true}\n"
                         "  loss: softmax_cross_entropy\n"
                         "optimizer: {type: sgd, learning_rate: 0.1}\n"
                         "train: {epochs: 100, batch: 5, eval_batch: 5, shuffle: false}\n" +
                         more);
    return path;
  }
  Args to_step(int step, const Args& more = {}) const {
    return Args{"train", dir / "job.yaml"} + set({"train.max_steps=" + std::to_string(step)}) + more;
  }
  std::string checkpoints() const { return dir / "run/checkpoints"; }
  Ended refused(const Command& command, int code, std::initializer_list<std::string> all) {
    Ended ended = run(command);
    EXPECT_EQ(ended.code, code) << ended.all();
    expect_words(ended.err, all);
    return ended;
  }
  ScratchDir dir;
};

// --- what commands write

class WrittenFiles : public Files {
 protected:
  void SetUp() override {
    write_text(dir / "text", words(2000, 1));
    write_job();
    train(varscope(to_step(3)));
    for (const char* name : {"plain.npz", "plain.safetensors"})
      EXPECT_EQ(run(varscope({"checkpoint", "export", checkpoints(), dir / name})).code, 0);
  }
  std::string export_to(const std::string& file, const std::string& format) const {
    return kProgram + " checkpoint export " + checkpoints() + " " + file + " --format " + format;
  }
};

TEST_F(WrittenFiles, AFifoIsWrittenIntoAndStays) {
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0644), 0);
  for (const std::string& format : {std::string("npz"), std::string("safetensors")}) {
    const Ended ended = run(shell("cat " + (dir / "fifo") + " >" + (dir / "got") + " & " +
                                  export_to(dir / "fifo", format) + "; code=$?; wait; exit $code"));
    EXPECT_EQ(ended.code, 0) << ended.all();
    EXPECT_EQ(read_bytes(dir / "got"), read_bytes(dir / ("plain." + format)));
    EXPECT_TRUE(std::filesystem::is_fifo(dir / "fifo"));
    expect_words(ended.out, {"tensors of step 3"});
  }
}

TEST_F(WrittenFiles, StandardOutputHoldsTheFileAndNothingElse) {
  struct stat before = {}, after = {};
  ASSERT_EQ(::lstat("/dev/stdout", &before), 0);
  for (const std::string& format : {std::string("npz"), std::string("safetensors")}) {
    const std::string expected = read_bytes(dir / ("plain." + format));
    for (const std::string& line : {export_to("/dev/stdout", format) + " >" + (dir / "got"),
                                    export_to("/dev/stdout", format) + " | cat >" + (dir / "got"),
                                    export_to("/dev/fd/1", format) + " --json | cat >" + (dir / "got"),
                                    export_to("/dev/fd/3", format) + " 3>" + (dir / "got")}) {
      const Ended ended = run(shell(line));
      EXPECT_EQ(ended.code, 0) << line << ended.all();
      EXPECT_EQ(read_bytes(dir / "got"), expected) << line;
      expect_words(ended.out + ended.err, {"tensors"});
      std::filesystem::remove(dir / "got");
    }
  }
  ASSERT_EQ(::lstat("/dev/stdout", &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  EXPECT_EQ(before.st_mode, after.st_mode);
  const Ended ended = run(shell(kProgram + " graph " + (dir / "job.yaml") + " --dot /dev/stdout"));
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_EQ(ended.out.rfind("digraph", 0), 0U) << ended.out;
  EXPECT_EQ(ended.out.find("the graph of"), std::string::npos);
  expect_words(ended.err, {"the graph of training"});
}

TEST_F(WrittenFiles, ADeviceIsWrittenIntoAndItsErrorsAreTold) {
  EXPECT_EQ(run(shell(export_to("/dev/null", "npz"))).code, 0);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
  refused(shell(export_to("/dev/full", "npz")), 11, {"cannot write /dev/full: No space left on device"});
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
  refused(shell(export_to("/dev/null", "tf")), 2, {"a TensorFlow bundle is two of them"});
  EXPECT_FALSE(std::filesystem::exists("/dev/null.index"));
  refused(shell(export_to(dir / ".", "npz")), 11, {"Is a directory"});
}

TEST_F(WrittenFiles, APlainFileKeepsItsModeAndALinkStays) {
  for (const std::string& name : {std::string("m.npz"), std::string("m.safetensors"), std::string("g.dot")}) {
    write_text(dir / ("real-" + name), "old");
    ASSERT_EQ(::chmod((dir / ("real-" + name)).c_str(), 0640), 0);
    std::filesystem::create_symlink("real-" + name, dir / name);
    const Args command = name == "g.dot" ? Args{"graph", dir / "job.yaml", "--dot", dir / name}
                                         : Args{"checkpoint", "export", checkpoints(), dir / name};
    const Ended ended = run(varscope(command));
    EXPECT_EQ(ended.code, 0) << ended.all();
    struct stat st = {};
    ASSERT_EQ(::lstat((dir / ("real-" + name)).c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 07777, 0640U) << name;
    EXPECT_GT(st.st_size, 100);
    EXPECT_TRUE(std::filesystem::is_symlink(dir / name));
  }
}

TEST_F(WrittenFiles, MetricsGoIntoAFifoAlsoWithFresh) {
  std::filesystem::remove(dir / "run/metrics.jsonl");
  ASSERT_EQ(::mkfifo((dir / "run/metrics.jsonl").c_str(), 0644), 0);
  const Ended ended =
      run(shell("cat " + (dir / "run/metrics.jsonl") + " >" + (dir / "got") + " & " + kProgram + " train " +
                (dir / "job.yaml") + " --set train.max_steps=2 --fresh; code=$?; wait; exit $code"));
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_TRUE(std::filesystem::is_fifo(dir / "run/metrics.jsonl"));
  expect_words(read_bytes(dir / "got"), {"\"event\":\"start\"", "\"event\":\"finish\""});
}

TEST_F(WrittenFiles, MetricsThatCannotBeWrittenAreOneWarning) {
  std::filesystem::remove(dir / "run/metrics.jsonl");
  std::filesystem::create_symlink("/dev/full", dir / "run/metrics.jsonl");
  const Ended ended = run(varscope(to_step(8, {"--resume"})));
  EXPECT_EQ(ended.code, 0) << ended.all();
  ASSERT_EQ(ended.messages().size(), 1U) << ended.err;
  expect_words(ended.err, {"warning: cannot write " + (dir / "run/metrics.jsonl") +
                           ": No space left on device; training goes on"});
}

// --- data that are not what they were

TEST_F(Files, AnEditedTrainingTextIsNotGoneOnWith) {
  const std::string text = words(2000, 1);
  write_text(dir / "text", text);
  write_job();
  const std::string hash = train(varscope(to_step(8))).hash;
  train(varscope(to_step(4, {"--fresh"})));
  std::string edited = text;
  std::swap(edited[1], edited[4]);  // two words change places: as many of each
  ASSERT_NE(edited, text);
  write_text(dir / "text", edited);
  for (const Command& c : {varscope(to_step(8, {"--resume"})), mpirun(3, to_step(8, {"--resume"}))}) {
    refused(
        c, 4,
        {"does not fit the job, which cannot resume (2 differences)",
         "data.train: other samples or labels than in the checkpoint's run, though as many: the files were "
         "edited, or are others (XXH3 ",
         "nothing was restored"});
  }
  EXPECT_EQ(run(varscope({"eval", dir / "job.yaml"})).code, 0) << "the ids mean the same words";
  write_text(dir / "text", text);
  EXPECT_EQ(train(mpirun(3, to_step(8, {"--resume"}))).hash, hash) << "nothing was touched";
}

TEST_F(Files, AnotherVocabularyIsRefusedByResumeAndEval) {
  write_text(dir / "text", words(2000, 1));
  write_job();
  train(varscope(to_step(4)));
  const std::string before = run(varscope({"eval", dir / "job.yaml"})).out;
  expect_words(before, {"loss"});
  std::string renamed = words(2000, 1);  // w0, the most frequent word, comes last in the alphabet
  for (std::size_t at = renamed.find("w0"); at != std::string::npos; at = renamed.find("w0", at))
    renamed[at] = 'x';
  write_text(dir / "text", renamed);
  refused(varscope(to_step(8, {"--resume"})), 4,
          {"data.train: another vocabulary than in the checkpoint's run, so that ids mean other words"});
  refused(varscope({"eval", dir / "job.yaml"}), 4,
          {"data.train: another vocabulary than in the checkpoint's run, so that ids mean other words",
           "nothing was loaded; use the config it was made with, and its data"});
  write_text(dir / "text", words(2000, 1));
  EXPECT_EQ(run(varscope({"eval", dir / "job.yaml"})).out, before);
}

TEST_F(Files, OtherTestDataAndOtherKeysAreALineEach) {
  write_text(dir / "text", words(2000, 1));
  write_job();
  train(varscope(to_step(4)));
  std::string edited = words(2000, 1);  // its last fifth is tested on
  edited[edited.size() - 2] = edited[edited.size() - 2] == '1' ? '2' : '1';
  write_text(dir / "text", edited);
  const Ended ended = run(
      varscope(to_step(6, Args{"--resume"} + set({"optimizer.learning_rate=0.2", "train.shuffle=true"}))));
  EXPECT_EQ(ended.code, 0) << ended.all();
  std::size_t n = 0;
  for (const std::string& line : ended.messages())
    n += line.find("in the checkpoint's run") != std::string::npos;
  EXPECT_EQ(n, 3U) << ended.err;
  expect_words(
      ended.err,
      {"warning: data.test: other samples or labels than in the checkpoint's run",
       "evaluations are not to be compared with earlier ones",
       "warning: optimizer.learning_rate: 0.1 in the checkpoint's run, 0.2 now; the bits will differ",
       "warning: train.shuffle: false in the checkpoint's run, true now"});
  const Ended again = run(
      varscope(to_step(7, Args{"--resume"} + set({"optimizer.learning_rate=0.2", "train.shuffle=true"}))));
  EXPECT_EQ(again.err.find("in the checkpoint's run"), std::string::npos)
      << "compared with the run as it went on\n"
      << again.err;
  const Ended eval = run(varscope(Args{"eval", dir / "job.yaml"} + set({"model.layers.1.activation=tanh"})));
  EXPECT_EQ(eval.code, 0) << eval.all();
  expect_words(eval.err,
               {"warning: model.layers.1.activation: nothing in the checkpoint's run, tanh now; the values "
                "are of another model"});
}

TEST_F(Files, DamageInALaterMemberIsNotTrainedOn) {
  write_text(dir / "a", words(2000, 1));
  write_text(dir / "b", words(2000, 2));
  ASSERT_EQ(
      run(shell("cd " + dir.path() + "; gzip a b; cat a.gz b.gz > text.gz; head -c 700 /dev/zero >> text.gz"))
          .code,
      0);
  std::string config = read_bytes(write_job());
  for (std::size_t at = config.find("/text,"); at != std::string::npos; at = config.find("/text,", at + 1))
    config.insert(at + 5, ".gz");
  write_text(dir / "job.yaml", config);
  train(varscope(to_step(2)));
  flip_byte(dir / "text.gz", std::filesystem::file_size(dir / "a.gz"));
  for (const Command& c : {varscope(to_step(2, {"--fresh"})), mpirun(3, to_step(2, {"--fresh"}))})
    refused(c, 3, {"data.train: " + (dir / "text.gz") + ": damaged gzip data at byte ", " in member 2: "});
}

// --- files of another user

TEST_F(Files, AnothersMetricsAreOneWarning) {
  write_text(dir / "text", words(2000, 1));
  write_job();
  const std::string hash = train(varscope(to_step(8))).hash;
  train(varscope(to_step(4, {"--fresh"})));
  ASSERT_EQ(run(shell("chmod -R a+rwX " + dir.path())).code, 0);
  const std::string metrics = checkpoints() + "/step-000000004/METRICS";
  write_text(metrics, "somebody's");
  ASSERT_EQ(::chmod(metrics.c_str(), 0), 0);
  const auto as_other_user = [&](const Args& args) {  // root is one to whom modes do not apply
    Command c = varscope(args);
    if (::geteuid() == 0)
      c.argv = Args{"/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"} + c.argv;
    return run(c);
  };
  for (const Args& args : {Args{"checkpoint", "list", checkpoints()},
                           Args{"checkpoint", "reshard", checkpoints(), dir / "new", "--servers", "2"},
                           to_step(8, {"--resume"})}) {
    const Ended ended = as_other_user(args);
    EXPECT_EQ(ended.code, 0) << ended.all();
    std::size_t n = 0;
    for (const std::string& line : lines_of(ended.out + ended.err)) {
      n += line.find("warning: ") != std::string::npos &&
           line.find("METRICS: Permission denied") != std::string::npos;
    }
    EXPECT_EQ(n, 1U) << ended.all();
    EXPECT_EQ(args[0] == "train", ended.out.find(hash) != std::string::npos) << ended.all();
  }
}

// --- words that fit

TEST_F(Files, OnlyAResumeSpeaksOfResuming) {
  write_text(dir / "text", words(2000, 1));
  write_job();
  for (const Args& args : {Args{"checkpoint", "export", checkpoints(), dir / "x.npz"},
                           Args{"checkpoint", "inspect", checkpoints()}, Args{"eval", dir / "job.yaml"},
                           Args{"eval", dir / "job.yaml", "--checkpoint", dir / "none"}}) {
    const Ended ended =
        refused(varscope(args), 4, {"does not exist; name a checkpoint, or a directory of checkpoints"});
    EXPECT_EQ(ended.err.find("resum"), std::string::npos) << ended.err;
  }
  refused(varscope(to_step(2, {"--resume"})), 4, {"does not exist, so there is nothing to resume from"});
  train(varscope(to_step(2)));
  EXPECT_EQ(run(varscope({"checkpoint", "export", dir / "run", dir / "x.npz"})).code, 0)
      << "a run's directory";
}

}  // namespace
}  // namespace varscope::testing
