#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <map>

#include "common/base/hash.h"
#include "common/config/yaml_reader.h"
#include "tests/support/thrown.h"
#include "worker/graph/session.h"
#include "worker/layers/model.h"
#include "worker/ops/ops.h"

// Layers that look up rows of a sparse table.
namespace varscope {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::thrown;

constexpr std::int64_t kVocabulary = 20;

// The layers' lines begin at line 6 of the file.
JobConfig job(const std::string& layers, const std::string& dtype) {
  const std::string text =
      "job: {name: t}\ndata: {train: {type: digits}}\nmodel:\n  loss: mean_squared_error\n"
      "  layers:\n" +
      layers + "  dtype: " + dtype + "\n";
  return parse_job(read_yaml_text(text, "job.yaml"), "job.yaml");
}

// Samples with an id, four ids, a bag of ids with weights, one without, and a number.
DataFacts facts(IdType type = IdType::int64) {
  DataFacts data;
  data.target = Target::numbers;
  data.label_shape = {1};
  const auto ids = [&](const char* name, Shape shape) {
    return InputSpec{
        .name = name, .shape = std::move(shape), .features = Features::row_ids, .most = 5, .id_type = type};
  };
  const auto offsets = [](const char* name) {
    return InputSpec{.name = name, .shape = {Shape::kBounds}, .features = Features::offsets};
  };
  data.named_inputs = {ids("user", {}),
                       ids("last", {4}),
                       ids("history", {Shape::kRagged}),
                       offsets("history/offsets"),
                       {.name = "history/weights", .shape = {Shape::kRagged}, .most = 5},
                       ids("words", {Shape::kRagged}),
                       offsets("words/offsets"),
                       {.name = "age", .shape = {1}}};
  return data;
}

struct Built {
  VariableStore store;
  Model model;
  explicit Built(const std::string& layers, const DataFacts& data = facts(),
                 const std::string& dtype = "float32")
      : model(build_model(store, job(layers, dtype), data)) {}
  NodeId node(std::string_view name) const { return model.graph.find(name).value(); }
  const Variable& variable(std::string_view name) const { return *store.find(name); }
};

std::string error_of(const std::string& layers, const DataFacts& data = facts()) {
  return thrown([&] { Built(layers, data); });
}

// A batch of four; bags in the middle and at the end are empty, one has an id of weight 0 and one twice.
struct Samples {
  std::map<std::string, Tensor> arrays;
  explicit Samples(DType dtype = DType::float32) {
    arrays.emplace("user", Tensor::of<std::int64_t>({4}, {3, 17, 3, 0}));
    arrays.emplace("last",
                   Tensor::of<std::int64_t>({4, 4}, {1, 2, 3, 4, 0, 0, 19, 1, 5, 5, 5, 5, 0, 0, 0, 0}));
    arrays.emplace("history", Tensor::of<std::int64_t>({6}, {2, 3, 2, 19, 4, 11}));
    arrays.emplace("history/offsets", Tensor::of<std::int64_t>({5}, {0, 3, 3, 6, 6}));
    arrays.emplace("words", Tensor::of<std::int64_t>({4}, {0, 8, 8, 9}));
    arrays.emplace("words/offsets", Tensor::of<std::int64_t>({5}, {0, 1, 1, 4, 4}));
    if (dtype == DType::float32) {
      arrays.emplace("history/weights", Tensor::of<float>({6}, {0.5F, 2, 0.3F, 1, 0, 0.7F}));
      arrays.emplace("age", Tensor::of<float>({4, 1}, {1, 2, 3, 4}));
      arrays.emplace("y", Tensor::of<float>({4, 1}, {1, -1, 2, 5}));
    } else {
      arrays.emplace("history/weights", Tensor::of<double>({6}, {0.5, 2, 0.3, 1, 0, 0.7}));
      arrays.emplace("age", Tensor::of<double>({4, 1}, {1, 2, 3, 4}));
      arrays.emplace("y", Tensor::of<double>({4, 1}, {1, -1, 2, 5}));
    }
  }
  Feeds feeds(const Graph& graph) const {
    Feeds all;
    for (const auto& [name, array] : arrays) all.emplace_back(graph.find(name).value(), array.view());
    return all;
  }
};

// Every way to look rows up, the ids' keys being `of`.
std::string all_layers(const std::string& of) {
  const std::string row = "units: 5, initializer: {type: uniform, low: -0.5, high: 0.5}, " + of + "}\n";
  std::string layers = "    - {type: embedding, name: a, input: user, scope: a, " + row +
                       "    - {type: embedding, name: b, input: last, scope: b, " + row +
                       "    - {type: flatten, name: b_flat}\n"
                       "    - {type: embedding, name: c, input: words, scope: c, combiner: mean, " +
                       row;
  std::string inputs = "a, b_flat, c";
  for (const char* combiner : {"sum", "mean", "sqrtn"}) {
    layers += fmt::format(
        "    - {{type: embedding, name: {0}, input: history, scope: {0}, combiner: {0}, {1}", combiner, row);
    inputs += std::string(", ") + combiner;
  }
  // One more of a's rows, and a factorization machine.
  layers +=
      "    - {type: embedding, name: again, input: words, reuse: a, combiner: sum, units: 5, " + of + "}\n";
  layers +=
      "    - {type: factorization_machine, name: fm, input: history, scope: fm, factors: 3, "
      "initializer: {type: normal, stddev: 0.3}, " +
      of + "}\n";
  return layers + "    - {type: concat, name: all, inputs: [" + inputs + ", again, fm, age]}\n" +
         "    - {type: dense, scope: out, units: 1}\n";
}

// The rows of a table's gradient stand at their ids, and elsewhere it is zero.
template <class T>
void expect_rows_of(const Tensor& dense, const Tensor& rows, std::span<const std::uint64_t> ids) {
  ASSERT_EQ(rows.shape()[0], std::ssize(ids));
  const auto units = static_cast<std::size_t>(dense.shape()[1]);
  std::vector<T> wanted(dense.as<T>().size(), T(0));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ASSERT_LT(ids[i], static_cast<std::uint64_t>(kVocabulary));
    std::copy_n(rows.as<T>().data() + i * units, units, wanted.data() + ids[i] * units);
  }
  EXPECT_TRUE(std::ranges::equal(dense.as<T>(), wanted));
}

template <class T>
void expect_equal_to_dense(const std::string& dtype) {
  const Built dense(all_layers("vocabulary: 20"), facts(), dtype);
  const Built tables(all_layers("table: {ids: int64, parts: 16}"), facts(), dtype);
  const Samples samples(dtype_of<T>());
  Session wanted(dense.model.graph, 7), session(tables.model.graph, 7);
  const Tensor y = std::move(wanted.run({dense.model.output}, samples.feeds(dense.model.graph))[0]);
  const Tensor ours = std::move(session.run({tables.model.output}, samples.feeds(tables.model.graph))[0]);
  EXPECT_TRUE(std::ranges::equal(y.as<T>(), ours.as<T>()));
  const auto dy = wanted.gradients(dense.model.loss, samples.feeds(dense.model.graph));
  const auto our_dy = session.gradients(tables.model.loss, samples.feeds(tables.model.graph));
  ASSERT_EQ(dy.size(), our_dy.size());
  int n_tables = 0;
  for (const auto& [name, gradient] : dy) {
    SCOPED_TRACE(name);
    const Variable& v = tables.variable(name);
    if (v.spec().is_table()) {
      expect_rows_of<T>(gradient, our_dy.at(name), session.ids(v));
      ++n_tables;
    } else {
      const Tensor& ours_of_it = our_dy.at(name);
      EXPECT_TRUE(std::ranges::equal(gradient.template as<T>(), ours_of_it.as<T>()));
    }
  }
  EXPECT_EQ(n_tables, 7);
  EXPECT_EQ(tables.model.n_parameters(), dense.model.layers.back().n_parameters);  // rows do not count
}

TEST(TableLayers, EqualDenseOnesBitByBit) {
  expect_equal_to_dense<float>("float32");
  expect_equal_to_dense<double>("float64");
}

TEST(TableLayers, HaveOnePlaceForTheRowsOfOneTable) {
  const Built b(all_layers("table: {}"));
  Session session(b.model.graph, 7);
  session.run({b.model.output}, Samples().feeds(b.model.graph));
  std::vector<std::uint64_t> ids(session.ids(b.variable("a/embeddings")).begin(),
                                 session.ids(b.variable("a/embeddings")).end());
  EXPECT_THAT(ids, ::testing::UnorderedElementsAre(0, 3, 8, 9, 17));  // of user and of words
  EXPECT_EQ(b.variable("a/embeddings").spec().table, (TableSpec{IdType::int64, 1024}));
  EXPECT_EQ(b.variable("a/embeddings").shape(), (Shape{0, 5}));
  // An id of weight 0 is not asked for.
  std::vector<std::uint64_t> weighted(session.ids(b.variable("sum/embeddings")).begin(),
                                      session.ids(b.variable("sum/embeddings")).end());
  EXPECT_THAT(weighted, ::testing::UnorderedElementsAre(2, 3, 11, 19));
}

TEST(TableLayers, ReuseByAutoIsOneTable) {
  const std::string rest = "scope: item, units: 4, reuse: auto, table: {ids: int64}";
  const Built b("    - {type: embedding, name: a, input: user, " + rest +
                "}\n"
                "    - {type: embedding, name: b, input: last, combiner: sum, " +
                rest + "}\n    - {type: concat, inputs: [a, b]}\n    - {type: dense, units: 1}\n");
  EXPECT_EQ(b.store.variables().size(), 3U);
  ASSERT_EQ(b.model.graph.lookups().size(), 2U);
  EXPECT_EQ(b.model.graph.lookups()[0].table, b.model.graph.lookups()[1].table);
}

// The output of a lookup that is the model's first layer, named e, and the ids that it has asked for.
struct Looked {
  std::vector<float> out;
  Shape shape;
  std::vector<std::uint64_t> ids;
  Tensor gradient;
};
Looked look(const std::string& layer, const Samples& samples, bool with_gradient = true) {
  const Built b("    - " + layer + "\n    - {type: flatten}\n    - {type: dense, units: 1}\n");
  Session session(b.model.graph, 1);
  const Variable& table = b.variable("e/embeddings");
  const Tensor y = std::move(session.run({b.model.layers[0].output}, samples.feeds(b.model.graph))[0]);
  Looked looked{{y.as<float>().begin(), y.as<float>().end()}, y.shape(), {}, {}};
  if (with_gradient)
    looked.gradient = session.gradients(b.model.loss, samples.feeds(b.model.graph)).at(table.name()).clone();
  looked.ids.assign(session.ids(table).begin(), session.ids(table).end());
  return looked;
}

TEST(TableLayers, PaddingIsZerosAndNoRow) {
  const Looked e = look(
      "{type: embedding, input: last, scope: e, units: 2, initializer: 3, padding: 0, table: {}}", Samples());
  EXPECT_EQ(e.shape, (Shape{4, 4, 2}));
  // 1 2 3 4, 0 0 19 1, 5 5 5 5, 0 0 0 0
  for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ(e.out[2 * i], i == 4 || i == 5 || i > 11 ? 0 : 3) << i;
  EXPECT_THAT(e.ids, ::testing::UnorderedElementsAre(1, 2, 3, 4, 19, 5));
  EXPECT_EQ(e.gradient.shape(), (Shape{6, 2}));
}

TEST(TableLayers, WithoutPaddingZeroIsAnId) {
  const Looked e =
      look("{type: embedding, input: last, scope: e, units: 2, initializer: 3, table: {}}", Samples());
  EXPECT_THAT(e.out, ::testing::Each(3));
  EXPECT_THAT(e.ids, ::testing::Contains(0U));
}

TEST(TableLayers, BagsOfPaddingAloneAreEmpty) {
  for (const char* combiner : {"sum", "mean", "sqrtn"}) {
    const Looked e = look(fmt::format("{{type: embedding, input: last, scope: e, units: 1, initializer: 3, "
                                      "combiner: {}, padding: 0, table: {{}}}}",
                                      combiner),
                          Samples());
    const float two = combiner == std::string("sum") ? 6 : 3;
    EXPECT_EQ(e.shape, (Shape{4, 1}));
    if (combiner != std::string("sqrtn")) {
      EXPECT_THAT(e.out, ElementsAre(2 * two - (two == 3 ? 3 : 0), two, 2 * two - (two == 3 ? 3 : 0), 0));
    } else {
      EXPECT_EQ(e.out[0], 6);  // 12 / sqrt(4)
      EXPECT_EQ(e.out[3], 0);
    }
    EXPECT_THAT(e.ids, ::testing::UnorderedElementsAre(1, 2, 3, 4, 19, 5));
  }
}

TEST(TableLayers, BagsOfWeightZeroAreEmptyAndTouchNothing) {
  Samples samples;
  for (float& w : samples.arrays.at("history/weights").as<float>()) w = 0;
  for (const char* combiner : {"sum", "mean", "sqrtn"}) {
    const Looked e = look(fmt::format("{{type: embedding, input: history, scope: e, units: 2, combiner: {}, "
                                      "table: {{}}}}",
                                      combiner),
                          samples);
    EXPECT_EQ(e.shape, (Shape{4, 2}));
    EXPECT_THAT(e.out, ::testing::Each(0));
    EXPECT_TRUE(e.ids.empty());
    EXPECT_EQ(e.gradient.shape(), (Shape{0, 2}));
  }
}

TEST(TableLayers, TakeIdsOfAllBits) {
  Samples samples;
  auto ids = samples.arrays.at("user").as<std::int64_t>();
  ids[0] = std::numeric_limits<std::int64_t>::min();
  ids[1] = -1;
  ids[2] = std::numeric_limits<std::int64_t>::max();
  const Looked e = look("{type: embedding, input: user, scope: e, units: 3, table: {}}", samples);
  EXPECT_THAT(e.ids, ::testing::UnorderedElementsAre(1ULL << 63, ~0ULL, ~0ULL >> 1, 0));
  for (std::size_t i = 1; i < 4; ++i) EXPECT_NE(e.out[3 * i], e.out[0]);
}

TEST(TableLayers, RowsThatAreWrittenAreRead) {
  const Built b(
      "    - {type: embedding, input: user, scope: e, units: 2, initializer: 3, table: {}}\n"
      "    - {type: dense, units: 1}\n");
  Session session(b.model.graph, 1);
  const Variable& table = b.variable("e/embeddings");
  session.memory().row(table, 17).as<float>()[1] = 8;
  const Tensor y = std::move(session.run({b.model.layers[0].output}, Samples().feeds(b.model.graph))[0]);
  EXPECT_THAT(y.as<float>(), ElementsAre(3, 3, 3, 8, 3, 3, 3, 3));
  EXPECT_EQ(session.memory().n_rows(table), 1);  // reading makes none
  EXPECT_EQ(thrown([&] { session.value(table); }),
            "argument: variable \"e/embeddings\" is a table: it has rows, see Session::memory()");
}

// A row begins as that of a dense variable, numbers of elements taken mod 2^64: whatever comes before it.
TEST(TableLayers, FirstValuesAreAFunctionOfTheId) {
  MemoryRows one(5), other(5);
  const Built b(
      "    - {type: embedding, name: e, input: user, scope: e, units: 2, initializer: {type: normal}, table: {}}\n"
      "    - {type: embedding, name: f, input: user, scope: f, units: 3, initializer: {type: normal}, table: {}}\n"
      "    - {type: concat, inputs: [e, f]}\n    - {type: dense, units: 1}\n");
  const auto row = [&](MemoryRows& rows, const char* name, std::uint64_t id) {
    const auto values = rows.row(b.variable(name), id).as<float>();
    return std::vector<float>(values.begin(), values.end());
  };
  const std::uint64_t half = std::uint64_t{1} << 63;
  EXPECT_NE(row(one, "e/embeddings", 3), row(one, "e/embeddings", 4));
  EXPECT_EQ(row(other, "e/embeddings", 4), row(one, "e/embeddings", 4));
  EXPECT_EQ(row(other, "e/embeddings", 3), row(one, "e/embeddings", 3));
  EXPECT_EQ(row(one, "e/embeddings", half + 3), row(one, "e/embeddings", 3)) << "2 * 2^63 is 0 mod 2^64";
  EXPECT_NE(row(one, "f/embeddings", half + 3), row(one, "f/embeddings", 3));
  Tensor dense(DType::float32, {2});
  b.variable("e/embeddings").spec().initial_values(5).fill(dense.view(), 8);
  EXPECT_TRUE(std::ranges::equal(dense.as<float>(), row(one, "e/embeddings", 4)));
}

class Sevens final : public RowReader {
 public:
  void read(const Variable& table, std::span<const std::uint64_t> ids, std::byte* out) override {
    const std::vector<float> all(ids.size() * static_cast<std::size_t>(table.shape()[1]), 7);
    std::memcpy(out, all.data(), all.size() * sizeof(float));
  }
};

TEST(TableLayers, AbsentRowsMayBeZeros) {
  const Built b(
      "    - {type: embedding, input: user, scope: e, units: 2, initializer: 3, table: {absent: zeros}}\n"
      "    - {type: dense, units: 1}\n");
  Session session(b.model.graph, 1);
  session.memory().row(b.variable("e/embeddings"), 17);  // begins with its first values
  const Tensor y = std::move(session.run({b.model.layers[0].output}, Samples().feeds(b.model.graph))[0]);
  EXPECT_THAT(y.as<float>(), ElementsAre(0, 0, 3, 3, 0, 0, 0, 0));
}

TEST(TableLayers, RowsComeFromTheReader) {
  const Built b(
      "    - {type: embedding, input: user, scope: e, units: 2, table: {}}\n"
      "    - {type: dense, units: 1}\n");
  Session session(b.model.graph, 1);
  Sevens sevens;
  session.set_rows(sevens);
  const Tensor y = std::move(session.run({b.model.layers[0].output}, Samples().feeds(b.model.graph))[0]);
  EXPECT_THAT(y.as<float>(), ::testing::Each(7));
}

TEST(TableLayers, WhatDoesNotNeedRowsNeedsNoIds) {
  const Built b(
      "    - {type: embedding, name: e, input: user, scope: e, units: 2, table: {}}\n"
      "    - {type: dense, input: age, scope: side, units: 1}\n"
      "    - {type: concat, inputs: [e, age]}\n    - {type: dense, units: 1}\n");
  Session session(b.model.graph, 1);
  const Samples samples;
  EXPECT_EQ(
      session.run({b.model.layers[1].output}, {{b.node("age"), samples.arrays.at("age").view()}})[0].shape(),
      (Shape{4, 1}));
}

TEST(TableLayers, ATrainedFalseTableHasNoGradient) {
  const Built b(
      "    - {type: embedding, input: user, scope: e, units: 2, trainable: false, table: {}}\n"
      "    - {type: dense, units: 1}\n");
  Session session(b.model.graph, 1);
  EXPECT_FALSE(session.gradients(b.model.loss, Samples().feeds(b.model.graph)).contains("e/embeddings"));
}

// Each batch may have another number of rows.
TEST(TableLayers, BatchesOfAnySizeFollowEachOther) {
  const Built b(
      "    - {type: embedding, input: user, scope: e, units: 2, table: {}}\n"
      "    - {type: dense, units: 1}\n");
  Session session(b.model.graph, 1);
  const Variable& table = b.variable("e/embeddings");
  const InitialValues first = table.spec().initial_values(1);
  for (const std::int64_t n : {3, 100, 0, 1, 100}) {
    const Tensor ids(DType::int64, {n});
    for (std::int64_t i = 0; i < n; ++i) ids.as<std::int64_t>()[static_cast<std::size_t>(i)] = i * 1000 - n;
    const Tensor y = std::move(session.run({b.model.layers[0].output}, {{b.node("user"), ids.view()}})[0]);
    ASSERT_EQ(y.shape(), (Shape{n, 2}));
    for (std::int64_t i = 0; i < n; ++i) {
      Tensor row(DType::float32, {2});
      VariableSpec::fill_row(row.view(), first, static_cast<std::uint64_t>(i * 1000 - n));
      const auto at = static_cast<std::size_t>(2 * i);
      EXPECT_THAT(y.as<float>().subspan(at, 2), ::testing::ElementsAreArray(row.as<float>()));
    }
  }
}

TEST(TableLayers, SayWhatTheyAre) {
  const Built b(
      "    - {type: embedding, input: history, scope: e, units: 2, combiner: mean, initializer: 0, "
      "table: {ids: int64, parts: 8}}\n    - {type: dense, units: 1}\n");
  EXPECT_EQ(b.model.layers[0].text,
            "e: embedding a table (ids: int64, parts: 8) -> 2, mean of bags, constant(0)");
  EXPECT_EQ(b.model.layers[0].n_parameters, 0);
  EXPECT_EQ(b.model.graph.node(b.node("e/positions")).type.str(), "int32 [ragged]");
  EXPECT_EQ(b.model.graph.node(b.node("e/embeddings")).type.str(), "float32 [ragged, 2]");
}

TEST(TableLayers, PaddingIsAnIdOfTheTablesType) {
  const auto padding = [](const std::string& id, const std::string& type) {
    VariableStore store;
    const Model m =
        build_model(store,
                    job("    - {type: embedding, input: user, scope: e, units: 2, padding: " + id +
                            ", table: {ids: " + type + "}}\n    - {type: dense, units: 1}\n",
                        "float32"),
                    facts(id_type_from_string(type)));
    return m.graph.lookups()[0].padding;
  };
  EXPECT_EQ(padding("-1", "int64"), ~0ULL);
  EXPECT_EQ(padding("18446744073709551615", "uint64"), ~0ULL);
  EXPECT_EQ(padding("\"\"", "string"), hash64(""));
  EXPECT_EQ(padding("none", "string"), hash64("none"));
  EXPECT_EQ(
      thrown([&] { padding("-1", "uint64"); }),
      "config: job.yaml:6:67: model.layers.0.padding: \"-1\" is no id: the table's are uint64 (table: {ids: "
      "uint64})");
  EXPECT_THAT(thrown([&] { padding("9223372036854775808", "int64"); }),
              HasSubstr("is no id: the table's are int64"));
  EXPECT_THAT(thrown([&] { padding("[1]", "int64"); }), HasSubstr("is no id: the table's are int64"));
}

TEST(TableLayers, SayWhatDoesNotFit) {
  const auto layer = [](const std::string& keys) {
    return error_of("    - {type: embedding, " + keys +
                    "}\n    - {type: flatten}\n    - {type: dense, units: 1}\n");
  };
  EXPECT_EQ(
      layer("input: user, units: 2, vocabulary: 3, table: {}"),
      "config: job.yaml:6:60: model.layers.0.vocabulary: a layer has a vocabulary, ids 0 .. vocabulary - 1 with "
      "a row each, or a table, which has rows for the ids that occur; remove this key or table");
  EXPECT_EQ(
      layer("input: user, units: 2"),
      "config: job.yaml:6:7: model.layers.0.vocabulary: missing; the layer needs this key (an integer: number "
      "of ids), or table, for ids of any number");
  EXPECT_THAT(
      layer("input: user, units: 2, vocabulary: 3, padding: 0"),
      HasSubstr("padding: is for a table (table: {ids: int64}); with a vocabulary every id has a row"));
  EXPECT_THAT(layer("input: user, units: 2, table: {parts: 12}"),
              HasSubstr("table.parts: a table has 12 parts, but they must be a power of two, 1 to 1048576"));
  EXPECT_THAT(layer("input: user, units: 2, table: {ids: float}"), HasSubstr("table.ids"));
  EXPECT_THAT(layer("input: user, units: 2, table: {idz: int64}"), HasSubstr("did you mean \"ids\""));
  EXPECT_THAT(layer("input: age, units: 2, table: {}"),
              HasSubstr("table: a table is asked by ids, but the input \"age\" is float32 [?, 1], numbers"));
  EXPECT_THAT(
      layer("inputs: [history, words], units: 2, combiner: sum, table: {}"),
      HasSubstr("inputs: embedding takes one bag, and these are several: give each a layer of its own; "
                "with reuse they share rows"));
  EXPECT_THAT(layer("input: history, units: 2, table: {}"),
              HasSubstr("combiner: missing; a bag of ids needs one"));
  EXPECT_THAT(
      layer("input: user, units: 2, combiner: sum, table: {}"),
      HasSubstr(
          "combiner: is for bags: inputs: [ids, offsets] or [ids, offsets, weights], or ids [?, n]. The "
          "ids here have shape [?]"));
  EXPECT_THAT(layer("input: user, units: 2, regularizer: {type: l2, factor: 0.1}, table: {}"),
              HasSubstr("use optimizer.weight_decay"));
  EXPECT_THAT(layer("input: user, units: 2, initializer: orthogonal, table: {}"),
              HasSubstr("its rows are drawn one by one"));
}

TEST(TableLayers, HaveTheKeysOfTheirRowsLife) {
  const auto spec = [](const std::string& keys) {
    const Built b("    - {type: embedding, input: user, scope: e, units: 2, table: {" + keys +
                  "}}\n    - {type: dense, units: 1}\n");
    return b.variable("e/embeddings").spec().table.value();
  };
  EXPECT_EQ(spec(""), TableSpec{});
  EXPECT_EQ(spec("parts: 2, entry: 3, expire_steps: 10, max_rows: 8192, when_full: lfu, absent: initial, "
                 "max_waiting: 32"),
            (TableSpec{.ids = IdType::int64,
                       .parts = 2,
                       .entry = 3,
                       .expire_steps = 10,
                       .max_rows = 8192,
                       .when_full = WhenFull::lfu,
                       .absent = AbsentRows::initial,
                       .max_waiting = 32}));
  EXPECT_EQ(spec("entry: 2").absent, AbsentRows::zeros);  // what a row begins with has not been learned
  EXPECT_EQ(spec("entry: 1").absent, AbsentRows::initial);
  EXPECT_EQ(spec("absent: zeros").absent, AbsentRows::zeros);
  EXPECT_EQ(spec("expire_steps: off, max_rows: off, max_waiting: 0"), TableSpec{});
  EXPECT_EQ(spec("expire_steps: 4294967294").expire_steps, TableSpec::kMostSteps);
}

TEST(TableLayers, SayWhereAKeyOfTheirRowsLifeIsWrong) {
  const auto error = [](const std::string& keys) {
    return error_of("    - type: embedding\n      input: user\n      units: 2\n      table:\n        " +
                    keys + "\n    - {type: dense, units: 1}\n");
  };
  const std::string at = "config: job.yaml:10:";
  EXPECT_EQ(
      error("max_rows: 4194303"),
      at + "19: model.layers.0.table.max_rows: max_rows is 4194303, but with 1024 parts it must be at least "
           "4194304 (4096 for each part)");
  EXPECT_EQ(
      error("{parts: 2, entry: 2, max_waiting: 31}"),
      at + "43: model.layers.0.table.max_waiting: max_waiting is 31, but with 2 parts it must be at least "
           "32 (16 for each part)");
  EXPECT_EQ(error("{parts: 2, max_waiting: 64}"),
            at + "33: model.layers.0.table.max_waiting: max_waiting is 64, but with entry 1 no id waits");
  EXPECT_EQ(
      error("when_full: lru"),
      at + "20: model.layers.0.table.when_full: when_full is lru, but without max_rows no part is ever full");
  EXPECT_EQ(
      error("when_full: lfo"),
      at + "20: model.layers.0.table.when_full: expected one of error, lru, lfu, got \"lfo\"; did you mean "
           "\"lfu\"?");
  EXPECT_EQ(error("entry: 0"),
            at + "16: model.layers.0.table.entry: 0 is out of range; allowed: 1 to 4294967294 (occurrences)");
  EXPECT_EQ(error("entry: 4294967295"),
            at + "16: model.layers.0.table.entry: 4294967295 is out of range; allowed: 1 "
                 "to 4294967294 (occurrences)");
  EXPECT_EQ(
      error("expire_steps: -1"),
      at + "23: model.layers.0.table.expire_steps: -1 is out of range; allowed: 1 to 4294967294 (steps), or "
           "off");
  EXPECT_EQ(error("absent: one"),
            at + "17: model.layers.0.table.absent: expected one of initial, zeros, got \"one\"");
  EXPECT_EQ(error("parts: 12"),
            at +
                "16: model.layers.0.table.parts: a table has 12 parts, but they must be a power of two, 1 to "
                "1048576");
}

TEST(TableLayers, ReadInputsOfTheSamplesOnly) {
  EXPECT_EQ(
      error_of("    - {type: flatten, input: last, name: flat}\n"
               "    - {type: embedding, input: flat, scope: e, units: 2, table: {}}\n"
               "    - {type: flatten}\n    - {type: dense, units: 1}\n"),
      "config: job.yaml:7:65: model.layers.1.table: the ids, \"flatten\", are what flatten made; rows "
      "of a table are asked for before a batch is run, so the layer must read an input of the samples itself");
}

TEST(TableLayers, AreAskedByTheirTypeOfIds) {
  const std::string layers =
      "    - {type: embedding, input: user, scope: e, units: 2, table: {ids: int64}}\n"
      "    - {type: dense, units: 1}\n";
  EXPECT_EQ(
      error_of(layers, facts(IdType::string)),
      "config: job.yaml:6:7: table \"e/embeddings\" is asked by int64 ids, but the input \"user\" has string: "
      "give both one type (table: {ids: ...})");
  DataFacts data = facts();
  data.named_inputs[0].features = Features::ids;  // int32: rows of int64 tables
  EXPECT_EQ(error_of(layers, data), "no error");
  EXPECT_THAT(error_of("    - {type: embedding, input: user, scope: e, units: 2, table: {ids: uint64}}\n"
                       "    - {type: dense, units: 1}\n",
                       data),
              HasSubstr("is asked by uint64 ids, but the input \"user\" has int32, which are int64 rows"));
}

TEST(TableLayers, NameBothPlacesOfWhatIsReusedOtherwise) {
  const auto error = [](const std::string& second) {
    return error_of(
        "    - {type: embedding, name: a, input: user, scope: e, units: 2, table: {parts: 8}}\n"
        "    - {type: embedding, name: b, input: user, reuse: e, " +
        second + "}\n" + "    - {type: concat, inputs: [a, b]}\n    - {type: dense, units: 1}\n");
  };
  EXPECT_EQ(error("units: 2, table: {parts: 8}"), "no error");
  EXPECT_EQ(
      error("units: 2, table: {parts: 16}"),
      "config: job.yaml:7:7: model.layers.1: variable \"e/embeddings\" is a table with ids: int64, parts: 8 "
      "(made at job.yaml:6:7), but is reused as a table with ids: int64, parts: 16");
  EXPECT_EQ(
      error("units: 2, table: {parts: 8, entry: 2, expire_steps: 9}"),
      "config: job.yaml:7:7: model.layers.1: variable \"e/embeddings\" is a table with ids: int64, parts: 8 "
      "(made at job.yaml:6:7), but is reused as a table with ids: int64, parts: 8, entry: 2, expire_steps: 9, "
      "absent: zeros");
  EXPECT_THAT(
      error("units: 2, vocabulary: 9"),
      HasSubstr("variable \"e/embeddings\" is a table with ids: int64, parts: 8 (made at job.yaml:6:7), "
                "but is reused as no table"));
  EXPECT_EQ(error("units: 3, table: {parts: 8}"),
            "config: job.yaml:7:7: model.layers.1: variable \"e/embeddings\" is a table of 2 units (made at "
            "job.yaml:6:7), but is reused as a table of 3 units");
}

// Else what is written in the second place would say nothing.
TEST(TableLayers, RefuseToShareWhatIsWrittenOtherwise) {
  for (const char* kind : {"table: {parts: 8}", "vocabulary: 9"}) {
    SCOPED_TRACE(kind);
    const auto error = [&](const std::string& first, const std::string& second) {
      return error_of(
          fmt::format("    - {{type: embedding, name: a, input: user, scope: e, units: 2{}, {}}}\n"
                      "    - {{type: embedding, name: b, input: user, reuse: e, units: 2{}, {}}}\n"
                      "    - {{type: concat, inputs: [a, b]}}\n    - {{type: dense, units: 1}}\n",
                      first, kind, second, kind));
    };
    const std::string words = "the layer shares variable \"e/embeddings\" (made at job.yaml:6:7), which has ";
    EXPECT_EQ(error(", initializer: 3", ", initializer: 3"), "no error");
    EXPECT_EQ(error(", initializer: 3", ""), "no error");
    EXPECT_THAT(error(", initializer: 3", ", initializer: {type: normal, stddev: 0.5}"),
                HasSubstr("model.layers.1.initializer: " + words +
                          "first values constant(3), not normal(0, 0.5); "
                          "say the same here, or leave it out"));
    EXPECT_EQ(error("", ", trainable: true"), "no error");
    EXPECT_THAT(error("", ", trainable: false"),
                HasSubstr("model.layers.1.trainable: " + words + "trainable: true, not false; say"));
    EXPECT_THAT(error(", trainable: false", ", trainable: true"),
                HasSubstr("model.layers.1.trainable: " + words + "trainable: false, not true; say"));
    const std::string of_two = ", constraint: {type: max_norm, limit: 2}";
    EXPECT_EQ(error(of_two, of_two), "no error");
    EXPECT_EQ(error(of_two, ""), "no error");
    EXPECT_THAT(error("", of_two), HasSubstr("model.layers.1.constraint: " + words +
                                             "the constraint none, not max_norm(2) of each row; say"));
  }
}

TEST(TableLayers, MayHoldEachRowToANorm) {
  for (const char* constraint : {"unit_norm", "non_neg", "{type: max_norm, limit: 2}"}) {
    EXPECT_EQ(error_of(fmt::format(
                  "    - {{type: embedding, input: user, scope: e, units: 2, constraint: {}, table: "
                  "{{}}}}\n    - {{type: dense, units: 1}}\n",
                  constraint)),
              "no error");
  }
}

TEST(TableLayers, ATableIsForLookupsOnly) {
  const Built b(
      "    - {type: embedding, input: user, scope: e, units: 2, table: {}}\n"
      "    - {type: dense, units: 1}\n");
  Executor executor(b.model.graph, b.model.output, 4, {.also = {}, .forward_only = true});
  const Variable& table = b.variable("e/embeddings");
  const Tensor wrong(DType::float32, {4, 3}), dense(DType::float32, {2, 1});
  EXPECT_EQ(thrown([&] { executor.bind_rows(table, wrong.view()); }),
            "argument: table \"e/embeddings\" is float32 [ragged, 2]; its rows were bound to float32 [4, 3]");
  EXPECT_EQ(thrown([&] { executor.bind_rows(b.variable("dense_1/weights"), dense.view()); }),
            "argument: variable \"dense_1/weights\" is no table: it has a value, not rows");
  executor.bind(table, Tensor(DType::float32, {0, 2}).view());  // nothing: rows are bound
  TableFeeds tables(b.model.graph);
  executor.set_batch(4);
  const Samples samples;
  executor.feed(b.node("user"), samples.arrays.at("user").view());
  EXPECT_EQ(
      thrown([&] { tables.read(executor, nullptr); }),
      "argument: table \"e/embeddings\" (made at job.yaml:6:7) is looked up, and there is no reader of its "
      "rows");
}

// A model of one layer on bags with weights, whose executor looks at every number.
std::string numerics_error(float row_17, float weight) {
  const Built b(
      "    - {type: embedding, input: history, scope: e, units: 1, combiner: sum, initializer: 0, table: {}}\n");
  Samples samples;
  for (float& w : samples.arrays.at("history/weights").as<float>()) w = weight;
  for (std::int64_t& id : samples.arrays.at("history").as<std::int64_t>()) id = 17;
  for (float& y : samples.arrays.at("y").as<float>()) y = 1e10F;
  MemoryRows rows(1);
  rows.row(b.variable("e/embeddings"), 17).as<float>()[0] = row_17;
  Executor executor(b.model.graph, b.model.loss, 4);
  executor.check_numerics();
  executor.set_run({1, 12, 0, 1});
  executor.set_batch(4);
  for (const auto& [node, view] : samples.feeds(b.model.graph)) executor.feed(node, view);
  TableFeeds tables(b.model.graph);
  tables.read(executor, &rows);
  return thrown([&] {
    for (const auto& step : executor.forward_steps()) executor.forward(step);
    executor.start_backward(1.0);
    for (const auto& step : executor.backward_steps()) executor.backward(step);
  });
}

TEST(TableLayers, CheckNumericsNamesTheIdOfTheRow) {
  EXPECT_EQ(numerics_error(0, 1), "no error");
  const std::string value = numerics_error(std::numeric_limits<float>::infinity(), 1);
  EXPECT_THAT(value, HasSubstr("step 12: node \"e/embedding_bag\""));
  EXPECT_THAT(value, HasSubstr("has inf at element 0 of row 17 already"));
  const std::string gradient = numerics_error(0, 1e38F);
  EXPECT_THAT(gradient, HasSubstr("step 12: node \"e/embedding_bag\""));
  EXPECT_THAT(gradient,
              HasSubstr("made -inf at element 0 of row 17 of the gradient of node \"e/embeddings\""));
}

TEST(TableLayers, AFactorizationMachineTakesBagsOfIds) {
  const std::string fm = "    - {type: factorization_machine, factors: 2, table: {}, ";
  EXPECT_EQ(error_of(fm + "input: last}\n    - {type: dense, units: 1}\n"), "no error");
  EXPECT_THAT(
      error_of(fm + "input: user}\n"),
      HasSubstr("inputs: a factorization_machine of a table takes a bag, [ids, offsets] or [ids, offsets, "
                "weights], or ids [?, n]; got an input of shape [?]"));
  EXPECT_THAT(error_of(fm + "inputs: [last, last]}\n"),
              HasSubstr("got several inputs, the first of shape [?, 4]"));
  EXPECT_THAT(error_of("    - {type: factorization_machine, table: {}, input: last}\n"),
              HasSubstr("factors: missing; over bags the layer needs this key"));
}

// What layers say first is said here to who makes a graph in C++.
TEST(GraphLookUp, SaysWhatDoesNotFit) {
  VariableStore store;
  VariableOptions options;
  options.rows_are_units = true;
  options.table = TableSpec{};
  const Variable& table = store.get_variable("t", {0, 2}, options);
  const Variable& dense = store.get_variable("d", {3, 2});
  Graph graph;
  const NodeId ids = graph.placeholder("ids", DType::int64, {Shape::kUnknown});
  const NodeId ragged = graph.placeholder("ragged", DType::int64, {Shape::kRagged});
  const NodeId offsets = graph.placeholder("offsets", DType::int64, {Shape::kBounds});
  const NodeId x = graph.placeholder("x", DType::float32, {Shape::kUnknown, 2});
  const auto error = [&](TableLookup lookup) {
    return thrown([&] { graph.look_up(std::move(lookup), {"e", ""}); });
  };
  EXPECT_EQ(error({.table = &dense, .ids = ids}), "argument: lookup \"e\": variable \"d\" is no table");
  EXPECT_EQ(
      error({.table = &table, .ids = graph.variable(dense)}),
      "argument: lookup \"e\": its ids, \"d\", are computed by a variable; rows are asked for before a batch is "
      "run, so they must be an input of the model itself");
  EXPECT_EQ(error({.table = &table, .ids = x}),
            "argument: lookup \"e\": a table is asked by ids, int32 or int64; \"x\" is float32 [?, 2]");
  EXPECT_EQ(error({.table = &table, .ids = ragged, .in_bags = true}),
            "argument: lookup \"e\": ids of shape [ragged] are of bags: they need offsets, and a combiner");
  EXPECT_EQ(error({.table = &table, .ids = ids, .ids_offsets = offsets, .in_bags = true}),
            "argument: lookup \"e\": ids of shape [?] are no bags that have offsets");
  EXPECT_EQ(error({.table = &table, .ids = ids, .in_bags = true}),
            "argument: lookup \"e\": bags are ids of shape [?, ids of each] or [ragged]; \"ids\" has [?]");
  EXPECT_TRUE(graph.lookups().empty());
  EXPECT_THAT(
      thrown([&] { ops::square(graph, graph.variable(table)); }),
      HasSubstr(
          "\"t\" has shape [ragged, 2]: it is a table, of which a run has the rows that it looks up, and "
          "this op takes no tables; embedding does"));
}

}  // namespace
}  // namespace varscope
