#include "worker/ops/feature_ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "common/base/philox.h"
#include "tests/support/references/gradient_check.h"
#include "tests/support/thrown.h"
#include "worker/ops/sequence_ops.h"

// one_hot, embedding_bag and factorization_machine against naive loops and central differences.
namespace varscope {
namespace {

using ops::Combiner;
using testing::GradientCheck;
using testing::thrown;

constexpr std::int64_t kAny = Shape::kUnknown;
constexpr Combiner kCombiners[] = {Combiner::sum, Combiner::mean, Combiner::sqrtn};

// Ids, offsets and weights, all of one batch.
struct Bags {
  std::vector<std::int64_t> ids, offsets;
  std::vector<double> weights;
  std::size_t n_rows() const { return offsets.size() - 1; }
};

// Bags of 0 .. 6 ids of 0 .. n_ids - 1; the first, the last and one in the middle are empty. Every fifth
// weight is 0.
Bags some_bags(std::int64_t n_ids) {
  Bags b;
  const RandomStream random(5, RandomPurpose::test, 1);
  std::uint64_t draw = 0;
  for (const int size : {0, 3, 1, 6, 0, 2, 5, 0}) {
    b.offsets.push_back(static_cast<std::int64_t>(b.ids.size()));
    for (int i = 0; i < size; ++i, ++draw) {
      b.ids.push_back(static_cast<std::int64_t>(random.uniform(draw) * static_cast<double>(n_ids)));
      b.weights.push_back(draw % 5 == 4 ? 0 : 0.25 + random.uniform(1000 + draw));
    }
  }
  b.offsets.push_back(static_cast<std::int64_t>(b.ids.size()));
  return b;
}

template <class T, class From>
Tensor tensor_of(const std::vector<From>& values) {
  Tensor t(dtype_of<T>(), Shape{static_cast<std::int64_t>(values.size())});
  std::transform(values.begin(), values.end(), t.as<T>().begin(), [](From v) { return static_cast<T>(v); });
  return t;
}

// One element after the other.
std::vector<double> naive_bags(const Bags& b, std::span<const double> values, std::int64_t width,
                               Combiner combiner, bool weighted) {
  std::vector<double> y;
  for (std::size_t row = 0; row < b.n_rows(); ++row) {
    for (std::int64_t c = 0; c < width; ++c) {
      double sum = 0, total = 0, squares = 0;
      for (std::int64_t i = b.offsets[row]; i < b.offsets[row + 1]; ++i) {
        const auto at = static_cast<std::size_t>(i);
        const double w = weighted ? b.weights[at] : 1;
        sum += w * values[static_cast<std::size_t>(b.ids[at] * width + c)];
        total += w;
        squares += w * w;
      }
      const double divisor = combiner == Combiner::sum    ? 1
                             : combiner == Combiner::mean ? total
                                                          : std::sqrt(squares);
      y.push_back(total == 0 ? 0 : sum / divisor);
    }
  }
  return y;
}

// A graph with one table and bags that are fed.
struct BagGraph {
  VariableStore store;
  Graph g;
  NodeId table, ids, offsets, weights, y;
  BagGraph(const Shape& shape, Combiner combiner, bool weighted, DType dtype = DType::float64,
           DType id_type = DType::int64) {
    VariableOptions options;
    options.dtype = dtype;
    options.initializer = Initializer::uniform(-1, 1);
    table = g.variable(store.get_variable("table", shape, options));
    ids = g.placeholder("ids", id_type, {Shape::kRagged});
    offsets = g.placeholder("offsets", DType::int64, {Shape::kBounds});
    weights = g.placeholder("weights", dtype, {Shape::kRagged});
    y = ops::embedding_bag(g, table, ids, offsets, weighted ? std::optional(weights) : std::nullopt,
                           combiner);
  }
  std::string error(const std::vector<std::int64_t>& of_ids, const std::vector<std::int64_t>& of_offsets,
                    const std::vector<double>& of_weights = {}) {
    const Tensor i = tensor_of<std::int64_t>(of_ids), o = tensor_of<std::int64_t>(of_offsets),
                 w = tensor_of<double>(of_weights);
    return thrown([&] {
      Session(g, 1).run({y}, {{ids, i.view()}, {offsets, o.view()}, {weights, w.view()}});
    });
  }
};

TEST(EmbeddingBag, IsWhatNaiveLoopsYield) {
  for (const std::int64_t width : {1, 3, 64, 131}) {
    for (const Combiner combiner : kCombiners) {
      for (const bool weighted : {false, true}) {
        SCOPED_TRACE(
            fmt::format("width {} combiner {} weighted {}", width, static_cast<int>(combiner), weighted));
        BagGraph b({9, width}, combiner, weighted);
        const Bags bags = some_bags(9);
        const Tensor ids = tensor_of<std::int64_t>(bags.ids), offsets = tensor_of<std::int64_t>(bags.offsets),
                     weights = tensor_of<double>(bags.weights);
        Session session(b.g, 1);
        const Tensor y = std::move(session.run(
            {b.y}, {{b.ids, ids.view()}, {b.offsets, offsets.view()}, {b.weights, weights.view()}})[0]);
        ASSERT_EQ(y.shape(), (Shape{8, width}));
        const auto values = session.value(*b.g.node(b.table).variable).as<double>();
        const auto expected = naive_bags(bags, values, width, combiner, weighted);
        for (std::size_t i = 0; i < expected.size(); ++i)
          EXPECT_NEAR(y.as<double>()[i], expected[i], 1e-14) << i;
      }
    }
  }
}

TEST(EmbeddingBag, HasTheGradientOfFiniteDifferences) {
  const Bags bags = some_bags(6);
  for (const Combiner combiner : kCombiners) {
    for (const bool weighted : {false, true}) {
      SCOPED_TRACE(fmt::format("combiner {} weighted {}", static_cast<int>(combiner), weighted));
      GradientCheck g;
      const NodeId table = g.variable("table", {7, 3});  // row 6 never occurs
      const auto bag = [&] {
        const NodeId ids = g.feed(tensor_of<std::int64_t>(bags.ids), {Shape::kRagged});
        const NodeId offsets = g.feed(tensor_of<std::int64_t>(bags.offsets));
        const std::optional<NodeId> weights =
            weighted ? std::optional(g.feed(tensor_of<double>(bags.weights), {Shape::kRagged}))
                     : std::nullopt;
        return g.scalar(ops::embedding_bag(g.graph, table, ids, offsets, weights, combiner));
      };
      const NodeId once = bag();
      g.check(ops::add(g.graph, once, bag()));  // the second contribution adds
    }
  }
}

// In float32, so that another order would show: the bags in their order, in each the ids in theirs.
TEST(EmbeddingBag, AddsGradientsInTheOrderOfTheBags) {
  BagGraph b({4, 2}, Combiner::mean, true, DType::float32, DType::int32);
  const NodeId loss =
      ops::reduce_sum(b.g, ops::multiply(b.g, b.y, b.g.placeholder("factors", DType::float32, {kAny, 2})));
  const Bags bags = some_bags(4);
  const Tensor ids = tensor_of<std::int32_t>(bags.ids), offsets = tensor_of<std::int64_t>(bags.offsets),
               weights = tensor_of<float>(bags.weights);
  Tensor factors(DType::float32, {8, 2});
  const RandomStream random(8, RandomPurpose::test, 2);
  for (std::size_t i = 0; i < 16; ++i) factors.as<float>()[i] = static_cast<float>(random.uniform(i) - 0.5);
  Session session(b.g, 1);
  const auto gradients = session.gradients(loss, {{b.ids, ids.view()},
                                                  {b.offsets, offsets.view()},
                                                  {b.weights, weights.view()},
                                                  {*b.g.find("factors"), factors.view()}});
  std::vector<float> expected(8, 0.0F);
  for (std::size_t row = 0; row < bags.n_rows(); ++row) {
    double total = 0;
    const auto begin = static_cast<std::size_t>(bags.offsets[row]),
               end = static_cast<std::size_t>(bags.offsets[row + 1]);
    for (std::size_t i = begin; i < end; ++i) total += static_cast<double>(weights.as<float>()[i]);
    for (std::size_t i = begin; i < end; ++i) {
      const float share = static_cast<float>(static_cast<double>(weights.as<float>()[i]) / total);
      for (std::size_t c = 0; c < 2; ++c)
        expected[static_cast<std::size_t>(bags.ids[i]) * 2 + c] += share * factors.as<float>()[row * 2 + c];
    }
  }
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(gradients.at("table").as<float>()[i], expected[i]) << i;
}

TEST(EmbeddingBag, OfNothingIsZerosWithoutGradient) {
  for (const Combiner combiner : kCombiners) {
    BagGraph b({3, 2}, combiner, true);
    const NodeId loss = ops::reduce_sum(b.g, b.y);
    // An empty bag; one whose ids have no weight, one of which no table has.
    const Tensor ids = tensor_of<std::int64_t>(std::vector<std::int64_t>{1, -5}),
                 offsets = tensor_of<std::int64_t>(std::vector<std::int64_t>{0, 0, 2}),
                 weights = tensor_of<double>(std::vector<double>{0, 0});
    const Feeds feeds{{b.ids, ids.view()}, {b.offsets, offsets.view()}, {b.weights, weights.view()}};
    Session session(b.g, 1);
    // A value that is not a number does not matter where its weight is 0.
    session.value(*b.g.node(b.table).variable).as<double>()[2] = std::nan("");
    const Tensor y = std::move(session.run({b.y}, feeds)[0]);
    for (const double v : y.as<double>()) EXPECT_EQ(v, 0);
    const auto gradients = session.gradients(loss, feeds);
    for (const double v : gradients.at("table").as<double>()) EXPECT_EQ(v, 0);
  }
}

TEST(EmbeddingBag, OfNoRowsAndNoIdsWorks) {
  BagGraph b({3, 2}, Combiner::mean, false);
  const Tensor none(DType::int64, {0}), zero(DType::int64, {1}), zeros(DType::int64, {4});
  Session session(b.g, 1);
  EXPECT_EQ(session.run({b.y}, {{b.ids, none.view()}, {b.offsets, zero.view()}})[0].shape(), (Shape{0, 2}));
  EXPECT_EQ(session.run({b.y}, {{b.ids, none.view()}, {b.offsets, zeros.view()}})[0].shape(), (Shape{3, 2}));
}

// The bits of a row depend on its own bag only, and a part of a batch needs its part of the offsets.
TEST(EmbeddingBag, OfAPartOfTheBatchIsThatPart) {
  BagGraph b({9, 5}, Combiner::sqrtn, true, DType::float32);
  const Bags bags = some_bags(9);
  const Tensor ids = tensor_of<std::int64_t>(bags.ids), offsets = tensor_of<std::int64_t>(bags.offsets),
               weights = tensor_of<float>(bags.weights);
  Session session(b.g, 1);
  const auto run = [&](const TensorView& of) {
    return std::move(
        session.run({b.y}, {{b.ids, ids.view()}, {b.offsets, of}, {b.weights, weights.view()}})[0]);
  };
  const Tensor whole = run(offsets.view());
  for (std::size_t begin = 0; begin < 8; ++begin) {
    for (std::size_t end = begin; end <= 8; ++end) {
      const Tensor part = run(TensorView(DType::int64, {static_cast<std::int64_t>(end - begin + 1)},
                                         offsets.view().bytes() + begin * sizeof(std::int64_t)));
      for (std::size_t i = 0; i < (end - begin) * 5; ++i)
        EXPECT_EQ(part.as<float>()[i], whole.as<float>()[begin * 5 + i]);
    }
  }
}

TEST(EmbeddingBag, NamesWhatIsWrongWithTheBags) {
  BagGraph b({4, 2}, Combiner::mean, true), sum({4, 2}, Combiner::sum, true);
  EXPECT_EQ(
      b.error({1, 2, 0, 4}, {0, 1, 4}, {1, 1, 1, 1}),
      "data: row 1 of the batch has id 4 at position 2 of its bag; an embedding table of 4 rows has ids "
      "0 .. 3");
  EXPECT_EQ(
      b.error({1, -1}, {0, 2}, {1, 1}),
      "data: row 0 of the batch has id -1 at position 1 of its bag; an embedding table of 4 rows has ids "
      "0 .. 3");
  EXPECT_EQ(
      b.error({std::int64_t{1} << 32}, {0, 1}, {1}),
      "data: row 0 of the batch has id 4294967296 at position 0 of its bag; an embedding table of 4 rows has "
      "ids 0 .. 3");
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    EXPECT_EQ(
        sum.error({1, 2, 3}, {0, 2, 3}, {1, 1, bad}),
        fmt::format("data: row 1 of the batch has weight {} at position 0 of its bag; weights must be finite",
                    bad));
  }
  EXPECT_EQ(
      b.error({1, 2}, {0, 2}, {1, -0.5}),
      "data: row 0 of the batch has weight -0.5 at position 1 of its bag; weights must be finite, and with "
      "mean and sqrtn not negative");
  EXPECT_EQ(sum.error({1, 2}, {0, 2}, {1, -0.5}), "no error");
  EXPECT_EQ(b.error({1, 2}, {0, 2}, {1}),
            "data: the bags of the batch have 2 ids and 1 weights; each id has one");
  EXPECT_EQ(
      b.error({1, 2}, {0, 2, 1}, {1, 1}),
      "data: offset 2 of the bags of the batch is 1; it must be 2 .. 2, between the offset before and the "
      "number of ids");
  EXPECT_EQ(
      b.error({1, 2}, {-1, 2}, {1, 1}),
      "data: offset 0 of the bags of the batch is -1; it must be 0 .. 2, between the offset before and the "
      "number of ids");
  EXPECT_EQ(
      b.error({1, 2}, {0, 3}, {1, 1}),
      "data: offset 1 of the bags of the batch is 3; it must be 0 .. 2, between the offset before and the "
      "number of ids");
}

TEST(EmbeddingBag, NamesInputsThatDoNotFit) {
  BagGraph b({4, 2}, Combiner::mean, true);
  const auto add = [&](NodeId values, NodeId ids, NodeId offsets, std::optional<NodeId> weights) {
    return thrown([&] {
      ops::embedding_bag(b.g, values, ids, offsets, weights, Combiner::sum, {"bag", ""});
    });
  };
  EXPECT_EQ(
      add(b.table, b.weights, b.offsets, {}),
      "argument: node \"bag\" (embedding_bag): needs ids, int32 or int64, in \"weights\", which is float64 "
      "[ragged]");
  EXPECT_EQ(
      add(b.table, b.ids, b.ids, {}),
      "argument: node \"bag\" (embedding_bag): needs offsets of the batch + 1 (Shape::kBounds), or of a "
      "known extent of at least 1, in \"ids\", which has shape [ragged]");
  EXPECT_EQ(
      add(b.table, b.ids, b.offsets, b.g.placeholder("few", DType::float64, {kAny})),
      "argument: node \"bag\" (embedding_bag): shapes [ragged] of \"ids\" and [?] of \"few\" differ; each id "
      "has one weight");
  EXPECT_EQ(add(b.g.placeholder("rows", DType::float64, {kAny, 2}), b.ids, b.offsets, {}),
            "argument: node \"bag\" (embedding_bag): needs a table of known shape; \"rows\" has [?, 2]");
}

// What is fed decides how many ids there are; the rows of the batch come from the offsets.
TEST(RaggedPlaceholder, TakesAnyNumberOfIds) {
  BagGraph b({3, 1}, Combiner::sum, false);
  Executor executor(b.g, b.y, 2, {.also = {}, .forward_only = true});
  const Tensor values = Tensor::of<double>({3, 1}, {1, 10, 100});
  executor.bind(*b.g.node(b.table).variable, values.view());
  const auto run = [&](const Tensor& ids, const Tensor& offsets) {
    executor.set_batch(offsets.n_elements() - 1);
    executor.feed(b.ids, ids.view());
    executor.feed(b.offsets, offsets.view());
    for (const auto& step : executor.forward_steps()) executor.forward(step);
    const auto y = executor.value(b.y).as<double>();
    return std::vector<double>(y.begin(), y.end());
  };
  const Tensor five = Tensor::of<std::int64_t>({5}, {0, 1, 2, 2, 0}),
               one = Tensor::of<std::int64_t>({1}, {1});
  const Tensor two_bags = Tensor::of<std::int64_t>({3}, {0, 3, 5}),
               one_bag = Tensor::of<std::int64_t>({2}, {0, 1}),
               one_and_none = Tensor::of<std::int64_t>({3}, {0, 1, 1});
  EXPECT_EQ(run(five, two_bags), (std::vector<double>{111, 101}));
  EXPECT_EQ(run(one, one_and_none), (std::vector<double>{10, 0})) << "the same batch, another number of ids";
  EXPECT_EQ(run(one, one_bag), (std::vector<double>{10}));
  EXPECT_EQ(run(five, two_bags), (std::vector<double>{111, 101}));
  EXPECT_EQ(thrown([&] { executor.feed(b.offsets, one_bag.view()); }),
            "argument: placeholder \"offsets\" is int64 [?+1] with 2 rows; it was fed int64 [2]");
  EXPECT_EQ(thrown([&] { executor.feed(b.ids, values.view()); }),
            "argument: placeholder \"ids\" is int64 [ragged] with 2 rows; it was fed float64 [3, 1]");
}

TEST(RaggedPlaceholder, IsReadByOpsOnBagsOnly) {
  Graph g;
  const NodeId weights = g.placeholder("weights", DType::float32, {Shape::kRagged});
  const NodeId offsets = g.placeholder("offsets", DType::float32, {Shape::kBounds});
  EXPECT_EQ(
      thrown([&] {
        ops::square(g, weights, {"s", "job.yaml:4:5"});
      }),
      "config: job.yaml:4:5: node \"s\" (square): \"weights\" has shape [ragged]: it is part of a bag, which "
      "holds any number of ids for each row, and this op does not read bags; embedding_bag does");
  EXPECT_NE(
      thrown([&] { ops::reduce_sum(g, offsets); }).find("\"offsets\" has shape [?+1]: it is part of a bag"),
      std::string::npos);
}

TEST(OneHot, PutsAOneAtEachId) {
  for (const DType dtype : {DType::float32, DType::float64}) {
    Graph g;
    const NodeId narrow = g.placeholder("narrow", DType::int32, {kAny});
    const NodeId wide = g.placeholder("wide", DType::int64, {kAny, 2});
    const NodeId a = ops::one_hot(g, narrow, 3, dtype), b = ops::one_hot(g, wide, 4, dtype);
    EXPECT_EQ(g.node(a).type, (TensorType{dtype, {kAny, 3}}));
    EXPECT_EQ(g.node(b).type, (TensorType{dtype, {kAny, 2, 4}}));
    const Tensor i = Tensor::of<std::int32_t>({2}, {2, 0});
    const Tensor j = Tensor::of<std::int64_t>({2, 2}, {3, 0, 1, 1});
    const auto out = Session(g, 1).run({a, b}, {{narrow, i.view()}, {wide, j.view()}});
    const auto bits = [](const Tensor& t) {
      std::string text;
      for (std::int64_t k = 0; k < t.n_elements(); ++k) {
        const auto at = static_cast<std::size_t>(k);
        text += t.dtype() == DType::float32 ? (t.as<float>()[at] == 1   ? '1'
                                               : t.as<float>()[at] == 0 ? '0'
                                                                        : '?')
                                            : (t.as<double>()[at] == 1   ? '1'
                                               : t.as<double>()[at] == 0 ? '0'
                                                                         : '?');
      }
      return text;
    };
    EXPECT_EQ(bits(out[0]), "001100");
    EXPECT_EQ(bits(out[1]), "0001100001000100");
  }
}

TEST(OneHot, RejectsIdsBeyondItsDepth) {
  Graph g;
  const NodeId ids = g.placeholder("ids", DType::int64, {kAny, 2});
  const NodeId y = ops::one_hot(g, ids, 3, DType::float32);
  for (const std::int64_t bad : {std::int64_t{-1}, std::int64_t{3}, std::int64_t{1} << 32}) {
    const Tensor t = Tensor::of<std::int64_t>({2, 2}, {0, 1, 2, bad});
    EXPECT_EQ(
        thrown([&] {
          Session(g, 1).run({y}, {{ids, t.view()}});
        }),
        fmt::format("data: row 1 of the batch has id {} at position 1; a one_hot of 3 columns has ids 0 .. 2",
                    bad));
  }
  const NodeId x = g.placeholder("x", DType::float32, {kAny});
  EXPECT_EQ(
      thrown([&] { ops::one_hot(g, x, 3, DType::float32); }),
      "argument: node \"one_hot_1\" (one_hot): needs ids, int32 or int64, in \"x\", which is float32 [?]");
  EXPECT_EQ(thrown([&] { ops::one_hot(g, ids, 0, DType::float32); }),
            "argument: node \"one_hot_1\" (one_hot): has depth 0; it must be at least 1");
  EXPECT_EQ(thrown([&] { ops::one_hot(g, ids, 3, DType::int32); }),
            "argument: node \"one_hot_1\" (one_hot): yields float32 or float64, not int32");
}

TEST(EmbeddingIds, MayBeWide) {
  GradientCheck b;
  const NodeId table = b.variable("table", {5, 3});
  const NodeId narrow = b.feed(Tensor::of<std::int32_t>({4}, {4, 0, 4, 2})),
               wide = b.feed(Tensor::of<std::int64_t>({4}, {4, 0, 4, 2}));
  const NodeId a = ops::embedding(b.graph, table, narrow), c = ops::embedding(b.graph, table, wide);
  const auto out = Session(b.graph, 17).run({a, c}, b.feeds());
  for (std::size_t i = 0; i < 12; ++i) EXPECT_EQ(out[0].as<double>()[i], out[1].as<double>()[i]);
  b.check(b.scalar(c));
}

TEST(FactorizationMachine, IsTheSumOverAllPairsOfFields) {
  for (const auto& [fields, width] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 3}, {2, 1}, {5, 67}}) {
    SCOPED_TRACE(fmt::format("{} fields of {}", fields, width));
    GradientCheck b;
    const NodeId x = b.variable("x", {3, fields, width});
    const NodeId y = ops::factorization_machine(b.graph, x);
    EXPECT_EQ(b.graph.node(y).type.shape, (Shape{3, 1}));
    Session session(b.graph, 17);
    const Tensor got = std::move(session.run({y}, b.feeds())[0]);
    const double* v = session.value(*b.graph.node(x).variable).as<double>().data();
    for (std::int64_t n = 0; n < 3; ++n) {
      double expected = 0;
      for (std::int64_t i = 0; i < fields; ++i) {
        for (std::int64_t j = i + 1; j < fields; ++j) {
          for (std::int64_t c = 0; c < width; ++c)
            expected += v[(n * fields + i) * width + c] * v[(n * fields + j) * width + c];
        }
      }
      EXPECT_NEAR(got.as<double>()[static_cast<std::size_t>(n)], expected, 1e-12);
    }
    b.check(ops::add(b.graph, b.scalar(y),
                     b.scalar(ops::factorization_machine(b.graph, ops::square(b.graph, x)))));
  }
}

TEST(FactorizationMachine, IsTheSumOverAllPairsOfFeatures) {
  GradientCheck b;
  constexpr std::int64_t kFeatures = 7, kFactors = 3;
  const NodeId x = b.variable("x", {4, kFeatures}), factors = b.variable("factors", {kFeatures, kFactors});
  const NodeId y = ops::factorization_machine(b.graph, x, factors, {"fm", ""});
  EXPECT_EQ(b.graph.node(y).name, "fm");
  EXPECT_EQ(b.graph.node(y).type.shape, (Shape{4, 1}));
  Session session(b.graph, 17);
  const Tensor got = std::move(session.run({y}, b.feeds())[0]);
  const double* of_x = session.value(*b.graph.node(x).variable).as<double>().data();
  const double* v = session.value(*b.graph.node(factors).variable).as<double>().data();
  for (std::int64_t n = 0; n < 4; ++n) {
    double expected = 0;
    for (std::int64_t i = 0; i < kFeatures; ++i) {
      for (std::int64_t j = i + 1; j < kFeatures; ++j) {
        double product = 0;
        for (std::int64_t f = 0; f < kFactors; ++f) product += v[i * kFactors + f] * v[j * kFactors + f];
        expected += product * of_x[n * kFeatures + i] * of_x[n * kFeatures + j];
      }
    }
    EXPECT_NEAR(got.as<double>()[static_cast<std::size_t>(n)], expected, 1e-12);
  }
  b.check(b.scalar(y));
}

// A bag is a row of features, most of which are 0; an id that is there twice is two features.
TEST(FactorizationMachine, OfBagsIsThatOfTheFeaturesInThem) {
  const Bags bags = some_bags(6);
  for (const std::int64_t width : {2, 70}) {
    for (const bool weighted : {false, true}) {
      SCOPED_TRACE(fmt::format("width {} weighted {}", width, weighted));
      GradientCheck g;
      const NodeId factors = g.variable("factors", {7, width});
      const auto add = [&] {
        const NodeId ids = g.feed(tensor_of<std::int64_t>(bags.ids), {Shape::kRagged});
        const NodeId offsets = g.feed(tensor_of<std::int64_t>(bags.offsets));
        const std::optional<NodeId> weights =
            weighted ? std::optional(g.feed(tensor_of<double>(bags.weights), {Shape::kRagged}))
                     : std::nullopt;
        return ops::factorization_machine_bag(g.graph, factors, ids, offsets, weights);
      };
      const NodeId y = add();
      EXPECT_EQ(g.graph.node(y).type.shape, (Shape{8, 1}));
      Session session(g.graph, 17);
      const Tensor got = std::move(session.run({y}, g.feeds())[0]);
      const double* v = session.value(*g.graph.node(factors).variable).as<double>().data();
      for (std::size_t row = 0; row < bags.n_rows(); ++row) {
        double expected = 0;
        for (std::int64_t i = bags.offsets[row]; i < bags.offsets[row + 1]; ++i) {
          for (std::int64_t j = i + 1; j < bags.offsets[row + 1]; ++j) {
            const auto a = static_cast<std::size_t>(i), b = static_cast<std::size_t>(j);
            double product = weighted ? bags.weights[a] * bags.weights[b] : 1, dot = 0;
            for (std::int64_t c = 0; c < width; ++c)
              dot += v[bags.ids[a] * width + c] * v[bags.ids[b] * width + c];
            expected += product * dot;
          }
        }
        EXPECT_NEAR(got.as<double>()[row], expected, 1e-12) << row;
      }
      g.check(ops::add(g.graph, g.scalar(y), g.scalar(add())));
    }
  }
}

TEST(FactorizationMachine, NamesFieldsThatAreNone) {
  Graph g;
  const NodeId x = g.placeholder("x", DType::float32, {kAny, 4});
  EXPECT_EQ(
      thrown([&] { ops::factorization_machine(g, x); }),
      "argument: node \"factorization_machine\" (factorization_machine): needs rank 3 for \"x\", which has "
      "shape [?, 4]");
}

}  // namespace
}  // namespace varscope
