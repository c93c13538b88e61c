// The rules of rows, and where slots start: ftrl and rowwise_adagrad to the last bits.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "common/base/philox.h"
#include "ps/update/optimizer.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::thrown;

constexpr OptimizerType kExact[] = {OptimizerType::sgd, OptimizerType::adagrad,
                                    OptimizerType::rowwise_adagrad, OptimizerType::ftrl};
constexpr OptimizerType kLazy[] = {OptimizerType::momentum, OptimizerType::nesterov, OptimizerType::rmsprop,
                                   OptimizerType::adam, OptimizerType::adamw};

OptimizerConfig config_of(OptimizerType type) {
  OptimizerConfig c;
  c.type = type;
  c.learning_rate = 0.07;
  c.epsilon = 1e-6;
  c.initial_accumulator = 0.3;
  if (type == OptimizerType::ftrl) c.beta = 0.6, c.l1 = 0.9, c.l2 = 0.2;
  return c;
}

template <class T>
std::byte* bytes(std::vector<T>& v) {
  return reinterpret_cast<std::byte*>(v.data());
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T>
std::vector<T> random_values(std::size_t n, std::uint64_t stream) {
  std::vector<T> out(n);
  for (std::size_t i = 0; i < n; ++i)
    out[i] = static_cast<T>(RandomStream(5, RandomPurpose::test, stream).normal(i));
  return out;
}

// Values and slots of one row.
template <class T>
struct Row {
  Row(const Optimizer& optimizer, std::vector<T> values) : optimizer(optimizer), v(std::move(values)) {
    for (const Slot& s : optimizer.row_slots()) slots.emplace_back(s.is_per_row ? 1 : v.size(), T(7));
    optimizer.start_row_slots(dtype_of<T>(), bytes(v), pointers(), n());
  }
  std::int64_t n() const { return static_cast<std::int64_t>(v.size()); }
  std::vector<std::byte*> pointers() {
    std::vector<std::byte*> all;
    for (auto& s : slots) all.push_back(bytes(s));
    return all;
  }
  bool update(std::vector<T> g, int t = 1, int count = 1) {
    return optimizer.update_row(dtype_of<T>(), bytes(v), bytes(g), pointers(), n(),
                                UpdateStep::whole(Clock(t)), count);
  }
  friend bool same(const Row& a, const Row& b) {
    bool same = same_bits(a.v, b.v);
    for (std::size_t i = 0; i < a.slots.size(); ++i) same &= same_bits(a.slots[i], b.slots[i]);
    return same;
  }
  const Optimizer& optimizer;
  std::vector<T> v;
  std::vector<std::vector<T>> slots;
};

// How many units in the last place of the largest of `terms` they are apart.
template <class T>
double ulps(T value, double expected, std::initializer_list<double> terms) {
  double largest = std::abs(expected);
  for (double t : terms) largest = std::max(largest, std::abs(t));
  const T top = std::max(static_cast<T>(largest), std::numeric_limits<T>::min());
  const T unit = top - std::nextafter(top, T(0));
  return std::abs(static_cast<double>(value) - expected) / static_cast<double>(unit);
}

// What a rule reads of an element, and what it makes of it.
struct Element {
  double v, a, b;  // the value, the slots
};

// sqrt(n + g^2) - sqrt(n), of which a subtraction would keep few digits.
double growth_of_root(double n, double g) {
  const long double square = static_cast<long double>(g) * g;
  return g == 0
             ? 0
             : static_cast<double>(square / (std::sqrt(n + square) + std::sqrt(static_cast<long double>(n))));
}

// The formulas in double, written another way than the product's.
Element stepped(const OptimizerConfig& c, Element e, double g) {
  const double rate = c.learning_rate;
  switch (c.type) {
    case OptimizerType::sgd:
      return {e.v - rate * g, 0, 0};
    case OptimizerType::adagrad:
    case OptimizerType::rowwise_adagrad: {  // of one element
      const double a = e.a + g * g;
      return {e.v - rate / (std::sqrt(a) + c.epsilon) * g, a, 0};
    }
    default: {
      const double sigma = growth_of_root(e.b, g) / rate;
      const double z = e.a + g - sigma * e.v, n = e.b + g * g;
      const double divisor = (c.beta + std::sqrt(n)) / rate + c.l2;
      if (std::abs(z) <= c.l1) return {0, z, n};
      return {z > 0 ? (c.l1 - z) / divisor : (-c.l1 - z) / divisor, z, n};
    }
  }
}

// Every sign of value, slot and gradient, zeros among them, and far apart in size.
template <class T>
void expect_within_four_ulps(OptimizerType type) {
  const Optimizer optimizer(config_of(type));
  const OptimizerConfig& c = optimizer.config();
  const bool is_ftrl = type == OptimizerType::ftrl;
  const std::vector<double> sizes = {0, 1e-6, 0.31, 0.9, 2.7, 1234};
  for (const double g_size : sizes) {
    for (const double z_size : sizes) {
      for (const double v_size : {0.0, 0.013, 3.0}) {
        for (const double n : {0.0, 0.3, 4096.0}) {
          for (int signs = 0; signs < 8; ++signs) {
            const auto of_sign = [&](int bit, double x) {
              return static_cast<T>((signs >> bit & 1) != 0 ? -x : x);
            };
            Row<T> row(optimizer, {of_sign(0, v_size)});
            const T g = of_sign(1, g_size);
            if (is_ftrl) row.slots = {{of_sign(2, z_size)}, {static_cast<T>(n)}};
            if (!is_ftrl && !row.slots.empty()) row.slots[0][0] = static_cast<T>(n);
            const Element before{row.v[0], row.slots.empty() ? 0 : row.slots[0][0],
                                 is_ftrl ? row.slots[1][0] : 0};
            if (n == 0 && g == 0) continue;
            row.update({g});
            const Element after = stepped(c, before, g);
            const auto where = [&] {
              return ::testing::Message() << to_string(type) << " v " << before.v << " slots " << before.a
                                          << " " << before.b << " g " << g;
            };
            if (!is_ftrl) {
              ASSERT_LE(ulps(row.v[0], after.v, {before.v}), 4) << where();
              if (!row.slots.empty()) {
                ASSERT_LE(ulps(row.slots[0][0], after.a, {}), 4) << where();
              }
              continue;
            }
            const double pull = growth_of_root(before.b, g) / c.learning_rate * before.v;
            ASSERT_LE(ulps(row.slots[0][0], after.a, {before.a, g, pull}), 4) << where();
            ASSERT_LE(ulps(row.slots[1][0], after.b, {}), 4) << where();
            // The value follows from the slots as they are now.
            const double z = row.slots[0][0], l1 = static_cast<T>(c.l1);
            const double divisor = (c.beta + std::sqrt(after.b)) / c.learning_rate + c.l2;
            const double expected = std::abs(z) <= l1 ? 0 : (std::copysign(l1, z) - z) / divisor;
            ASSERT_LE(ulps(row.v[0], g == 0 ? before.v : expected, {}), 4) << where();
          }
        }
      }
    }
  }
}

TEST(RowRules, AreWithinFourUlpsOfADoubleForAllSigns) {
  for (const OptimizerType type : kExact) {
    expect_within_four_ulps<float>(type);
    expect_within_four_ulps<double>(type);
  }
}

TEST(RowRules, FtrlHasExactZerosInsideL1AndLeavesThemBothWays) {
  const Optimizer optimizer(config_of(OptimizerType::ftrl));
  Row<float> row(optimizer, {0, 0, 0, 0});
  row.update({0.9F, -0.9F, 0.91F, -0.91F});
  EXPECT_EQ(row.v[0], 0);
  EXPECT_EQ(row.v[1], 0);
  EXPECT_LT(row.v[2], 0);
  EXPECT_EQ(row.v[3], -row.v[2]);
}

// The roots of a large n and of n + g^2 are next to each other.
TEST(RowRules, FtrlLosesNothingWhereRootsAreNearEachOther) {
  const Optimizer optimizer(config_of(OptimizerType::ftrl));
  Row<float> row(optimizer, {2});
  row.slots = {{5}, {1e6F}};
  row.update({0.5F});
  const double pull = (std::sqrt(1e6 + 0.25) - std::sqrt(1e6)) / 0.07 * 2;
  EXPECT_LE(ulps(row.slots[0][0], 5.5 - pull, {5.5}), 4);
  Row<float> tiny(optimizer, {2});  // a square below the smallest number
  tiny.slots = {{5}, {0}};
  EXPECT_TRUE(tiny.update({1e-30F}));
  EXPECT_EQ(tiny.slots[0][0], 5);
}

TEST(RowRules, FtrlStartsFromTheValuesThatItIsGiven) {
  const Optimizer optimizer(config_of(OptimizerType::ftrl));
  for (const double learning_rate : {0.001, 0.07, 5.0}) {
    OptimizerConfig config = config_of(OptimizerType::ftrl);
    config.learning_rate = learning_rate;
    const Optimizer of_rate(config);
    const std::vector<double> start = {0, -0.0, 1.5, -1.5, 1e-3, -40};
    Row<double> row(of_rate, start);
    const double divisor = (0.6 + std::sqrt(0.3)) / learning_rate + 0.2;
    for (std::size_t i = 0; i < start.size(); ++i) {
      const double sign = start[i] > 0 ? 1 : start[i] < 0 ? -1 : 0;
      EXPECT_DOUBLE_EQ(row.slots[0][i], -(start[i] * divisor + sign * 0.9));
      EXPECT_EQ(row.slots[1][i], 0.3);
    }
    EXPECT_FALSE(std::signbit(row.slots[0][0]));
    EXPECT_FALSE(std::signbit(row.slots[0][1]));
    // Nearly no gradient: nearly the same values.
    row.update(std::vector<double>(start.size(), 1e-12));
    for (std::size_t i = 0; i < start.size(); ++i)
      EXPECT_NEAR(row.v[i], start[i], 1e-10 * std::max(1.0, learning_rate)) << learning_rate;
  }
  Row<float> row(optimizer, {0.25F});
  std::int32_t x = 1;
  EXPECT_EQ(thrown([&] {
              optimizer.start_slots(DType::int32, reinterpret_cast<std::byte*>(&x), row.pointers(), 1);
            }),
            "argument: slot z cannot start from values of dtype int32");
  EXPECT_EQ(thrown([&] { optimizer.start_slots(DType::float32, bytes(row.v), {}, 1); }),
            "argument: optimizer: 0 slots were given, but it has 2");
}

template <class T>
void expect_zero_gradients_change_nothing(const Optimizer& optimizer) {
  for (const bool moved : {false, true}) {
    Row<T> row(optimizer, random_values<T>(37, 1));
    row.v[3] = 0;
    optimizer.start_row_slots(dtype_of<T>(), bytes(row.v), row.pointers(), row.n());
    if (moved) row.update(random_values<T>(37, 2));
    Row<T> before = row;
    for (int t = 2; t < 5; ++t) {
      row.update(std::vector<T>(37, T(0)), t);
      row.update(std::vector<T>(37, -T(0)), t);
    }
    EXPECT_TRUE(same(row, before)) << to_string(optimizer.config().type);
  }
}

TEST(RowRules, ExactRulesAreThoseThatAZeroGradientDoesNotMove) {
  for (const OptimizerType type : kExact) {
    const Optimizer optimizer(config_of(type));
    EXPECT_TRUE(optimizer.is_exact()) << to_string(type);
    expect_zero_gradients_change_nothing<float>(optimizer);
    expect_zero_gradients_change_nothing<double>(optimizer);
    OptimizerConfig decayed = config_of(type);
    decayed.weight_decay = 1e-3;
    EXPECT_FALSE(Optimizer(decayed).is_exact()) << to_string(type);
  }
  for (const OptimizerType type : kLazy)
    EXPECT_FALSE(Optimizer(config_of(type)).is_exact()) << to_string(type);
}

// A row of a table and a dense variable: the same bits, unless the rule keeps one number a row.
template <class T>
void expect_row_is_dense(OptimizerType type, double weight_decay) {
  OptimizerConfig config = config_of(type);
  config.weight_decay = weight_decay;
  const Optimizer optimizer(config);
  for (const std::size_t units : {1, 2, 3, 7, 8, 16, 33}) {
    Row<T> row(optimizer, random_values<T>(units, 1)), dense = row;
    dense.slots.assign(optimizer.slots().size(), std::vector<T>(units));
    optimizer.start_slots(dtype_of<T>(), bytes(dense.v), dense.pointers(), dense.n());
    ASSERT_TRUE(same(row, dense)) << to_string(type);
    for (int t = 1; t < 4; ++t) {
      std::vector<T> g = random_values<T>(units, static_cast<std::uint64_t>(1 + t));
      row.update(g, t, t);  // that occurs in every step
      optimizer.update(dtype_of<T>(), bytes(dense.v), bytes(g), dense.pointers(), dense.n(),
                       UpdateStep::whole(Clock(t)));
      ASSERT_TRUE(same(row, dense)) << to_string(type) << " units " << units << " step " << t;
    }
  }
}

TEST(RowRules, ARowHasTheBitsOfADenseVariable) {
  for (const auto& choice : kOptimizerTypes) {
    if (choice.value == OptimizerType::rowwise_adagrad) continue;
    for (const double weight_decay : {0.0, 0.1}) {
      expect_row_is_dense<float>(choice.value, weight_decay);
      expect_row_is_dense<double>(choice.value, weight_decay);
    }
  }
}

// Element by element, in the order that the header promises: eight lanes in double, then their halves.
template <class T>
void step_rowwise(const OptimizerConfig& c, std::vector<T>& v, T& a, const std::vector<T>& g) {
  double lanes[8] = {};
  for (std::size_t i = 0; i < g.size(); ++i)
    lanes[i % 8] += static_cast<double>(g[i]) * static_cast<double>(g[i]);
  const auto four = [&](int j) { return (lanes[j] + lanes[j + 4]) + (lanes[j + 2] + lanes[j + 6]); };
  const double sum = four(0) + four(1);
  a = static_cast<T>(static_cast<double>(a) + sum / static_cast<double>(g.size()));
  for (std::size_t i = 0; i < g.size(); ++i)
    v[i] -= static_cast<T>(c.learning_rate) * g[i] / (std::sqrt(a) + static_cast<T>(c.epsilon));
}

template <class T>
void step_ftrl(const OptimizerConfig& c, std::vector<T>& v, std::vector<T>& z, std::vector<T>& n,
               const std::vector<T>& g) {
  const T inverse = static_cast<T>(1 / c.learning_rate), l1 = static_cast<T>(c.l1);
  for (std::size_t i = 0; i < g.size(); ++i) {
    if (g[i] == 0) continue;
    const T square = g[i] * g[i], before = std::sqrt(n[i]);
    n[i] += square;
    const T root = std::sqrt(n[i]);
    z[i] += g[i] - square / (root + before) * inverse * v[i];
    const T outside =
        ((z[i] < 0 ? -l1 : l1) - z[i]) / ((static_cast<T>(c.beta) + root) * inverse + static_cast<T>(c.l2));
    v[i] = std::abs(z[i]) <= l1 ? T(0) : outside;
  }
}

// The plain loops here are compiled for the narrowest vectors, and end where the product's are in the middle
// of a vector: the same bits for every width.
template <class T>
void expect_bits_of_plain_loops() {
  const Optimizer rowwise(config_of(OptimizerType::rowwise_adagrad)), ftrl(config_of(OptimizerType::ftrl));
  for (std::size_t units = 1; units <= 70; ++units) {
    Row<T> a(rowwise, random_values<T>(units, 1)), b = a, p(ftrl, random_values<T>(units, 2)), q = p;
    for (int t = 1; t <= 3; ++t) {
      std::vector<T> g = random_values<T>(units, static_cast<std::uint64_t>(10 + t));
      if (t == 2) g[units / 2] = 0;
      a.update(g, t);
      step_rowwise(rowwise.config(), b.v, b.slots[0][0], g);
      ASSERT_TRUE(same(a, b)) << "rowwise_adagrad, units " << units << " step " << t;
      p.update(g, t);
      step_ftrl(ftrl.config(), q.v, q.slots[0], q.slots[1], g);
      ASSERT_TRUE(same(p, q)) << "ftrl, units " << units << " step " << t;
    }
  }
}

TEST(RowRules, HaveTheBitsOfPlainLoopsWhateverTheVectorWidth) {
  expect_bits_of_plain_loops<float>();
  expect_bits_of_plain_loops<double>();
}

TEST(RowRules, RowwiseAdagradKeepsOneNumberARow) {
  const Optimizer optimizer(config_of(OptimizerType::rowwise_adagrad));
  Row<float> row(optimizer, {1, 1, 1, 1});
  ASSERT_EQ(row.slots.size(), 1U);
  EXPECT_EQ(row.slots[0], std::vector<float>{0.3F});
  row.update({1, -1, 0, 3});
  EXPECT_EQ(row.slots[0], std::vector<float>{static_cast<float>(static_cast<double>(0.3F) + 11.0 / 4)});
  EXPECT_EQ(row.v[2], 1);
  EXPECT_NEAR(row.v[3], 1 - 0.07 * 3 / (std::sqrt(0.3 + 2.75) + 1e-6), 1e-7);
  Row<float> none(optimizer, {});
  EXPECT_TRUE(none.update({}));
  EXPECT_EQ(none.slots[0], std::vector<float>{0.3F});
}

TEST(RowRules, WhatIsNotFiniteIsTold) {
  constexpr float kInf = std::numeric_limits<float>::infinity(),
                  kNan = std::numeric_limits<float>::quiet_NaN();
  for (const OptimizerType type : {OptimizerType::ftrl, OptimizerType::rowwise_adagrad}) {
    const Optimizer optimizer(config_of(type));
    for (const float bad : {kInf, -kInf, kNan, 1e30F, -1e30F}) {  // the square of the last two is infinite
      for (std::size_t at = 0; at < 19; ++at) {
        Row<float> row(optimizer, std::vector<float>(19, 0.5F));
        std::vector<float> g(19, 0.1F);
        EXPECT_TRUE(row.update(g));
        g[at] = bad;
        EXPECT_FALSE(row.update(g)) << to_string(type) << " " << bad << " at " << at;
      }
    }
  }
}

// A row that is first seen late: by its own count it moves as any first step does, by the clock as much
// further as its means are smaller.
TEST(RowRules, AdamCorrectsByTheRowsUpdatesOrByTheClock) {
  OptimizerConfig config;
  config.type = OptimizerType::adam;
  config.learning_rate = 0.01;
  for (const Correction correction : {Correction::row, Correction::clock}) {
    config.correction = correction;
    const Optimizer optimizer(config);
    Row<double> row(optimizer, {1.0});
    EXPECT_TRUE(row.update({0.5}, 100'000, 1));
    const double moved = 1.0 - row.v[0];
    const double expected =
        correction == Correction::row ? 0.01 : 0.01 * (1 - config.beta1) / std::sqrt(1 - config.beta2);
    EXPECT_NEAR(moved, expected, 1e-6);
  }
}

// Of a table of updates, and beyond it.
TEST(RowRules, AdamsCorrectionIsThatOfTheFormulaForAnyCount) {
  OptimizerConfig config;
  config.type = OptimizerType::adamw;
  for (const double beta2 : {0.9, 0.999, 0.9999999}) {
    config.beta2 = beta2;
    const Optimizer optimizer(config);
    for (const std::int64_t k : {1, 2, 17'321, 36'000, 65'536, 65'537, 4'000'000}) {
      Row<double> row(optimizer, {0.25}), dense(optimizer, {0.25});
      EXPECT_TRUE(row.update({0.5}, 3, static_cast<int>(k)));
      std::vector<double> g{0.5};
      EXPECT_TRUE(optimizer.update(DType::float64, bytes(dense.v), bytes(g), dense.pointers(), 1,
                                   UpdateStep::whole(Clock(k))));
      EXPECT_EQ(row.v[0], dense.v[0]) << beta2 << " " << k;
    }
  }
}

}  // namespace
}  // namespace varscope
