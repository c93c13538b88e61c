// What a version answers: the bits of a row, the types that are taken, and the words for what does not fit.
#include "serve/engine/version.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "tests/support/serving/fake_servable.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;
using testing::FakeServable;
using testing::floats_of;
using ::testing::HasSubstr;
using testing::image;
using testing::images_model;
using testing::images_request;
using testing::request_of;
using testing::request_of_texts;
using testing::run_alone;
using testing::thrown;
using testing::version_info;

std::string refused(const Version& version, const InferRequest& request) {
  return thrown([&] { version.check(request); });
}

TEST(Version, ARowHasTheSameBitsAloneAndBesideOthersInAnyPlace) {
  const Version version(images_model(3), version_info(1));
  std::vector<std::vector<float>> alone;
  for (int i = 0; i < 70; ++i)
    alone.push_back(floats_of(run_alone(version, images_request(i, 1)).outputs[0]));
  const std::vector<float> all = floats_of(run_alone(version, images_request(0, 70)).outputs[0]);
  std::vector<InferRequest> requests;
  for (const int n : {1, 30, 2, 37}) requests.push_back(images_request(0, n));
  std::vector<InferAnswer> answers(requests.size());
  std::vector<RequestPiece> pieces;
  for (std::size_t i = 0; i < requests.size(); ++i)
    pieces.push_back({&requests[i], 0, requests[i].inputs[0].shape[0], &answers[i]});
  Version::Runner(version).run(pieces);
  for (std::size_t row = 0; row < 70; ++row) {
    EXPECT_TRUE(
        std::equal(alone[row].begin(), alone[row].end(), all.begin() + static_cast<std::ptrdiff_t>(10 * row)))
        << row;
  }
  for (const InferAnswer& a : answers) {
    const std::vector<float> some = floats_of(a.outputs[0]);
    EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin())) << a.n_rows;
  }
}

// Runs of as many rows as there are: the numbers are the same but for the last bits.
TEST(Version, WithoutExactnessRowsAreThoseOfAnExactOneButForLastBits) {
  VersionInfo info = version_info(1);
  info.is_exact = false;
  info.block = 20;
  const Version exact(images_model(3), version_info(1)), other(images_model(3), info);
  EXPECT_TRUE(exact.served().version.is_exact);
  EXPECT_FALSE(other.served().version.is_exact);
  EXPECT_EQ(other.served().version.block, 20);
  for (const int n : {1, 2, 19, 20, 21, 57}) {
    const std::vector<float> due = floats_of(run_alone(exact, images_request(5, n)).outputs[0]);
    const InferAnswer answer = run_alone(other, images_request(5, n));
    ASSERT_FALSE(answer.refusal) << answer.refusal->text;
    const std::vector<float> given = floats_of(answer.outputs[0]);
    ASSERT_EQ(given.size(), due.size());
    for (std::size_t i = 0; i < due.size(); ++i) EXPECT_NEAR(given[i], due[i], 1e-6) << n << " " << i;
  }
}

TEST(Version, PiecesOfARequestAreItsRows) {
  const Version version(images_model(3), version_info(1));
  const InferRequest request = images_request(0, 50);
  Version::Runner runner(version);
  InferAnswer answer;
  for (const auto& [begin, n] : {std::pair{0, 20}, std::pair{20, 1}, std::pair{21, 29}}) {
    const RequestPiece piece{&request, begin, n, &answer};
    runner.run(std::span(&piece, 1));
  }
  EXPECT_THAT(answer.outputs[0].shape, ElementsAre(50, 10));
  EXPECT_EQ(answer.outputs[0].data, run_alone(version, request).outputs[0].data);
}

TEST(Version, SaysWhatItTakesAndGives) {
  const Version version(images_model(3), version_info(7));
  const Signature& s = *version.served().signature;
  ASSERT_EQ(s.inputs.size(), 1U);
  EXPECT_EQ(tensor_text(s.inputs[0].shape, s.inputs[0].type), "[?, 8, 8] FP32");
  ASSERT_EQ(s.outputs.size(), 3U);
  EXPECT_EQ(s.outputs[0].name, "probabilities");
  EXPECT_EQ(tensor_text(s.outputs[0].shape, s.outputs[0].type), "[?, 10] FP32");
  EXPECT_EQ(s.outputs[1].name, "classes");
  EXPECT_EQ(tensor_text(s.outputs[1].shape, s.outputs[1].type), "[?] INT32");
  EXPECT_EQ(s.outputs[2].name, "logits");
  EXPECT_EQ(version.served().version.id.name(), "7");
  EXPECT_GE(version.served().version.block, 1);
}

TEST(Version, OutputsAreThoseThatAreAskedForInTheirOrder) {
  const Version version(images_model(3), version_info(1));
  InferRequest request = images_request(0, 2);
  request.outputs = {"classes", "logits"};
  const InferAnswer answer = run_alone(version, request);
  ASSERT_EQ(answer.outputs.size(), 2U);
  EXPECT_THAT(answer.outputs[0].shape, ElementsAre(2));
  const std::vector<float> logits = floats_of(answer.outputs[1]);
  std::array<std::int32_t, 2> classes{};
  std::memcpy(classes.data(), answer.outputs[0].data.data(), sizeof(classes));
  for (std::size_t row = 0; row < 2; ++row) {
    const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(10 * row);
    EXPECT_EQ(classes[row], std::max_element(begin, begin + 10) - begin);
  }
}

TEST(Version, BytesOfAnImageAreWhatTheyWereInTraining) {
  const Version version(images_model(3), version_info(1));
  std::vector<std::uint8_t> bytes(64);
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{150});
  std::vector<float> numbers;
  std::vector<double> doubles;
  for (const std::uint8_t b : bytes) {
    numbers.push_back(static_cast<float>(b) / 255.0F);
    doubles.push_back(static_cast<double>(numbers.back()));
  }
  const auto of_bytes = run_alone(version, request_of("x", OipType::uint8, {1, 8, 8}, bytes));
  const auto of_floats = run_alone(version, request_of("x", OipType::fp32, {1, 8, 8}, numbers));
  const auto of_doubles = run_alone(version, request_of("x", OipType::fp64, {1, 8, 8}, doubles));
  EXPECT_EQ(of_bytes.outputs[0].data, of_floats.outputs[0].data);
  EXPECT_EQ(of_doubles.outputs[0].data, of_floats.outputs[0].data);
}

TEST(Version, SaysWhatDoesNotFit) {
  const Version version(images_model(3), version_info(1));
  EXPECT_EQ(refused(version, request_of("x", OipType::fp32, {2, 63}, std::vector<float>(126))),
            "data: input \"x\" has shape [2, 63] FP32; the model takes [?, 8, 8] FP32");
  EXPECT_EQ(refused(version, request_of_texts("x", {"a"})),
            "data: input \"x\" has shape [1] BYTES; the model takes [?, 8, 8] FP32");
  EXPECT_EQ(refused(version, request_of("X", OipType::fp32, {1, 8, 8}, std::vector<float>(64))),
            "data: the model has no input \"X\", it has x; did you mean \"x\"?");
  InferRequest twice = images_request(0, 1);
  twice.inputs.push_back(twice.inputs[0]);
  EXPECT_EQ(refused(version, twice), "data: input \"x\" is there twice");
  EXPECT_EQ(refused(version, {}), "data: input \"x\" is missing: [?, 8, 8] FP32");
  EXPECT_EQ(refused(version, request_of("x", OipType::fp32, {0, 8, 8}, std::vector<float>())),
            "data: input \"x\" has no rows");
  InferRequest other = images_request(0, 1);
  other.outputs = {"logit"};
  EXPECT_THAT(
      refused(version, other),
      HasSubstr(
          "the model has no output \"logit\", it has probabilities, classes, logits; did you mean \"logits\"?"));
}

TEST(Version, AnOutputThatIsNotFiniteIsRefusedWhereTextWasAskedFor) {
  const Version version(images_model(3), version_info(1));
  InferRequest request = images_request(0, 2);
  std::vector<float> pixels(128, 0.5F);
  pixels[70] = std::numeric_limits<float>::infinity();
  request = request_of("x", OipType::fp32, {2, 8, 8}, pixels, {"logits"});
  EXPECT_FALSE(run_alone(version, request).refusal);
  request.refuses_not_finite = true;
  const InferAnswer answer = run_alone(version, request);
  ASSERT_TRUE(answer.refusal);
  EXPECT_EQ(answer.refusal->kind, Refusal::Kind::not_finite);
  EXPECT_THAT(answer.refusal->text, HasSubstr("output \"logits\" of row 1 is "));
}

// Words of ten classes; two of them known.
TEST(Version, IdsAreNumbersOrWords) {
  DataFacts facts;
  facts.named_inputs = {{.name = "w", .shape = Shape{2}, .features = Features::ids, .n_ids = 3}};
  facts.sample_shape = Shape{2};
  facts.features = Features::ids;
  facts.n_classes = 4;
  ServableSchema schema;
  schema.answers = ServableSchema::Answers::softmax;
  schema.vocabulary = {"<unk>", "cat", "dog"};
  const Version version(
      std::make_shared<FakeServable>("    - {type: embedding, units: 3, vocabulary: 3}\n"
                                     "    - {type: flatten}\n    - {type: dense, units: 4}\n",
                                     facts, schema, 5),
      version_info(1));
  const auto of_ids =
      run_alone(version, request_of("w", OipType::int64, {2, 2}, std::vector<std::int64_t>{1, 2, 0, 1}));
  InferRequest words = request_of_texts("w", {"cat", "dog", "gnu", "cat"});
  words.inputs[0].shape = {2, 2};
  ASSERT_FALSE(of_ids.refusal) << of_ids.refusal->text;
  EXPECT_EQ(run_alone(version, words).outputs[0].data, of_ids.outputs[0].data);
  const auto bad =
      run_alone(version, request_of("w", OipType::int32, {2, 2}, std::vector<std::int32_t>{1, 2, 0, 3}));
  ASSERT_TRUE(bad.refusal);
  EXPECT_EQ(bad.refusal->text, "input \"w\", row 1, place 1: 3 is not among the ids 0 .. 2");
}

TableColumn column(std::string name, std::int64_t index) {
  TableColumn c;
  c.name = std::move(name);
  c.index = index;
  return c;
}

std::shared_ptr<FakeServable> table_model() {
  TableSchema table;
  TableInput numbers;
  numbers.name = "n";
  numbers.columns = {column("age", 2), column("height", 0)};
  numbers.columns[1].takes_missing = true;
  numbers.columns[1].missing = 0.25;
  TableInput words;
  words.name = "c";
  words.is_category = true;
  words.columns = {column("city", 1)};
  words.columns[0].vocabulary = {"Bonn", "Kiel"};
  table.inputs = {numbers, words};
  table.label.columns = {column("answer", 3)};
  table.label.classes = {"no", "yes"};
  DataFacts facts;
  facts.named_inputs = {{.name = "n", .shape = Shape{2}},
                        {.name = "c", .shape = Shape{1}, .features = Features::ids, .n_ids = 3}};
  facts.sample_shape = Shape{2};
  facts.n_classes = 2;
  ServableSchema schema;
  schema.answers = ServableSchema::Answers::sigmoid;
  schema.table = table;
  schema.names = {"no", "yes"};
  return std::make_shared<FakeServable>(
      "    - {type: embedding, input: c, units: 3, vocabulary: 3, name: e}\n    - {type: flatten, input: e, name: f}\n"
      "    - {type: concat, inputs: [n, f]}\n    - {type: dense, units: 1}\n",
      facts, schema, 5, "sigmoid_cross_entropy");
}

InferRequest row_of(double age, std::optional<double> height, const std::string& city) {
  struct Memory {
    double age, height;
    std::string city;
  };
  auto memory = std::make_shared<Memory>(Memory{age, height.value_or(0), city});
  InferRequest request;
  request.inputs.push_back({.name = "age",
                            .type = OipType::fp64,
                            .shape = {1},
                            .data = std::as_bytes(std::span(&memory->age, 1))});
  if (height)
    request.inputs.push_back({.name = "height",
                              .type = OipType::fp64,
                              .shape = {1},
                              .data = std::as_bytes(std::span(&memory->height, 1))});
  request.inputs.push_back({.name = "city", .type = OipType::bytes, .shape = {1}, .texts = {memory->city}});
  request.memory = memory;
  return request;
}

TEST(Version, ColumnsOfATableAreReadAsInTraining) {
  const Version version(table_model(), version_info(1));
  const Signature& s = *version.served().signature;
  ASSERT_EQ(s.inputs.size(), 3U);
  EXPECT_EQ(s.inputs[0].name, "age");
  EXPECT_FALSE(s.inputs[0].may_be_missing);
  EXPECT_TRUE(s.inputs[1].may_be_missing);
  EXPECT_EQ(s.inputs[2].type, OipType::bytes);
  EXPECT_EQ(tensor_text(s.outputs[0].shape, s.outputs[0].type), "[?, 2] FP32");

  const auto answered = [&](const InferRequest& request) {
    const InferAnswer a = run_alone(version, request);
    EXPECT_FALSE(a.refusal) << a.refusal->text;
    return a.outputs.empty() ? std::vector<std::byte>() : a.outputs[0].data;
  };
  const auto full = answered(row_of(0.5, 0.25, "Kiel"));
  EXPECT_EQ(answered(row_of(0.5, {}, "Kiel")), full) << "what is missing is 0.25";
  EXPECT_EQ(answered(row_of(0.5, std::nan(""), "Kiel")), full);
  EXPECT_NE(answered(row_of(0.5, 0.25, "Bonn")), full);
  EXPECT_EQ(answered(row_of(0.5, 0.25, "Rome")), answered(row_of(0.5, 0.25, "Oslo")))
      << "words that nobody knows";
  EXPECT_EQ(refused(version, request_of_texts("city", {"Kiel"})), "data: input \"age\" is missing: [?] FP64");
}

TEST(Version, ABadCellIsTheRefusalOfItsRequestAlone) {
  const Version version(table_model(), version_info(1));
  const InferRequest good = row_of(0.5, 0.25, "Kiel"), bad = row_of(std::nan(""), 0.25, "Kiel");
  std::vector<InferAnswer> answers(3);
  const std::vector<RequestPiece> pieces = {
      {&good, 0, 1, &answers[0]}, {&bad, 0, 1, &answers[1]}, {&good, 0, 1, &answers[2]}};
  Version::Runner(version).run(pieces);
  EXPECT_FALSE(answers[0].refusal);
  ASSERT_TRUE(answers[1].refusal);
  EXPECT_EQ(answers[1].refusal->kind, Refusal::Kind::invalid);
  EXPECT_THAT(answers[1].refusal->text, HasSubstr("row 0: column \"age\""));
  ASSERT_FALSE(answers[2].refusal);
  EXPECT_EQ(answers[2].outputs[0].data, answers[0].outputs[0].data);
  EXPECT_EQ(answers[2].outputs[0].data, run_alone(version, good).outputs[0].data);
}

}  // namespace
}  // namespace varscope
