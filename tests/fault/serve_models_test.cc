// Models of other kinds than images and tables: `varscope serve` answers as `varscope predict` does.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <random>

#include <nlohmann/json.hpp>

#include "tests/support/jobs/job.h"
#include "tests/support/jobs/tiny_job.h"
#include "tests/support/serving/replica.h"

namespace varscope::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Json = nlohmann::json;

// Days in their order, and rain or sun after each.
std::string weather() {
  std::string text;
  std::mt19937 random(3);
  const char* const days[] = {"monday", "tuesday", "wednesday", "thursday"};
  for (int i = 0; i < 1000; ++i)
    text += fmt::format("{} {} ", days[i % 4], random() % 2 == 0 ? "rain" : "sun");
  return text;
}

Json tensor(const std::string& type, const Json& shape, const Json& data) {
  return {{"inputs", {{{"name", "x"}, {"shape", shape}, {"datatype", type}, {"data", data}}}}};
}

Json asked(const Replica& replica, const Json& body, int status = 200) {
  const std::string answer = HttpClient(replica.port).ask(http_post("/v2/models/m/infer", body.dump()));
  EXPECT_EQ(status_of(answer), status) << answer;
  return Json::parse(body_of(answer));
}

// A prompt as long as a window is what the model reads in both ways: from a state of zeros.
TEST(ServedModels, ALanguageModelSaysTheNextWordAsPredictDoes) {
  const ScratchDir dir;
  write_text(dir / "text", weather());
  write_text(
      dir / "job.yaml",
      "job: {name: t}\ndata: {train: {type: text, file: text, vocabulary: 7, steps: 4}}\nmodel: {loss: "
      "softmax_cross_entropy, layers: [{type: embedding, vocabulary: 7, units: 8}, {type: lstm, units: 16}, "
      "{type: dense, units: 7, each_step: true}]}\noptimizer: {type: adam, learning_rate: 0.02}\n"
      "train: {epochs: 4, batch: 10}\n");
  train(varscope(Args{"train", dir / "job.yaml"} + set({"job.run_dir=" + (dir / "run")})));
  std::filesystem::remove(dir / "text");
  const Ended predicted =
      run(varscope({"predict", dir / "run", "--generate", "1", "--prompt", "monday rain tuesday sun",
                    "--temperature", "0", "--out", dir / "w.jsonl"}));
  ASSERT_EQ(predicted.code, 0) << predicted.all();
  const Json due = Json::parse(lines_of(text_of_file(dir / "w.jsonl")).at(0));
  Replica replica(dir / "run");
  ASSERT_TRUE(replica.wait_until_ready()) << replica.job.out() << replica.job.err();
  const Json words = {"monday", "rain", "tuesday", "sun"};
  const Json answer = asked(replica, tensor("BYTES", {1, 4}, words))["outputs"][0];
  EXPECT_EQ(answer["name"], "probabilities");
  EXPECT_EQ(answer["shape"], Json({1, 4, 7}));
  const std::vector<double> last(answer["data"].end() - 7, answer["data"].end());
  const double likeliest = *std::max_element(last.begin(), last.end());
  EXPECT_EQ(due["word"], "wednesday");
  EXPECT_NEAR(likeliest, due["probability"].get<double>(), 1e-5) << "step by step, other kernels add up";

  // A row of words has the bits of a row of their ids, and of the same row beside others.
  const Json metadata = Json::parse(body_of(HttpClient(replica.port).ask(http_get("/v2/models/m"))));
  EXPECT_EQ(metadata["inputs"][0]["datatype"], "INT32");
  Json two = words;
  for (const char* word : {"sun", "hail", "monday", "sun"}) two.push_back(word);
  const Json both = asked(replica, tensor("BYTES", {2, 4}, two))["outputs"][0]["data"];
  EXPECT_TRUE(std::equal(answer["data"].begin(), answer["data"].end(), both.begin()));
  const Json told = asked(replica, tensor("INT64", {1, 4}, {1, 2, 3, 7}), 400);
  EXPECT_EQ(told["error"], "input \"x\", row 0, place 3: 7 is not among the ids 0 .. 6");
}

// The features of libsvm's text are columns called by their indices.
TEST(ServedModels, FeaturesOfLibsvmAreColumns) {
  const ScratchDir dir;
  std::string text;
  for (int i = 0; i < 200; ++i)
    text += fmt::format("{} {}:1 {}:{}\n", i % 3 == 0 ? "+1" : "-1", 1 + i % 3, 4 + i % 2, 0.25 * (i % 5));
  write_text(dir / "t.libsvm", text);
  const auto job = [&](const std::string& source, const std::string& layers) {
    write_text(dir / "job.yaml", "job: {name: t}\ndata: {train: {type: libsvm, files: t.libsvm" + source +
                                     "}}\nmodel: {loss: sigmoid_cross_entropy, layers: [" + layers +
                                     "]}\ntrain: {epochs: 2, batch: 20}\n");
    train(varscope(Args{"train", dir / "job.yaml", "--fresh"} + set({"job.run_dir=" + (dir / "run")})));
  };
  job("", "{type: dense, units: 1}");
  write_text(dir / "x.libsvm", "1:1 5:0.75\n3:1\n");
  const Ended predicted = run(varscope({"predict", dir / "run", "--in", dir / "x.libsvm", "--out",
                                        dir / "p.jsonl", "--outputs", "probabilities"}));
  ASSERT_EQ(predicted.code, 0) << predicted.all();
  const std::vector<std::string> due = lines_of(text_of_file(dir / "p.jsonl"));
  ASSERT_EQ(due.size(), 2U);
  {
    Replica replica(dir / "run");
    ASSERT_TRUE(replica.wait_until_ready()) << replica.job.out() << replica.job.err();
    const Json instances =
        Json::parse(R"([{"1":1,"2":0,"3":0,"4":0,"5":0.75},{"1":0,"2":0,"3":1,"4":0,"5":0}])");
    const std::string text_of_answer =
        HttpClient(replica.port)
            .ask(http_post("/v1/models/m:predict", Json{{"instances", instances}}.dump()));
    ASSERT_EQ(status_of(text_of_answer), 200) << text_of_answer;
    const Json answer = Json::parse(body_of(text_of_answer))["predictions"];
    ASSERT_EQ(answer.size(), 2U);
    for (std::size_t row = 0; row < 2; ++row) {
      std::vector<double> expected;
      const Json line = Json::parse(due[row]);
      for (const auto& [key, value] : line.items()) {
        if (key.starts_with("probability")) expected.push_back(value.get<double>());
      }
      ASSERT_EQ(expected.size(), 2U) << due[row];
      EXPECT_THAT(answer[row].get<std::vector<double>>(), ::testing::UnorderedElementsAreArray(expected))
          << row;
    }
  }
  // Bags of any number of ids have no form in the protocols.
  job(", bags: true", "{type: embedding, vocabulary: 5, units: 1, combiner: sum}");
  const Ended refused = run(varscope({"serve", dir / "run", "--listen", "127.0.0.1:0"}));
  EXPECT_EQ(refused.code, 4) << refused.all();
  EXPECT_THAT(refused.err, HasSubstr("its data are bags of libsvm, whose rows no request can have"));
}

// An address that ends in #ask presses the button: the row that stands in the form is sent.
TEST(ServedModels, ThePageShowsTheAnswerInABrowser) {
  if (std::system("command -v chromium > /dev/null") != 0) GTEST_SKIP() << "chromium is not installed";
  const ScratchDir dir;
  train(tiny_alone(dir / "run", set({"train.max_steps=100"})));
  Replica replica(dir / "run");
  ASSERT_TRUE(replica.wait_until_ready()) << replica.job.out() << replica.job.err();
  const std::string chromium =
      "exec chromium --headless --no-sandbox --disable-gpu --user-data-dir=" + (dir / "profile") +
      " --virtual-time-budget=5000 --dump-dom ";
  const Ended page =
      run({{"/bin/sh", "-c", chromium + fmt::format("http://127.0.0.1:{}/#ask", replica.port)}});
  EXPECT_EQ(page.code, 0) << page.all();
  EXPECT_THAT(page.out, AllOf(HasSubstr("Try it"), HasSubstr("200 in "), HasSubstr("\"predictions\"")))
      << page.all();
}

}  // namespace
}  // namespace varscope::testing
