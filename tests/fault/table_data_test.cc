// What rows of a table count and hold, as a user's job meets it: weights.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// A number that looks like another one each time, the same in every run.
int mixed(int i) { return static_cast<int>((static_cast<unsigned>(i) * 2654435761U) >> 20U); }

class TableData : public ::testing::Test {
 protected:
  // A job on `data`, a text of YAML, which trains a logistic regression in batches of `batch`.
  std::string job(const std::string& name, const std::string& data, int batch = 16,
                  const std::string& layers = "[{type: dense, units: 1}]",
                  const std::string& metrics = "[log_loss, accuracy, auc]") const {
    const std::string file = dir / (name + ".yaml");
    write_text(file, "job: {name: t, seed: 3}\ndata:\n" + data +
                         "model: {loss: sigmoid_cross_entropy, layers: " + layers +
                         "}\ncluster: {logical_workers: 4}\n" +
                         fmt::format("train: {{epochs: 5, batch: {}, metrics: {}}}\n", batch, metrics) +
                         "optimizer: {type: adam, learning_rate: 0.05}\n");
    return file;
  }
  Ended train_job(const std::string& file, int n_ranks = 1, const Args& more = {}) const {
    Command command = n_ranks == 1 ? varscope(Args{"train", file, "--fresh"} + run_dir() + more)
                                   : mpirun(n_ranks, Args{"train", file, "--fresh"} + run_dir() + more);
    command.environment["VARSCOPE_DATA"] = dir.path();
    return run(command);
  }
  Ended command(const Args& args) const {
    Command c = varscope(args);
    c.environment["VARSCOPE_DATA"] = dir.path();
    return run(c);
  }
  Args run_dir() const { return set({"job.run_dir=" + (dir / "run")}); }
  // The end of the line that begins with `what`.
  static std::string after(const std::string& text, const std::string& what) {
    const std::size_t at = text.rfind(what);
    if (at == std::string::npos) return "(no " + what + ")";
    return text.substr(at + what.size(), text.find('\n', at) - at - what.size());
  }
  static std::string hash_of(const Ended& e) {
    EXPECT_EQ(e.code, 0) << e.all();
    return summary_of(e.out).hash;
  }

  ScratchDir dir;
};

class Weights : public TableData {
 protected:
  static constexpr int kRows = 70;
  // Rows whose weight is that of `weight`, as often as `times` says.
  void write_rows(const std::string& name, const std::function<double(int)>& weight,
                  const std::function<int(int)>& times) const {
    std::string text = "a,b,w,y\n";
    for (int i = 0; i < kRows; ++i) {
      const double a = mixed(i) % 100 / 50.0 - 1, b = mixed(i + 500) % 100 / 50.0 - 1;
      for (int k = 0; k < times(i); ++k)
        text +=
            fmt::format("{},{},{},{}\n", a, b, weight(i), a - b + mixed(i + 900) % 100 / 100.0 > 0.4 ? 1 : 0);
    }
    write_text(dir / name, text);
  }
  static std::string data(const std::string& file, bool weighted = true) {
    return "  train: {type: csv, files: " + file + ", schema: {label: {column: y}, " +
           (weighted ? "weight: {column: w}, " : "") +
           "features: {x: {columns: [a, b], transform: standardize}}}}\n  test: {type: csv, files: " + file +
           "}\n";
  }
};

TEST_F(Weights, ARowOfWeightZeroIsAsIfItWereNotThereToTheLastBit) {
  const auto some = [](int i) { return i % 3 == 1 ? 0.0 : 0.5 + i % 4; };
  write_rows("with.csv", some, [](int) { return 1; });
  write_rows("without.csv", some, [&](int i) { return some(i) > 0 ? 1 : 0; });
  const Ended with = train_job(job("with", data("with.csv"))),
              without = train_job(job("without", data("without.csv")));
  EXPECT_EQ(hash_of(with), hash_of(without));
  EXPECT_EQ(after(with.out, "  test "), after(without.out, "  test "));
}

TEST_F(Weights, OneForEachRowIsNoWeight) {
  write_rows(
      "one.csv", [](int) { return 1.0; }, [](int) { return 1; });
  const Ended with = train_job(job("with", data("one.csv"))),
              without = train_job(job("without", data("one.csv", false)));
  EXPECT_EQ(hash_of(with), hash_of(without));
  EXPECT_EQ(after(with.out, "  test "), after(without.out, "  test "));
}

// Each step takes all rows. The constants of transforms count rows, so that no transform is in it.
TEST_F(Weights, WeightTwoTrainsLikeTheRowTwice) {
  const auto times = [](int i) { return 1 + i % 3; };
  write_rows(
      "weighted.csv", [&](int i) { return times(i); }, [](int) { return 1; });
  write_rows(
      "repeated.csv", [](int) { return 1.0; }, times);
  const auto plain = [&](const std::string& file, const std::string& weight) {
    return "  train: {type: csv, files: " + file + ", schema: {label: {column: y}, " + weight +
           "features: {x: {columns: [a, b]}}}}\n  test: {type: csv, files: " + file + "}\n";
  };
  const std::string model = "[{type: dense, units: 1, regularizer: {type: l2, factor: 0.01}}]";
  const std::string few = "[log_loss, accuracy, auc, precision, recall]";
  const Ended weighted =
      train_job(job("weighted", plain("weighted.csv", "weight: {column: w}, "), kRows, model, few));
  const Ended repeated = train_job(job("repeated", plain("repeated.csv", ""), 139, model, few));
  const auto figures = [](const Ended& e) {
    std::string text = after(e.out, "  test ");
    return text.substr(text.find("loss"));
  };
  EXPECT_EQ(weighted.code, 0) << weighted.all();
  EXPECT_EQ(figures(weighted), figures(repeated)) << weighted.out << repeated.out;
  EXPECT_THAT(figures(weighted), AllOf(HasSubstr("auc 0."), HasSubstr("recall 0.")));
}

TEST_F(Weights, TheBitsDoNotDependOnServersAndWorkers) {
  write_rows(
      "a.csv", [](int i) { return i % 7 / 3.0; }, [](int) { return 1; });
  const std::string file = job("a", data("a.csv"));
  const Ended one = train_job(file);
  const std::string hash = hash_of(one), test = after(one.out, "  test ");
  for (const auto& [ranks, servers] : {std::pair{3, 1}, std::pair{4, 2}}) {
    const Ended many = train_job(file, ranks, set({fmt::format("cluster.servers={}", servers)}));
    EXPECT_EQ(hash_of(many), hash);
    EXPECT_EQ(after(many.out, "  test "), test);
  }
}

TEST_F(Weights, EvalAndPredictMeasureWithThem) {
  write_rows(
      "a.csv", [](int i) { return i % 7 / 3.0; }, [](int) { return 1; });
  const std::string file = job("a", data("a.csv"));
  const Ended trained = train_job(file);
  ASSERT_EQ(trained.code, 0) << trained.all();
  const Ended evaluated = command(Args{"eval", file} + run_dir());
  const std::string loss = "loss          " + after(evaluated.out, "  loss          ");
  EXPECT_THAT(trained.out, HasSubstr("  test         loss " + after(evaluated.out, "  loss          ")));
  // Rows of weight 0 are answered and not measured.
  const Ended predicted = command({"predict", dir / "run", "--in", dir / "a.csv", "--out", dir / "p.csv"});
  EXPECT_EQ(predicted.code, 0) << predicted.all();
  EXPECT_THAT(predicted.out, AllOf(HasSubstr("70 rows"), HasSubstr(loss),
                                   HasSubstr("auc           " + after(evaluated.out, "  auc           "))));
  EXPECT_EQ(lines_of(read_text(dir / "p.csv")).size(), 71U);
  write_text(dir / "b.csv", "b,a\n0,1\n1,0\n");
  const Ended bare = command({"predict", dir / "run", "--in", dir / "b.csv"});
  EXPECT_EQ(bare.code, 0) << bare.all();
  EXPECT_THAT(bare.err, Not(HasSubstr("loss")));
  write_text(dir / "c.csv", "b,a,y,w\n0,1,1,1\n1,0,0,-2\n");
  EXPECT_THAT(command({"predict", dir / "run", "--in", dir / "c.csv"}).err,
              HasSubstr("c.csv:3:7: column \"w\": expected a weight"));
}

// One file, of which a part is evaluated.
class Split : public TableData {
 protected:
  void SetUp() override {
    std::string text = "n,a,y\n";
    for (int i = 0; i < 200; ++i)
      text += fmt::format("{},{},{}\n", i, mixed(i) % 50, mixed(i) % 50 > 20 ? "yes" : "no");
    write_text(dir / "a.csv", text);
  }
  static std::string data(const std::string& split) {
    return "  train: {type: csv, files: a.csv, schema: {label: {column: y}, features: {x: {columns: [a], transform: "
           "standardize}}}}\n  split: " +
           split + "\n";
  }
};

TEST_F(Split, APartOfTheSamplesIsEvaluatedAndNotTrainedOnWhoeverReads) {
  const std::string file = job("a", data("{test: 0.25}"));
  const Ended one = train_job(file);
  const std::string hash = hash_of(one), test = after(one.out, "  test ");
  int n_train = 0, n_test = 0;
  ASSERT_EQ(
      std::sscanf(after(one.out, "  data ").c_str(), "%d samples to train, %d to test", &n_train, &n_test), 2)
      << one.out;
  EXPECT_EQ(n_train + n_test, 200);
  EXPECT_NEAR(n_test, 50, 20);
  for (const auto& [ranks, servers] : {std::pair{3, 1}, std::pair{4, 2}}) {
    const Ended many = train_job(file, ranks, set({fmt::format("cluster.servers={}", servers)}));
    EXPECT_EQ(hash_of(many), hash);
    EXPECT_EQ(after(many.out, "  test "), test);
  }
  const Ended evaluated = command(Args{"eval", file} + run_dir());
  EXPECT_THAT(evaluated.out, AllOf(HasSubstr(fmt::format("test samples  {}\n", n_test)),
                                   HasSubstr("  loss          " + test.substr(test.find("loss ") + 5, 6))));
  const Ended other = train_job(job("b", data("{test: 0.25, seed: 2}")));
  EXPECT_NE(hash_of(other), hash);
}

TEST_F(Split, IsTheSameAfterAResumeAndAnotherOneIsRefused) {
  const std::string file = job("a", data("{test: 0.25}"));
  const std::string hash = hash_of(train_job(file));
  ASSERT_EQ(train_job(file, 1, set({"train.max_steps=7"})).code, 0);
  const Ended resumed = command(Args{"train", file, "--resume"} + run_dir());
  EXPECT_EQ(hash_of(resumed), hash);
  const Ended other =
      command(Args{"train", file, "--resume"} + run_dir() + set({"data.split.seed=2", "train.epochs=9"}));
  EXPECT_EQ(other.code, 4) << other.all();
  EXPECT_THAT(other.err, HasSubstr("data.train: "));
}

TEST_F(Split, MistakesAreTold) {
  Ended e = train_job(job("a", data("{test: 0.25}") + "  test: {type: csv, files: a.csv}\n"));
  EXPECT_EQ(e.code, 2);
  EXPECT_THAT(e.err, HasSubstr("data.split: there is data.test, too"));
  e = train_job(job("a", data("{test: 1}")));
  EXPECT_THAT(e.err, HasSubstr("data.split.test: 1 is out of range"));
  e = train_job(job("a", data("{test: 1e-9}")));
  EXPECT_EQ(e.code, 3);
  EXPECT_THAT(e.err, HasSubstr("leaves none of 200 samples to evaluate; choose another share or seed"));
}

// Cells of several words, and two columns whose words are one.
class Bags : public TableData {
 protected:
  void SetUp() override {
    std::string text = "id,tags,p,q,y\n", svm;
    for (int i = 0; i < 120; ++i) {
      std::string tags;
      int score = 0;
      for (int k = 0; k < mixed(i) % 4; ++k) {
        const int tag = mixed(4 * i + k) % 9;
        tags += fmt::format("{}t{}:{}", tags.empty() ? "" : "|", tag, 1 + k);
        score += tag;
      }
      rows_.push_back(
          fmt::format("r{},{},{},{},{}", i, tags, "ab"[i % 2], "uvw"[mixed(i + 77) % 3], score > 4 ? 1 : 0));
      text += rows_.back() + "\n";
      svm += fmt::format("{} {}:{} 9:1\n", score > 4 ? 1 : 0, 1 + score % 8, 0.5 * (i % 5));
    }
    write_text(dir / "a.csv", text);
    write_text(dir / "a.svm", svm);
  }
  std::string csv_job() const {
    return job(
        "bags",
        "  train: {type: csv, files: a.csv, schema: {label: {column: y}, features: {tags: {columns: tags, split: "
        "'|', weights: true, vocabulary: {size: 7}}, pq: {cross: [p, q], hash: 50}}}}\n  split: {test: 0.3}\n",
        16,
        "[{type: embedding, input: tags, vocabulary: 7, units: 5, combiner: mean, name: t}, {type: embedding, input: "
        "pq, vocabulary: 50, units: 3}, {type: flatten, name: c}, {type: concat, inputs: [t, c]}, {type: dense, "
        "units: 9, activation: tanh}, {type: dense, units: 1}]");
  }
  std::vector<std::string> rows_;
};

TEST_F(Bags, TrainAndEvaluateWithTheSameBitsOnAnyRanks) {
  const std::string file = csv_job();
  const Ended one = train_job(file);
  const std::string hash = hash_of(one), test = after(one.out, "  test ");
  const Ended many = train_job(file, 4, set({"cluster.servers=2"}));
  EXPECT_EQ(hash_of(many), hash);
  EXPECT_EQ(after(many.out, "  test "), test);
  const Ended evaluated = command(Args{"eval", file} + run_dir());
  EXPECT_THAT(evaluated.out, AllOf(HasSubstr("  auc           "), HasSubstr("  unknown words ")));
}

TEST_F(Bags, APredictionHasTheSameBitsWhateverStandsBesideIt) {
  ASSERT_EQ(train_job(csv_job()).code, 0);
  const auto predicted = [&](const std::vector<std::string>& rows) {
    std::string text = "id,tags,p,q\n";
    for (const std::string& row : rows) text += row.substr(0, row.rfind(',')) + "\n";
    write_text(dir / "in.csv", text);
    const Ended e = command({"predict", dir / "run", "--in", dir / "in.csv", "--outputs", "logits"});
    EXPECT_EQ(e.code, 0) << e.all();
    return lines_of(e.out);
  };
  const std::vector<std::string> all = predicted(rows_);
  ASSERT_EQ(all.size(), 121U);
  const std::vector<std::string> back = predicted({rows_.rbegin(), rows_.rend()});
  for (std::size_t i = 1; i <= 120; ++i) EXPECT_EQ(all[i], back[121 - i]) << i;
  for (const std::size_t i : {0U, 33U, 119U}) EXPECT_EQ(predicted({rows_[i]})[1], all[i + 1]);
  const Ended shown = command({"data", "show", csv_job(), "--rows", "2"});
  EXPECT_EQ(shown.code, 0) << shown.all();
  EXPECT_THAT(shown.out, AllOf(HasSubstr("tags  "), HasSubstr("[ragged]"), HasSubstr("    0: tags [")));
  const Ended measured = command({"predict", dir / "run", "--in", dir / "a.csv", "--out", dir / "p.csv"});
  EXPECT_THAT(measured.out, AllOf(HasSubstr("  auc "), HasSubstr("  unknown words ")));
  // Longer bags than any that was trained on.
  write_text(dir / "in.csv", "tags,p,q\nt1|t2|t3|t4|t5|t6|t7|t8|new|newer:3,a,u\n,b,never\n");
  const Ended longer = command({"predict", dir / "run", "--in", dir / "in.csv"});
  EXPECT_EQ(longer.code, 0) << longer.all();
  EXPECT_THAT(longer.err, HasSubstr("unknown words"));
  write_text(dir / "in.csv", "tags,p,q\nt1:-1,a,u\n");
  EXPECT_THAT(command({"predict", dir / "run", "--in", dir / "in.csv"}).err,
              HasSubstr("weights must be finite"));
}

// The usual way to new rows: the table as it was, with no answer in it yet.
TEST_F(TableData, RowsWithoutAnAnswerAreAnsweredAndNotMeasured) {
  std::string text = "a,y\n", svm;
  for (int i = 0; i < 40; ++i) {
    text += fmt::format("{},{}\n", i, i < 20 ? "no" : "yes");
    svm += fmt::format("{} 1:{}\n", i < 20 ? -1 : 1, i);
  }
  write_text(dir / "t.csv", text);
  write_text(dir / "t.svm", svm);
  const auto predicted = [&](const std::string& in) {
    const Ended e = command({"predict", dir / "run", "--in", dir / in, "--out", dir / "out.csv"});
    EXPECT_EQ(e.code, 0) << e.all();
    EXPECT_EQ(lines_of(read_text(dir / "out.csv")).size(), 4U);
    EXPECT_THAT(e.out, Not(HasSubstr("accuracy"))) << "nothing to measure";
    return e.err;
  };
  ASSERT_EQ(train_job(job("csv", "  train: {type: csv, files: t.csv, schema: {label: {column: y}}}\n")).code,
            0);
  write_text(dir / "new.csv", "a,y\n1,\n30,\n31,NA\n");
  EXPECT_EQ(predicted("new.csv"), "");
  const Ended same = command({"predict", dir / "run", "--in", dir / "new.csv", "--out", dir / "new.csv"});
  EXPECT_EQ(same.code, 2) << same.all();
  EXPECT_THAT(same.err,
              HasSubstr("new.csv: is the file that is read; its rows would be lost: name another one"));
  EXPECT_EQ(read_text(dir / "new.csv"), "a,y\n1,\n30,\n31,NA\n");
  write_text(dir / "new.csv", "a,y\n1,no\n30,perhaps\n31,yes\n");
  EXPECT_EQ(predicted("new.csv"), "");
  ASSERT_EQ(train_job(job("svm", "  train: {type: libsvm, files: t.svm}\n")).code, 0);
  write_text(dir / "new.svm", "0 1:1\n0 1:30\n0 1:31\n");
  EXPECT_EQ(predicted("new.svm"), "");
  write_text(dir / "new.svm", "1:1\n1:30\n1:31\n");
  EXPECT_EQ(predicted("new.svm"), "");
}

// A row of weights of a bag's ids is what the product with a matrix of weights is.
TEST_F(Bags, OfLibsvmTrainLikeAllFeatures) {
  const auto figures = [&](const std::string& data, const std::string& layers) {
    const Ended e = train_job(job("svm", data, 120, layers));
    EXPECT_EQ(e.code, 0) << e.all();
    return after(e.out, "  test ");
  };
  const std::string test = "  test: {type: libsvm, files: a.svm";
  EXPECT_EQ(figures("  train: {type: libsvm, files: a.svm, bags: true}\n" + test + ", bags: true}\n",
                    "[{type: embedding, vocabulary: 9, units: 1, combiner: sum, initializer: zeros}]"),
            figures("  train: {type: libsvm, files: a.svm}\n" + test + "}\n",
                    "[{type: dense, units: 1, bias: false, initializer: zeros}]"));
}

TEST_F(Bags, MistakesAreTold) {
  const std::string data =
      "  train: {type: csv, files: a.csv, schema: {label: {column: y}, features: {tags: {columns: tags, split: "
      "'|', vocabulary: {size: 7}}}}}\n";
  Ended e = train_job(job("a", data, 16, "[{type: dense, units: 1}]"));
  EXPECT_EQ(e.code, 2) << e.all();
  EXPECT_THAT(
      e.err,
      HasSubstr("\"tags\" is a bag, any number of ids for each sample; what reads it is an embedding"));
  e = train_job(job("a", data, 16, "[{type: embedding, vocabulary: 7, units: 2}, {type: dense, units: 1}]"));
  EXPECT_THAT(e.err, HasSubstr("combiner: missing; a bag of ids needs one: sum, mean or sqrtn"));
  e = train_job(job("a", data, 16,
                    "[{type: embedding, vocabulary: 5, units: 2, combiner: sum}, {type: dense, units: 1}]"));
  EXPECT_THAT(e.err, HasSubstr("has rows for 5 ids, but the samples have 7 (their vocabulary)"));
}

class BadRecords : public TableData {};

TEST_F(BadRecords, AreWrittenToAFileOfTheRunAndCounted) {
  std::string text = "a,y\n";
  for (int i = 0; i < 40; ++i) text += fmt::format("{},{}\n", i == 7 ? "seven" : std::to_string(i), i % 2);
  write_text(dir / "a.csv", text);
  const std::string file =
      job("a",
          "  train: {type: csv, files: a.csv, bad_records: skip, max_bad_share: 0.1, schema: "
          "{label: {column: y}}}\n  test: {type: csv, files: a.csv, bad_records: skip, "
          "max_bad_share: 0.1}\n");
  const std::string what = (dir / "a.csv") + ":9:1: column \"a\": expected a number, got \"seven\"\n";
  for (const int ranks : {1, 4}) {
    const Ended e = train_job(file, ranks);
    EXPECT_EQ(e.code, 0) << e.all();
    EXPECT_THAT(e.out, AllOf(HasSubstr("  bad records  1 of 40 left out of data.train: " +
                                       (dir / "run/bad_records.txt")),
                             HasSubstr("  bad records  1 of 40 left out of data.test: ")));
    EXPECT_EQ(read_text(dir / "run/bad_records.txt"), "data.train: " + what + "data.test: " + what);
  }
  write_text(dir / "a.csv", "a,y\n1,0\n2,1\n");
  EXPECT_EQ(train_job(file).code, 0);
  EXPECT_FALSE(std::filesystem::exists(dir / "run/bad_records.txt"));
  write_text(dir / "a.csv", "a,y\n1,0\nx,1\n");
  const Ended many = train_job(file);
  EXPECT_EQ(many.code, 3) << many.all();
  EXPECT_THAT(many.err, HasSubstr("1 of 2 records are bad, more than max_bad_share 0.1; the first: "));
}

class Warnings : public TableData {};

TEST_F(Warnings, OfWhatAJobHardlyMeansIsOneLineEach) {
  write_text(dir / "a.csv", "a,y\n1,yes\n2,yes\n3,yes\n");
  write_text(dir / "b.csv", "a,y\n1,yes\n2,no\n3,yes\n");
  const auto data = [](const std::string& file) {
    return "  train: {type: csv, files: " + file + ", schema: {label: {column: y}}}\n";
  };
  const auto told = [&](const std::string& file, int batch, const std::string& layers,
                        const Args& more = {}) {
    const Ended e = train_job(job("a", data(file), batch, layers), 1, more);
    EXPECT_EQ(e.code, 0) << e.all();
    const std::vector<std::string> lines = e.messages();
    EXPECT_EQ(lines.size(), 1U) << e.all();
    return lines.empty() ? "" : lines.front();
  };
  const std::string one = "[{type: dense, units: 1}]";
  EXPECT_THAT(told("a.csv", 3, one, set({"cluster.logical_workers=1"})),
              HasSubstr("data.train: all 3 samples are of class yes: there is nothing to tell apart"));
  EXPECT_THAT(told("b.csv", 9, one, set({"cluster.logical_workers=1"})),
              HasSubstr("train.batch: 9 is more than the 3 samples of data.train"));
  EXPECT_THAT(
      told("b.csv", 3, "[{type: dense, units: 1, trainable: false}]", set({"cluster.logical_workers=1"})),
      HasSubstr("no variable is trained"));
  EXPECT_THAT(
      told("b.csv", 3, "[{type: dense, units: 1, activation: sigmoid}]", set({"cluster.logical_workers=1"})),
      HasSubstr("the last layer ends with sigmoid, and loss sigmoid_cross_entropy applies sigmoid itself"));
  EXPECT_THAT(
      told(
          "b.csv", 3, "[{type: dense, units: 2}, {type: softmax}]",
          set({"cluster.logical_workers=1", "model.loss=softmax_cross_entropy", "train.metrics=[accuracy]"})),
      HasSubstr("the last layer ends with softmax, and loss softmax_cross_entropy applies softmax itself"));
}

}  // namespace
}  // namespace varscope::testing
