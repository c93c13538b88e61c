#include "worker/data/text.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "tests/support/thrown.h"

namespace varscope {
namespace {

class TextFile {
 public:
  explicit TextFile(const std::string& text)
      : path_(std::filesystem::temp_directory_path() /
              fmt::format("varscope_text_test_{}_{}", getpid(), counter_++)) {
    std::ofstream(path_) << text;
  }
  ~TextFile() { std::filesystem::remove(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  static inline int counter_ = 0;
  std::filesystem::path path_;
};

TextOptions options(std::int64_t vocabulary, std::int64_t steps, std::int64_t streams,
                    double test_fraction = 0) {
  TextOptions o;
  o.vocabulary = vocabulary;
  o.steps = steps;
  o.streams = streams;
  o.test_fraction = test_fraction;
  return o;
}

// Words of sample i, and the words that follow each.
std::pair<std::string, std::string> sample(const TextDataset& data, std::int64_t i) {
  const Tensor x(DType::int32, {1, data.sample_shape()[0]}), y(DType::int32, {1, data.sample_shape()[0]});
  data.fill(std::span(&i, 1), x.view(), y.view());
  std::pair<std::string, std::string> text;
  for (const std::int32_t id : x.as<std::int32_t>())
    text.first += data.vocabulary()[static_cast<std::size_t>(id)] + " ";
  for (const std::int32_t id : y.as<std::int32_t>())
    text.second += data.vocabulary()[static_cast<std::size_t>(id)] + " ";
  return text;
}

TEST(TextDataset, OrdersWordsByFrequencyThenAlphabetically) {
  const TextFile file("b a c a b a\n d  c\t");
  const TextDataset data(file.path(), options(10, 1, 1));
  EXPECT_EQ(data.vocabulary(), (std::vector<std::string>{"<unk>", "a", "b", "c", "d"}));
  EXPECT_EQ(data.n_classes(), 10);
  EXPECT_EQ(data.n_words(), 8);
}

TEST(TextDataset, CutsRareWordsToUnknown) {
  const TextFile file("a a a b b c");
  const TextDataset data(file.path(), options(3, 5, 1));
  EXPECT_EQ(sample(data, 0).first, "a a a b b ");
  EXPECT_EQ(sample(data, 0).second, "a a b b <unk> ");
}

TEST(TextDataset, ReadsSequencesSideBySide) {
  const TextFile file("a b c d e f g h i j k l m");  // 12 words to read: two sequences of 6
  const TextDataset data(file.path(), options(20, 2, 2));
  ASSERT_EQ(data.size(), 6);
  EXPECT_EQ(data.streams(), 2);
  EXPECT_EQ(sample(data, 0), std::pair(std::string("a b "), std::string("b c ")));
  EXPECT_EQ(sample(data, 1), std::pair(std::string("g h "), std::string("h i ")));
  EXPECT_EQ(sample(data, 2).first, "c d ");
  EXPECT_EQ(sample(data, 5), std::pair(std::string("k l "), std::string("l m ")));
}

TEST(TextDataset, TestPartHasTheTrainingPartsVocabulary) {
  const TextFile file("a b a b a b a z");
  TextOptions o = options(10, 1, 1, 0.25);
  EXPECT_EQ(TextDataset(file.path(), o).vocabulary(), (std::vector<std::string>{"<unk>", "a", "b"}));
  o.split = DataSplit::test;
  const TextDataset test(file.path(), o);
  EXPECT_EQ(test.n_words(), 2);
  EXPECT_EQ(sample(test, 0), std::pair(std::string("a "), std::string("<unk> ")));
}

TEST(TextDataset, AnotherFileMayGiveTheVocabulary) {
  const TextFile train("a a a b b c"), test("c c c b x");
  TextOptions o = options(3, 1, 1);
  o.split = std::nullopt;
  o.vocabulary_file = train.path();
  const TextDataset data(test.path(), o);
  EXPECT_EQ(data.vocabulary(), (std::vector<std::string>{"<unk>", "a", "b"}));
  EXPECT_EQ(data.n_words(), 5);
  EXPECT_EQ(sample(data, 2), std::pair(std::string("<unk> "), std::string("b ")));
}

TEST(TextDataset, TakesTheFirstWordsOnly) {
  const TextFile file("a b c d e f");
  TextOptions o = options(10, 1, 1);
  o.words = 3;
  EXPECT_EQ(TextDataset(file.path(), o).size(), 2);
}

TEST(TextDataset, SaysWhatIsWrong) {
  const TextFile file("a b c");
  EXPECT_THAT_THROWN(TextDataset(file.path(), options(10, 2, 2)), ErrorKind::data,
                     {"has 3 words in its training part", "2 sequences of 2 words need at least 5"});
  EXPECT_THAT_THROWN(TextDataset("no/such/file", options(10, 2, 2)), ErrorKind::data,
                     {"no/such/file", "get_data.sh"});
  EXPECT_THAT_THROWN(TextDataset(file.path(), options(1, 2, 2)), ErrorKind::argument, {"vocabulary of 1"});
  const TextFile empty("");
  EXPECT_THAT_THROWN(TextDataset(empty.path(), options(10, 1, 1)), ErrorKind::data, {"has 0 words"});
  const TextDataset data(file.path(), options(10, 1, 1));
  const Tensor x(DType::float32, {1, 1}), y(DType::int32, {1, 1});
  const std::int64_t first = 0, beyond = 2;
  EXPECT_THAT_THROWN(data.fill(std::span(&first, 1), x.view(), y.view()), ErrorKind::argument,
                     {"do not fit"});
  EXPECT_THAT_THROWN(data.fill(std::span(&beyond, 1), y.view(), y.view()), ErrorKind::argument,
                     {"sample 2 was asked for; there are 2"});
}

}  // namespace
}  // namespace varscope
