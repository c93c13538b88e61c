// `varscope neighbors`, as a user runs it: words that stand together in a text are found as neighbors, of
// sparse tables and of dense embeddings; ids of tables; and what is wrong is told.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <set>

#include <nlohmann/json.hpp>

#include "tests/support/jobs/job.h"

namespace varscope::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

constexpr int kPairs = 10;
std::string left(int pair) { return fmt::format("left{}", pair); }
std::string right(int pair) { return fmt::format("right{}", pair); }

// Sentences of two words each, in any order: who stands beside one of a pair stands beside the other, too.
std::string text_of_pairs() {
  std::mt19937 random(3);
  std::string text;
  for (int sentence = 0; sentence < 600; ++sentence) {
    const int pair = static_cast<int>(random() % kPairs);
    for (int i = 0; i < 8; ++i) text += (random() % 2 == 0 ? left(pair) : right(pair)) + " ";
  }
  return text;
}

class Neighbors : public ::testing::Test {
 protected:
  // `ids`: of both embeddings, "vocabulary: 30" or "table: {ids: int64}".
  void train_on_pairs(const std::string& ids, const std::string& run_dir) const {
    write_text(dir / "text", text_of_pairs());
    const std::string layer =
        "    - {type: embedding, units: 8, initializer: {type: uniform, low: -0.1, high: 0.1}, " + ids + ", ";
    train(
        "data:\n  train: {type: skipgram, file: " + (dir / "text") +
            ", window: 2, negatives: 3, subsample: 0, test_fraction: 0}\nmodel:\n  layers:\n" + layer +
            "scope: words, input: word, name: w}\n" + layer +
            "scope: contexts, input: context, name: c}\n    - {type: dot, inputs: [w, c]}\n"
            "  loss: sigmoid_cross_entropy\noptimizer: {type: adagrad, learning_rate: 0.1, initial_accumulator: 1e-6}\n"
            "train: {batch: 32, epochs: 4}\n",
        run_dir);
    std::filesystem::remove(dir / "text");  // the checkpoint knows the words
  }
  void train(const std::string& config, const std::string& run_dir) const {
    write_text(dir / "job.yaml", "job: {name: t}\n" + config);
    const Ended e = run(varscope(Args{"train", dir / "job.yaml"} +
                                 set({"job.run_dir=" + (dir / run_dir), "output.progress=off"})));
    EXPECT_EQ(e.code, 0) << e.all();
  }
  Ended neighbors(const std::string& run_dir, const Args& more, int code = 0) const {
    Ended e = run(varscope(Args{"neighbors", dir / run_dir} + more));
    EXPECT_EQ(e.code, code) << e.all();
    return e;
  }
  Json json(const std::string& run_dir, const Args& more) const {
    return Json::parse(neighbors(run_dir, Args{"--json"} + more).out);
  }
  std::string refused(const std::string& run_dir, const Args& more, int code = 2) const {
    const Ended e = neighbors(run_dir, more, code);
    EXPECT_EQ(e.out, "");
    return e.err;
  }
  ScratchDir dir;
};

TEST_F(Neighbors, OfAWordIsTheOneThatStandsWithIt) {
  train_on_pairs("table: {ids: int64}", "run");
  Args words;
  for (int pair = 0; pair < kPairs; ++pair) words = words + Args{left(pair), right(pair)};
  const Json found = json("run", words);
  EXPECT_EQ(found.at("variable"), "words/embeddings");
  ASSERT_EQ(found.at("words").size(), words.size());
  for (std::size_t i = 0; i < words.size(); ++i) {
    const Json& answer = found.at("words").at(i);
    EXPECT_EQ(answer.at("word"), words[i]);
    EXPECT_EQ(answer.at("neighbors").size(), 10U);
    EXPECT_EQ(answer.at("neighbors").at(0).at("word"), words[i ^ 1U]) << answer.dump(1);
    EXPECT_GT(answer.at("neighbors").at(0).at("similarity").get<double>(), 0.9) << answer.dump(1);
    EXPECT_LT(answer.at("neighbors").at(1).at("similarity").get<double>(), 0.9) << answer.dump(1);
  }
  EXPECT_EQ(json("run", {"left1", "--variable", "contexts/embeddings"}).at("variable"),
            "contexts/embeddings");
}

TEST_F(Neighbors, AreTheFirstOfAllOthersByTheirSimilarity) {
  train_on_pairs("table: {ids: int64}", "run");
  const Json all = json("run", {"left3", "--top", "1000"}).at("words").at(0).at("neighbors");
  EXPECT_EQ(all.size(), 2U * kPairs - 1) << "each word but itself";
  std::set<std::string> names;
  for (const Json& n : all) names.insert(n.at("word"));
  EXPECT_EQ(names.size(), all.size());
  EXPECT_FALSE(names.contains("left3"));
  EXPECT_TRUE(std::ranges::is_sorted(all, [](const Json& a, const Json& b) {
    return a.at("similarity").get<double>() > b.at("similarity").get<double>();
  })) << all.dump(1);
  for (const std::size_t top : {1U, 4U, 7U}) {
    const Json few = json("run", {"--top", std::to_string(top), "left3"}).at("words").at(0).at("neighbors");
    ASSERT_EQ(few.size(), top);
    for (std::size_t i = 0; i < top; ++i) EXPECT_EQ(few.at(i), all.at(i));
  }
  // As text, and of a checkpoint that is named itself; it is as near as the other one is to it.
  const Json answer = json("run", {"left3"});
  const std::string checkpoint = answer.at("checkpoint");
  const Ended text = run(varscope({"neighbors", checkpoint, "left3", "right3", "--top", "1"}));
  const double similarity = all.at(0).at("similarity").get<double>();
  EXPECT_EQ(lines_of(text.out),
            (Args{fmt::format("{} (step {}): cosine similarity of rows of words/embeddings", checkpoint,
                              answer.at("step").get<std::int64_t>()),
                  "", "left3", fmt::format("  {:>7.4f}  right3", similarity), "", "right3",
                  fmt::format("  {:>7.4f}  left3", similarity)}))
      << text.all();
}

// A table trains by Adagrad as the dense embedding of its scope does, to the last bit, and has no other
// neighbors.
TEST_F(Neighbors, OfADenseEmbeddingAreThoseOfATable) {
  train_on_pairs("table: {ids: int64}", "sparse");
  train_on_pairs("vocabulary: 30", "dense");
  const Args words{"left0", "right7", "left9", "--top", "50"};
  const Json sparse = json("sparse", words), dense = json("dense", words);
  EXPECT_EQ(sparse.at("words"), dense.at("words"));
  EXPECT_EQ(dense.at("words").at(0).at("neighbors").size(), 2U * kPairs - 1)
      << "rows without words are left out";
}

TEST_F(Neighbors, SaysWhichWordsThereAre) {
  train_on_pairs("table: {ids: int64}", "run");
  EXPECT_THAT(
      refused("run", {"left1", "leftt2"}),
      AllOf(HasSubstr("\"leftt2\" is none of the 20 words of input \"word\"; did you mean \"left2\"?")));
  EXPECT_THAT(
      refused("run", {"left1", "--variable", "word/embeddings"}),
      HasSubstr("--variable word/embeddings: the model has no such embedding; did you mean "
                "\"words/embeddings\"?; it has words/embeddings (input word), contexts/embeddings (input "
                "context)"));
  EXPECT_THAT(refused("run", {}), HasSubstr("words is required"));
  EXPECT_THAT(refused("run", {"left1", "--top", "0"}), HasSubstr("--top"));
  EXPECT_THAT(refused("nothing", {"left1"}, 4), HasSubstr(dir / "nothing does not exist"));
  const std::string old = std::string(VARSCOPE_CONFIGS) + "/../tests/fixtures/checkpoints/v1.0";
  const Ended e = run(varscope({"neighbors", old, "left1"}));
  EXPECT_EQ(e.code, 4) << e.all();
  EXPECT_THAT(e.err,
              HasSubstr("does not say what model it is of (an older version has written it, or no run)"));
}

// Users whose ids are numbers, and two columns of words in one input.
constexpr const char* kTable =
    "data:\n  train: {type: csv, files: t.csv, schema: {label: {column: y}, features: {"
    "user: {columns: [u], ids: int64}, place: {columns: [from, to], vocabulary: {size: 10}}}}}\n";

class TableNeighbors : public Neighbors {
 protected:
  void SetUp() override {
    std::string csv = "u,from,to,y\n";
    std::mt19937 random(4);
    const char* places[] = {"Oslo", "Rome", "Lima"};
    for (int i = 0; i < 300; ++i) {
      const int user = static_cast<int>(random() % 6) - 1;  // -1 .. 4
      csv += fmt::format("{},{},{},{}\n", user, places[random() % 3], places[random() % 3],
                         user < 2 ? "a" : "b");
    }
    write_text(dir / "t.csv", csv);
  }
  void train_table(const std::string& layers, const std::string& run_dir) const {
    train(kTable + ("model:\n  loss: sigmoid_cross_entropy\n  layers:\n" + layers) +
              "optimizer: {type: adagrad, learning_rate: 0.2}\ntrain: {batch: 16, epochs: 10}\n",
          run_dir);
  }
};

TEST_F(TableNeighbors, AreIdsOrWordsOfColumns) {
  const std::string user =
      "    - {type: embedding, scope: user, input: user, units: 4, combiner: sum, table: {ids: int64}, name: u}\n";
  const std::string place =
      "    - {type: embedding, scope: place, input: place, units: 4, vocabulary: 8, name: p}\n"
      "    - {type: flatten, input: p, name: places}\n";
  const std::string logit = "    - {type: dense, units: 1}\n";
  train_table(user + place + "    - {type: concat, inputs: [u, places]}\n" + logit, "both");
  // Those on one side of the label are near each other.
  const Json ids = json("both", {"--variable", "user/embeddings", "--top", "2", "--", "-1", "3"});
  const auto names_of = [](const Json& answer) {
    std::set<std::string> names;
    for (const Json& n : answer.at("neighbors")) names.insert(n.at("word"));
    return names;
  };
  EXPECT_EQ(names_of(ids.at("words").at(0)), (std::set<std::string>{"0", "1"}));
  EXPECT_EQ(names_of(ids.at("words").at(1)), (std::set<std::string>{"2", "4"}));
  // The only one whose input has words; the ids of words that the vocabulary does not have are left out.
  const Json words = json("both", {"from=Oslo", "--top", "100"});
  EXPECT_EQ(words.at("variable"), "place/embeddings");
  EXPECT_EQ(names_of(words.at("words").at(0)),
            (std::set<std::string>{"from=Rome", "from=Lima", "to=Oslo", "to=Rome", "to=Lima"}));
  EXPECT_THAT(
      refused("both", {"Oslo"}),
      HasSubstr("\"Oslo\" is none of the 6 words of input \"place\"; say COLUMN=WORD, for columns from, to"));
  EXPECT_THAT(refused("both", {"--variable", "user/embeddings", "7"}),
              HasSubstr("\"7\" has no row in user/embeddings: no sample that was trained on had it"));
  EXPECT_THAT(refused("both", {"--variable", "user/embeddings", "Oslo"}),
              HasSubstr("the ids of input \"user\" are numbers: expected an id of type int64"));
}

// Of texts whose hashes are ids nobody keeps the texts: they are asked for by them, and answered as hashes.
TEST_F(TableNeighbors, OfTextsAreHashes) {
  const auto train_strings = [&](const std::string& columns, const std::string& run_dir) {
    train(
        "data:\n  train: {type: csv, files: t.csv, schema: {label: {column: y}, features: {place: {columns: " +
            columns +
            ", ids: string}}}}\nmodel:\n  loss: sigmoid_cross_entropy\n  layers:\n"
            "    - {type: embedding, scope: place, units: 4, combiner: sum, table: {ids: string}}\n"
            "    - {type: dense, units: 1}\ntrain: {batch: 16, epochs: 1}\n",
        run_dir);
  };
  train_strings("[from]", "one");
  const Json one = json("one", {"Oslo", "Rome"});
  EXPECT_EQ(one.at("words").at(0).at("neighbors").size(), 2U);
  // Each is named in the other's answer, by the same hash.
  std::set<std::string> names;
  for (const Json& word : one.at("words")) {
    for (const Json& n : word.at("neighbors")) {
      EXPECT_THAT(n.at("word").get<std::string>(), ::testing::MatchesRegex("#[0-9a-f]{16}"));
      names.insert(n.at("word"));
    }
  }
  EXPECT_EQ(names.size(), 3U);
  EXPECT_THAT(refused("one", {"oslo"}), HasSubstr("\"oslo\" has no row in place/embeddings"));
  train_strings("[from, to]", "two");
  EXPECT_EQ(json("two", {"to=Oslo"}).at("words").at(0).at("neighbors").size(), 5U);
  for (const char* word : {"Oslo", "at=Oslo"}) {
    EXPECT_THAT(refused("two", {word}),
                HasSubstr(fmt::format("\"{}\": input \"place\" has several columns: say "
                                      "COLUMN=WORD, for columns from, to",
                                      word)));
  }
}

TEST_F(TableNeighbors, OfPartsAreThoseOfTheWholeAndZerosHaveNone) {
  const std::string rest = "    - {type: flatten}\n    - {type: dense, units: 1}\n";
  const std::string place = "    - {type: embedding, scope: place, input: place, units: 4, vocabulary: 8";
  train_table(place + "}\n" + rest, "whole");
  train_table(place + ", partitioner: {type: fixed_size, parts: 3}}\n" + rest, "parts");
  EXPECT_EQ(json("parts", {"to=Lima"}).at("variable"), "place/embeddings");
  EXPECT_EQ(json("parts", {"to=Lima"}).at("words"), json("whole", {"to=Lima"}).at("words"));
  train_table(place + ", initializer: zeros, trainable: false}\n" + rest, "zeros");
  EXPECT_THAT(refused("zeros", {"to=Lima"}, 4),
              HasSubstr("the row of \"to=Lima\" is all zeros: it has no direction, and so no neighbors"));
}

TEST_F(TableNeighbors, NeedOneEmbedding) {
  const std::string user =
      "    - {type: embedding, scope: s$, input: user, units: 4, combiner: sum, table: {ids: int64}, name: n$}\n";
  const auto numbered = [&](const char* n) {
    std::string text = user;
    for (std::size_t at = text.find('$'); at != std::string::npos; at = text.find('$'))
      text.replace(at, 1, n);
    return text;
  };
  train_table(numbered("1") + numbered("2") +
                  "    - {type: concat, inputs: [n1, n2]}\n    - {type: dense, units: 1}\n",
              "two");
  EXPECT_THAT(
      refused("two", {"1"}),
      HasSubstr("the model has several embeddings: s1/embeddings (input user), s2/embeddings (input user); "
                "choose one: --variable s1/embeddings"));
  EXPECT_EQ(json("two", {"1", "--variable", "s2/embeddings"}).at("variable"), "s2/embeddings");
  train(
      "data: {train: {type: digits, samples: 50}}\nmodel: {layers: [{type: flatten}, {type: dense, units: 10}], loss: "
      "softmax_cross_entropy}\ntrain: {batch: 10, epochs: 1}\n",
      "digits");
  EXPECT_THAT(refused("digits", {"1"}),
              HasSubstr("the model has no embedding: neighbors are looked for in the rows of a "
                        "layer embedding or of a table"));
}

}  // namespace
}  // namespace varscope::testing
