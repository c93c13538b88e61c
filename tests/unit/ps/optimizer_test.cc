#include "ps/update/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <map>

#include "common/base/philox.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::thrown;

constexpr OptimizerType kTypes[] = {
    OptimizerType::sgd,     OptimizerType::momentum, OptimizerType::nesterov,
    OptimizerType::adagrad, OptimizerType::rmsprop,  OptimizerType::adam,
    OptimizerType::adamw,   OptimizerType::ftrl,     OptimizerType::rowwise_adagrad};

OptimizerConfig config_of(OptimizerType type, double weight_decay = 0) {
  OptimizerConfig c;
  c.type = type;
  c.learning_rate = 0.03;
  c.momentum = 0.8;
  c.beta1 = 0.85;
  c.beta2 = 0.99;
  c.epsilon = 1e-6;
  c.rho = 0.95;
  c.weight_decay = weight_decay;
  c.initial_accumulator = 0.2;
  c.beta = 0.3;
  c.l1 = 0.4;
  c.l2 = 0.7;
  return c;
}

// One element, from the papers' formulas, in double precision and written another way than the product's.
struct Reference {
  OptimizerConfig c;
  double v = 0, slot0 = 0, slot1 = 0;
  int t = 0;

  void step(double g) {
    ++t;
    if (c.type != OptimizerType::adamw) g += c.weight_decay * v;
    const double before = v;
    switch (c.type) {
      case OptimizerType::sgd:
        v = before - c.learning_rate * g;
        break;
      case OptimizerType::momentum:
        slot0 = c.momentum * slot0 + g;
        v = before - c.learning_rate * slot0;
        break;
      case OptimizerType::nesterov:
        slot0 = c.momentum * slot0 + g;
        v = before - c.learning_rate * (g + c.momentum * slot0);
        break;
      case OptimizerType::adagrad:
        slot0 += std::pow(g, 2);
        v = before - c.learning_rate / (std::sqrt(slot0) + c.epsilon) * g;
        break;
      case OptimizerType::rowwise_adagrad:  // of dense variables
        slot0 += g * g;
        v = before - c.learning_rate * g / (c.epsilon + std::sqrt(slot0));
        break;
      case OptimizerType::ftrl: {  // z, n; algorithm 1 with alpha, lambda1, lambda2
        slot0 += g - (std::sqrt(slot1 + g * g) - std::sqrt(slot1)) / c.learning_rate * before;
        slot1 += g * g;
        const double sign = slot0 < 0 ? -1 : 1;
        const double factor = 1 / ((c.beta + std::sqrt(slot1)) / c.learning_rate + c.l2);
        v = std::abs(slot0) <= c.l1 ? 0 : -factor * (slot0 - sign * c.l1);
        break;
      }
      case OptimizerType::rmsprop:
        slot0 = c.rho * slot0 + (1 - c.rho) * std::pow(g, 2);
        v = before - c.learning_rate / (std::sqrt(slot0) + c.epsilon) * g;
        break;
      case OptimizerType::adam:
      case OptimizerType::adamw: {
        slot0 = c.beta1 * slot0 + (1 - c.beta1) * g;
        slot1 = c.beta2 * slot1 + (1 - c.beta2) * g * g;
        const double m_hat = slot0 / (1 - std::pow(c.beta1, t)), v_hat = slot1 / (1 - std::pow(c.beta2, t));
        const double decay = c.type == OptimizerType::adamw ? c.learning_rate * c.weight_decay * before : 0;
        v = before - decay - c.learning_rate * m_hat / (std::sqrt(v_hat) + c.epsilon);
        break;
      }
    }
  }
};

double gradient_at(std::int64_t i, int t) {
  return RandomStream(9, RandomPurpose::test, static_cast<std::uint64_t>(t))
      .normal(static_cast<std::uint64_t>(i));
}
double start_at(std::int64_t i) {
  return RandomStream(9, RandomPurpose::test, 1000).normal(static_cast<std::uint64_t>(i));
}

// Values and slots of n elements, updated in spans.
template <class T>
struct State {
  explicit State(const Optimizer& optimizer, std::int64_t n)
      : optimizer(optimizer), value(dtype_of<T>(), Shape{n}), gradient(dtype_of<T>(), Shape{n}) {
    for (std::int64_t i = 0; i < n; ++i)
      value.template as<T>()[static_cast<std::size_t>(i)] = static_cast<T>(start_at(i));
    std::vector<std::byte*> memory;
    for (std::size_t s = 0; s < optimizer.slots().size(); ++s) {
      slots.emplace_back(dtype_of<T>(), Shape{n});
      memory.push_back(slots.back().view().bytes());
    }
    optimizer.start_slots(dtype_of<T>(), value.view().bytes(), memory, n);
  }
  void set_gradient(int t) {
    auto g = gradient.template as<T>();
    for (std::size_t i = 0; i < g.size(); ++i)
      g[i] = static_cast<T>(gradient_at(static_cast<std::int64_t>(i), t));
  }
  void update(std::int64_t begin, std::int64_t n, int t) {
    const auto at = static_cast<std::size_t>(begin) * sizeof(T);
    std::vector<std::byte*> memory;
    for (Tensor& s : slots) memory.push_back(s.view().bytes() + at);
    optimizer.update(dtype_of<T>(), value.view().bytes() + at, gradient.view().bytes() + at, memory, n,
                     UpdateStep::whole(Clock(t)));
  }
  bool same_bits(const State& o) const {
    bool same = std::memcmp(value.view().bytes(), o.value.view().bytes(), value.n_bytes()) == 0;
    for (std::size_t s = 0; s < slots.size(); ++s) {
      same &= std::memcmp(slots[s].view().bytes(), o.slots[s].view().bytes(), value.n_bytes()) == 0;
    }
    return same;
  }
  const Optimizer& optimizer;
  Tensor value, gradient;
  std::vector<Tensor> slots;
};

template <class T>
void expect_follows_reference(const OptimizerConfig& config, double tolerance) {
  constexpr std::int64_t kN = 37;
  const Optimizer optimizer(config);
  State<T> state(optimizer, kN);
  std::vector<Reference> reference;
  for (std::int64_t i = 0; i < kN; ++i) {
    reference.push_back({config, static_cast<double>(static_cast<T>(start_at(i)))});
    const auto at = static_cast<std::size_t>(i);
    if (!state.slots.empty()) reference.back().slot0 = state.slots[0].template as<T>()[at];
    if (state.slots.size() > 1) reference.back().slot1 = state.slots[1].template as<T>()[at];
  }
  for (int t = 1; t <= 6; ++t) {
    state.set_gradient(t);
    state.update(0, kN, t);
    for (std::int64_t i = 0; i < kN; ++i) {
      Reference& r = reference[static_cast<std::size_t>(i)];
      r.step(static_cast<double>(static_cast<T>(gradient_at(i, t))));
      const auto at = static_cast<std::size_t>(i);
      ASSERT_NEAR(state.value.template as<T>()[at], r.v, tolerance)
          << to_string(config.type) << " step " << t;
      if (!state.slots.empty()) {
        ASSERT_NEAR(state.slots[0].template as<T>()[at], r.slot0, tolerance * (4 + std::abs(r.slot0)));
      }
      if (state.slots.size() > 1) {
        ASSERT_NEAR(state.slots[1].template as<T>()[at], r.slot1, tolerance * 4);
      }
    }
  }
}

TEST(Optimizer, FollowsThePapersInBothPrecisions) {
  for (OptimizerType type : kTypes) {
    for (double weight_decay : {0.0, 0.1}) {
      expect_follows_reference<double>(config_of(type, weight_decay), 1e-13);
      expect_follows_reference<float>(config_of(type, weight_decay), 4e-6);
    }
  }
}

// With decays so near 1 that 1 - decay, formed in float32, is off by tenths or is 0.
TEST(Optimizer, FollowsThePapersInFloat32WhateverTheDecay) {
  for (const OptimizerType type : {OptimizerType::rmsprop, OptimizerType::adam, OptimizerType::adamw}) {
    for (const double decay : {0.99999, 0.9999999, 0.99999999}) {
      OptimizerConfig config = config_of(type);
      config.beta2 = config.rho = decay;
      config.epsilon = 1e-12;
      const Optimizer optimizer(config);
      State<float> state(optimizer, 1);
      Reference reference{config, static_cast<double>(static_cast<float>(start_at(0)))};
      for (int t = 1; t <= 6; ++t) {
        state.set_gradient(t);
        state.update(0, 1, t);
        reference.step(static_cast<double>(static_cast<float>(gradient_at(0, t))));
        ASSERT_NEAR(state.value.as<float>()[0], reference.v, 2e-6 * (1 + std::abs(reference.v)))
            << to_string(type) << " " << decay << " step " << t;
        const bool is_adam = type != OptimizerType::rmsprop;
        const double square = is_adam ? reference.slot1 : reference.slot0;
        ASSERT_NEAR(state.slots[is_adam ? 1 : 0].as<float>()[0], square, 1e-5 * square);
      }
    }
  }
}

// The last steps' powers of beta are tiny: t counts from the clock, not from calls.
TEST(Optimizer, AdamTakesItsPowersFromTheClock) {
  const Optimizer optimizer(config_of(OptimizerType::adam));
  State<double> first(optimizer, 1), later(optimizer, 1);
  for (auto* s : {&first, &later}) s->set_gradient(1);
  first.update(0, 1, 1);
  later.update(0, 1, 10'000);
  const double start = start_at(0);
  EXPECT_NEAR(std::abs(first.value.as<double>()[0] - start), 0.03,
              1e-6);  // |m_hat / sqrt(v_hat)| is 1 at first
  EXPECT_NEAR((later.value.as<double>()[0] - start) / (first.value.as<double>()[0] - start),
              (1 - 0.85) / std::sqrt(1 - 0.99), 1e-3);
}

template <class T>
void expect_span_independent(const OptimizerConfig& config) {
  constexpr std::int64_t kN = 83;
  const Optimizer optimizer(config);
  State<T> whole(optimizer, kN);
  for (int t = 1; t <= 3; ++t) {
    whole.set_gradient(t);
    whole.update(0, kN, t);
  }
  for (std::int64_t step : {1, 2, 3, 5, 7, 8, 13, 16, 31, 64}) {
    State<T> parts(optimizer, kN);
    for (int t = 1; t <= 3; ++t) {
      parts.set_gradient(t);
      for (std::int64_t begin = 0; begin < kN; begin += step)
        parts.update(begin, std::min(step, kN - begin), t);
    }
    ASSERT_TRUE(parts.same_bits(whole)) << to_string(config.type) << " in spans of " << step;
  }
}

TEST(Optimizer, AnElementsBitsDoNotDependOnItsPlaceInTheSpan) {
  for (OptimizerType type : kTypes) {
    for (double weight_decay : {0.0, 0.1}) {
      expect_span_independent<float>(config_of(type, weight_decay));
      expect_span_independent<double>(config_of(type, weight_decay));
    }
  }
}

TEST(Optimizer, AnEmptySpanChangesNothing) {
  for (OptimizerType type : kTypes) {
    const Optimizer optimizer(config_of(type));
    State<float> a(optimizer, 4), b(optimizer, 4);
    a.set_gradient(1);
    a.update(2, 0, 1);
    EXPECT_TRUE(a.same_bits(b)) << to_string(type);
  }
}

TEST(Optimizer, SlotsAndTheirFirstValues) {
  using Names = std::vector<std::string>;
  const std::map<OptimizerType, Names> expected = {{OptimizerType::sgd, {}},
                                                   {OptimizerType::momentum, {"momentum"}},
                                                   {OptimizerType::nesterov, {"momentum"}},
                                                   {OptimizerType::adagrad, {"accumulator"}},
                                                   {OptimizerType::rmsprop, {"mean_square"}},
                                                   {OptimizerType::adam, {"m", "v"}},
                                                   {OptimizerType::adamw, {"m", "v"}},
                                                   {OptimizerType::ftrl, {"z", "n"}},
                                                   {OptimizerType::rowwise_adagrad, {"accumulator"}}};
  for (OptimizerType type : kTypes) {
    const Optimizer optimizer(config_of(type));
    EXPECT_EQ(optimizer.slot_names(), expected.at(type)) << to_string(type);
    for (const Slot& slot : optimizer.slots()) {
      EXPECT_EQ(slot.initial_value, slot.name == "accumulator" || slot.name == "n" ? 0.2 : 0.0);
      EXPECT_EQ(slot.is_constant(), slot.name != "z");
      EXPECT_FALSE(slot.is_per_row);
    }
    EXPECT_EQ(optimizer.row_slots().size(), optimizer.slots().size());
    for (const Slot& slot : optimizer.row_slots())
      EXPECT_EQ(slot.is_per_row, type == OptimizerType::rowwise_adagrad);
  }
}

TEST(Optimizer, RefusesHyperparametersOutOfRange) {
  const auto error_with = [](const std::function<void(OptimizerConfig&)>& change) {
    OptimizerConfig c;
    change(c);
    return thrown([&] { Optimizer{c}; });
  };
  EXPECT_EQ(error_with([](auto&) {}), "no error");
  EXPECT_EQ(error_with([](auto& c) { c.learning_rate = 0; }),
            "argument: optimizer: learning_rate is 0, but must be above 0");
  EXPECT_EQ(error_with([](auto& c) { c.momentum = 1; }),
            "argument: optimizer: momentum is 1, but must be in [0, 1)");
  EXPECT_EQ(error_with([](auto& c) { c.beta1 = -0.5; }),
            "argument: optimizer: beta1 is -0.5, but must be in [0, 1)");
  for (const auto& change : {std::function<void(OptimizerConfig&)>([](auto& c) { c.beta2 = 1; }),
                             {[](auto& c) { c.rho = 2; }},
                             {[](auto& c) { c.epsilon = -1; }},
                             {[](auto& c) { c.weight_decay = -1; }},
                             {[](auto& c) { c.beta = -1; }},
                             {[](auto& c) { c.l1 = -1; }},
                             {[](auto& c) { c.l2 = std::nan(""); }},
                             {[](auto& c) { c.initial_accumulator = -1; }},
                             {[](auto& c) {
                               c.clip = {ClipType::norm, 0};
                             }},
                             {[](auto& c) { c.schedule.type = ScheduleType::cosine; }},
                             {[](auto& c) { c.learning_rate = std::nan(""); }}}) {
    EXPECT_TRUE(error_with(change).starts_with("argument: optimizer")) << error_with(change);
  }
  EXPECT_EQ(error_with([](auto& c) { c.type = OptimizerType::ftrl, c.initial_accumulator = 1e-60; }),
            "argument: optimizer: beta + sqrt(initial_accumulator) is 0, but must be above 0 for ftrl, in "
            "float32 too");
  EXPECT_EQ(error_with([](auto& c) { c.type = OptimizerType::ftrl, c.beta = 1, c.initial_accumulator = 0; }),
            "no error");
}

TEST(Optimizer, FtrlRefusesASchedule) {
  for (const auto& change : {std::function<void(ScheduleConfig&)>([](auto& s) { s.warmup_steps = 1; }),
                             {[](auto& s) { s.type = ScheduleType::step, s.every_steps = 5; }}}) {
    OptimizerConfig config = config_of(OptimizerType::ftrl);
    change(config.schedule);
    EXPECT_EQ(thrown([&] { Optimizer{config}; }),
              std::string("argument: optimizer: ") + kFtrlNeedsAConstantRate);
  }
}

TEST(Optimizer, TakesItsRateFromTheScheduleAtTheClock) {
  for (OptimizerType type : kTypes) {
    if (type == OptimizerType::ftrl) continue;  // takes none
    OptimizerConfig config = config_of(type, 0.1);
    config.schedule.type = ScheduleType::step;
    config.schedule.every_steps = 4;
    config.schedule.factor = 0.5;
    OptimizerConfig halved = config_of(type, 0.1);
    halved.learning_rate = config.learning_rate / 2;
    const Optimizer scheduled(config), constant(config_of(type, 0.1)), half(halved);
    State<double> a(scheduled, 5), b(constant, 5), c(scheduled, 5), d(half, 5);
    for (auto* s : {&a, &b, &c, &d}) s->set_gradient(1);
    a.update(0, 5, 4);
    b.update(0, 5, 4);
    c.update(0, 5, 5);
    d.update(0, 5, 5);
    EXPECT_TRUE(a.same_bits(b)) << to_string(type);
    EXPECT_TRUE(c.same_bits(d)) << to_string(type);
  }
}

TEST(Optimizer, RefusesIntegers) {
  const Optimizer optimizer(config_of(OptimizerType::sgd));
  std::int32_t x = 0, g = 0;
  EXPECT_EQ(thrown([&] {
              optimizer.update(DType::int32, reinterpret_cast<std::byte*>(&x),
                               reinterpret_cast<std::byte*>(&g), {}, 1, UpdateStep::whole(Clock(1)));
            }),
            "argument: optimizer sgd cannot update a variable of dtype int32");
}

}  // namespace
}  // namespace varscope
