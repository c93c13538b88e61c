#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "common/config/yaml_reader.h"
#include "tests/support/thrown.h"
#include "worker/graph/session.h"
#include "worker/tables/memory_rows.h"
#include "worker/train/evaluator.h"
#include "worker/train/predictor.h"

// What reads rows of tables and makes none: predictions, gradients of inputs, evaluations.
namespace varscope {
namespace {

using testing::thrown;

// Samples with an id of any 64 bits, a bag of up to three, and two numbers; to answer with a number.
class Clicks final : public Dataset {
 public:
  explicit Clicks(std::int64_t n) : n_(n) {}
  std::int64_t size() const override { return n_; }
  const Shape& sample_shape() const override { return shape_; }
  std::int64_t n_classes() const override { return 0; }
  Target target() const override { return Target::numbers; }
  const Shape& label_shape() const override { return label_; }
  std::vector<InputSpec> inputs() const override {
    return {{.name = "user", .shape = Shape{}, .features = Features::row_ids},
            {.name = "seen", .shape = Shape{Shape::kRagged}, .features = Features::row_ids, .most = 3},
            {.name = "seen/offsets", .shape = Shape{Shape::kBounds}, .features = Features::offsets},
            {.name = "age", .shape = shape_}};
  }
  static std::int64_t user(std::int64_t i) { return i * 0x1234567890abcdLL - 3; }
  void read(std::span<const std::int64_t> indices, const BatchView& batch) const override {
    std::int64_t* seen = batch.inputs[1].data<std::int64_t>();
    std::int64_t* offsets = batch.inputs[2].data<std::int64_t>();
    offsets[0] = 0;
    for (std::size_t i = 0; i < indices.size(); ++i) {
      const std::int64_t at = indices[i];
      batch.inputs[0].data<std::int64_t>()[i] = user(at);
      offsets[i + 1] = offsets[i] + at % 4;
      for (std::int64_t k = 0; k < at % 4; ++k) seen[offsets[i] + k] = user(at + k);
      for (std::size_t c = 0; c < 2; ++c)
        batch.inputs[3].data<float>()[2 * i + c] = static_cast<float>(at) / 10 - static_cast<float>(c);
      batch.y.data<float>()[i] = static_cast<float>(at % 5);
    }
  }
  Digest content() const override { return {}; }

 private:
  std::int64_t n_;
  Shape shape_{2}, label_{1};
};

// Counts what is asked for.
class CountedRows final : public RowReader {
 public:
  void read(const Variable& table, std::span<const std::uint64_t> ids, std::byte* out) override {
    EXPECT_TRUE(std::ranges::is_sorted(ids, {}, mix_row_id));
    asked.insert(ids.begin(), ids.end());
    rows.read(table, ids, out);
  }
  MemoryRows rows{5};
  std::set<std::uint64_t> asked;
};

struct Built {
  JobConfig job;
  VariableStore store;
  Model model;
  Session session;
  CountedRows rows;
  static JobConfig config() {
    return parse_job(
        read_yaml_text(
            "job: {name: t, seed: 5}\ndata: {train: {type: digits}}\ntrain: {eval_batch: 7}\nmodel:\n"
            "  loss: mean_squared_error\n  layers:\n"
            "    - {type: embedding, name: u, input: user, scope: u, units: 5, table: {}}\n"
            "    - {type: embedding, name: s, input: seen, reuse: u, units: 5, combiner: mean, "
            "table: {}}\n"
            "    - {type: multiply, inputs: [u, s], name: both}\n"
            "    - {type: concat, inputs: [u, both, age]}\n"
            "    - {type: dense, units: 8, activation: tanh}\n    - {type: dense, units: 1}\n",
            "job.yaml"),
        "job.yaml");
  }
  static Model both(VariableStore& store, const JobConfig& job) {
    build_model(store, job, DataFacts::of(Clicks(40)));
    return build_model(store, job, DataFacts::of(Clicks(40)), GraphMode::evaluate);
  }
  Built() : job(config()), model(both(store, job)), session(model.graph, 5) {}
  void bind(Executor& executor) const {
    for (const Variable* v : model.graph.variables()) {
      if (!v->spec().is_table()) executor.bind(*v, session.value(*v));
    }
  }
};

struct Rows {
  explicit Rows(std::int64_t n) : data(n), batch(data.spec(), DType::float32, n), n(n) {
    std::vector<std::int64_t> indices;
    for (std::int64_t i = 0; i < n; ++i) indices.push_back(i);
    data.read_weighted(indices, batch.view(n));
  }
  Clicks data;
  Batch batch;
  std::int64_t n;
};

TEST(TableReading, PredictionsAreThoseOfTheModelWhateverStandsBeside) {
  Built b;
  const auto bind = [&](Executor& e) { b.bind(e); };
  Predictor predictor(b.model, Clicks(1).spec(), DType::float32, bind, {}, &b.rows);
  const Rows all(37), few(5);
  const std::vector<double> answers = predictor.outputs(all.batch.view(37), 37);
  const std::vector<double> of_few = predictor.outputs(few.batch.view(5), 5);
  ASSERT_EQ(answers.size(), 37U);
  for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(answers[i], of_few[i]);
  Predictor cut(b.model, Clicks(1).spec(), DType::float32, bind, {}, &b.rows, 10, Predictor::Fill::cut);
  EXPECT_EQ(cut.block(), 10);
  const std::vector<double> nearly = cut.outputs(all.batch.view(37), 37);
  ASSERT_EQ(nearly.size(), 37U);
  for (std::size_t i = 0; i < 37; ++i) EXPECT_NEAR(nearly[i], answers[i], 1e-6) << i;
  const Tensor y = std::move(b.session.run({b.model.output}, b.model.feeds(all.batch.view(37)))[0]);
  for (std::size_t i = 0; i < 37; ++i) EXPECT_NEAR(answers[i], static_cast<double>(y.as<float>()[i]), 1e-6);
  EXPECT_EQ(b.rows.rows.n_rows(*b.store.find("u/embeddings")), 0);
  EXPECT_TRUE(b.rows.asked.contains(static_cast<std::uint64_t>(Clicks::user(36))));
}

// By differences of the answers, in double.
TEST(TableReading, GradientsOfInputsFlowBesideRows) {
  DataFacts facts;
  facts.target = Target::numbers;
  facts.label_shape = {1};
  facts.named_inputs = {{.name = "user", .shape = Shape{}, .features = Features::row_ids},
                        {.name = "age", .shape = Shape{2}}};
  JobConfig job = parse_job(
      read_yaml_text(
          "job: {name: t}\ndata: {train: {type: digits}}\nmodel:\n  loss: mean_squared_error\n  layers:\n"
          "    - {type: embedding, name: u, input: user, scope: u, units: 2, table: {}}\n"
          "    - {type: multiply, inputs: [u, age]}\n    - {type: dense, units: 3, activation: tanh}\n"
          "    - {type: dense, units: 1}\n  dtype: float64\n",
          "job.yaml"),
      "job.yaml");
  VariableStore store;
  build_model(store, job, facts);
  const Model model = build_model(store, job, facts, GraphMode::evaluate);
  Session session(model.graph, 5);
  const auto bind = [&](Executor& e) {
    for (const Variable* v : model.graph.variables()) {
      if (!v->spec().is_table()) e.bind(*v, session.value(*v));
    }
  };
  const SampleSpec spec{facts.named_inputs, Target::numbers, {1}, false};
  InputGradients gradients(model, spec, DType::float64, bind, &session.rows());
  EXPECT_THAT(gradients.inputs(), ::testing::ElementsAre(1));
  const Batch batch(spec, DType::float64, 2);
  const BatchView rows = batch.view(2);
  rows.inputs[0].data<std::int64_t>()[0] = 17;
  rows.inputs[0].data<std::int64_t>()[1] = -5;
  const auto age = rows.inputs[1].as<double>();
  for (std::size_t i = 0; i < 4; ++i) age[i] = 0.3 + static_cast<double>(i);
  const std::vector<double> gradient = gradients.of(rows, 2, 1, 0);
  ASSERT_EQ(gradient.size(), 2U);
  const auto answer = [&] { return session.run({model.output}, model.feeds(rows))[0].as<double>()[1]; };
  for (std::size_t c = 0; c < 2; ++c) {
    const double before = age[2 + c];
    age[2 + c] = before + 1e-5;
    const double up = answer();
    age[2 + c] = before - 1e-5;
    EXPECT_NEAR(gradient[c], (up - answer()) / 2e-5, 1e-8);
    EXPECT_NE(gradient[c], 0);
    age[2 + c] = before;
  }
}

TEST(TableReading, EvaluationsReadRowsAndMakeNone) {
  Built b;
  const Clicks test(40);
  Evaluator evaluator(b.job, b.model, test);
  b.bind(evaluator.executor());
  evaluator.set_rows(b.rows);
  const EvalReport report = evaluator.run(0, 1);
  ASSERT_EQ(report.sums.size(), 6U);
  double loss = 0;
  for (const BatchSums& s : report.sums) loss += s.loss;
  const Rows all(40);
  const Tensor whole = std::move(b.session.run({b.model.loss}, b.model.feeds(all.batch.view(40)))[0]);
  EXPECT_NEAR(loss, whole.as<double>()[0], 1e-6 * loss);
  EXPECT_EQ(b.rows.rows.n_rows(*b.store.find("u/embeddings")), 0);
}

TEST(TableReading, SaysWhenNobodyGivesRows) {
  Built b;
  const char* words =
      "argument: table \"u/embeddings\" (made at job.yaml:7:7) is looked up, and there is no reader of its rows";
  EXPECT_EQ(
      thrown([&] { Predictor(b.model, Clicks(1).spec(), DType::float32, [&](Executor& e) { b.bind(e); }); }),
      words);
  const Clicks test(4);
  Evaluator evaluator(b.job, b.model, test);
  b.bind(evaluator.executor());
  EXPECT_EQ(thrown([&] { evaluator.run(0, 1); }), words);
}

}  // namespace
}  // namespace varscope
