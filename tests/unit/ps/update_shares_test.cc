// What a push is worth: updates by shares of a step, beside the formulas in double.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "common/base/hash.h"
#include "ps/store/parameter_shard.h"
#include "ps/update/optimizer.h"
#include "ps/update/updater.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::make_spec;
using testing::thrown;

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
  if (type == OptimizerType::ftrl) c.beta = 0.3, c.l1 = 0.4, c.l2 = 0.7;
  return c;
}

// Numbers in (-4, 4) that float32 holds exactly, whatever the library of mathematics. One thread.
class Numbers {
 public:
  explicit Numbers(std::uint64_t seed) : state_(seed * 2 + 1) {}
  std::uint64_t bits() { return (state_ = state_ * 6364136223846793005U + 1442695040888963407U) >> 40; }
  double value() { return (static_cast<double>(bits()) - 8388608) / 2097152; }
  // In (0, 1].
  double share() { return (static_cast<double>(bits()) + 1) / 16777216; }

 private:
  std::uint64_t state_;
};

template <class T>
std::byte* bytes(std::vector<T>& v) {
  return reinterpret_cast<std::byte*>(v.data());
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

enum class Of : std::uint8_t { dense, row };

// Values and slots, of a dense variable or of a row.
template <class T>
struct State {
  State(const Optimizer& rule, Of kind, std::vector<T> values)
      : optimizer(rule), of(kind), v(std::move(values)) {
    const bool is_row = of == Of::row;
    for (const Slot& s : is_row ? optimizer.row_slots() : optimizer.slots())
      slots.emplace_back(s.is_per_row ? 1 : v.size(), T(7));
    is_row ? optimizer.start_row_slots(dtype_of<T>(), bytes(v), pointers(), n())
           : optimizer.start_slots(dtype_of<T>(), bytes(v), pointers(), n());
  }
  std::int64_t n() const { return static_cast<std::int64_t>(v.size()); }
  std::vector<std::byte*> pointers() {
    std::vector<std::byte*> all;
    for (auto& s : slots) all.push_back(bytes(s));
    return all;
  }
  bool update(std::vector<T> g, const UpdateStep& step, std::int64_t count) {
    return of == Of::row
               ? optimizer.update_row(dtype_of<T>(), bytes(v), bytes(g), pointers(), n(), step, count)
               : optimizer.update(dtype_of<T>(), bytes(v), bytes(g), pointers(), n(), step);
  }
  friend bool same(const State& a, const State& b) {
    bool same = same_bits(a.v, b.v);
    for (std::size_t i = 0; i < a.slots.size(); ++i) same &= same_bits(a.slots[i], b.slots[i]);
    return same;
  }
  void add_to(Digester& digester) {
    digester.update(std::as_bytes(std::span(v)));
    for (const auto& s : slots) digester.update(std::as_bytes(std::span(s)));
  }
  const Optimizer& optimizer;
  Of of;
  std::vector<T> v;
  std::vector<std::vector<T>> slots;
};

template <class T>
std::vector<T> some(std::size_t n, Numbers& numbers) {
  std::vector<T> all(n);
  for (T& x : all) x = static_cast<T>(numbers.value());
  return all;
}

// Of five whole steps of 37 elements, with and without weight decay, dense and as a row that misses a step.
template <class T>
std::string bits_of_whole_steps(OptimizerType type) {
  Digester digester;
  for (const double weight_decay : {0.0, 0.1}) {
    OptimizerConfig config = config_of(type, weight_decay);
    if (type != OptimizerType::ftrl) config.schedule.warmup_steps = 3;
    const Optimizer optimizer(config);
    for (const Of of : {Of::dense, Of::row}) {
      Numbers numbers(1);
      State<T> state(optimizer, of, some<T>(37, numbers));
      for (int t = 1; t <= 5; ++t) {
        state.update(some<T>(37, numbers), UpdateStep::whole(Clock(t + t / 3)), t);
      }
      state.add_to(digester);
    }
  }
  return digester.finish().hex().substr(0, 12);
}

// The digests were made by the rules that knew whole steps only.
TEST(UpdateShares, WholeStepsHaveTheBitsThatTheyHadBeforeThereWereShares) {
  struct Recorded {
    OptimizerType type;
    const char *float32, *float64;
  };
  constexpr Recorded kRecorded[] = {{OptimizerType::sgd, "d76ee3086e8e", "645d750611a3"},
                                    {OptimizerType::momentum, "ce48c9572426", "e3fab0e20ba3"},
                                    {OptimizerType::nesterov, "69533eff5237", "da6740f14cb7"},
                                    {OptimizerType::adagrad, "12124c8dafed", "d7e0e5796be1"},
                                    {OptimizerType::rmsprop, "2f5436f58698", "200dbcb04857"},
                                    {OptimizerType::adam, "4d3c9f09d19c", "011267017710"},
                                    {OptimizerType::adamw, "39ed0890fa11", "fb6fb7879122"},
                                    {OptimizerType::ftrl, "9d20cd89a3c7", "95602194eba9"},
                                    {OptimizerType::rowwise_adagrad, "56a2bb78bc7d", "fe276106903d"}};
  static_assert(std::size(kRecorded) == std::size(kOptimizerTypes));
  for (const Recorded& r : kRecorded) {
    EXPECT_EQ(bits_of_whole_steps<float>(r.type), r.float32) << to_string(r.type);
    EXPECT_EQ(bits_of_whole_steps<double>(r.type), r.float64) << to_string(r.type);
  }
}

UpdateStep push_of(std::int64_t clock, double share, double applied, double rate = 1) {
  return {Clock(clock), share, applied, rate, true};
}

template <class T>
void expect_one_push_is_a_step(OptimizerType type, Of of) {
  const Optimizer optimizer(config_of(type, 0.1));
  Numbers numbers(2);
  State<T> steps(optimizer, of, some<T>(37, numbers)), pushes = steps;
  for (int t = 1; t <= 5; ++t) {
    const std::vector<T> g = some<T>(37, numbers);
    steps.update(g, UpdateStep::whole(Clock(t)), t);
    pushes.update(g, push_of(t, 1, t), t);
    ASSERT_TRUE(same(steps, pushes)) << to_string(type) << " step " << t;
  }
}

TEST(UpdateShares, APushOfAllOfAStepHasTheBitsOfTheStep) {
  for (const auto& choice : kOptimizerTypes) {
    for (const Of of : {Of::dense, Of::row}) {
      expect_one_push_is_a_step<float>(choice.value, of);
      expect_one_push_is_a_step<double>(choice.value, of);
    }
  }
}

// --- the formulas in double
// ---------------------------------------------------------------------------------------------

// Values and slots, by the formulas of Optimizer's comment, written another way than the product's.
struct Reference {
  OptimizerConfig c;
  Of of;
  std::vector<double> v;
  std::vector<std::vector<double>> slots;

  // The i-th element of slot s; a row's only one where there is one a row.
  double& slot(std::size_t s, std::size_t i) { return slots[s].size() == 1 ? slots[s][0] : slots[s][i]; }

  // By `q` of a step, at a rate `lr` that has been multiplied by all but q. t: of adam's corrections.
  void push(std::vector<double> g, double q, double lr, double discount, double t) {
    for (std::size_t i = 0; i < v.size(); ++i)
      if (c.type != OptimizerType::adamw) g[i] += c.weight_decay * v[i];
    if (c.type == OptimizerType::rowwise_adagrad && of == Of::row) return push_row(g, q, lr);
    for (std::size_t i = 0; i < v.size(); ++i) push_element(i, g[i], q, lr, discount, t);
  }
  void push_row(const std::vector<double>& g, double q, double lr) {
    double squares = 0;
    for (const double x : g) squares += x * x;
    slots[0][0] += q * squares / static_cast<double>(g.size());
    for (std::size_t i = 0; i < v.size(); ++i) v[i] -= lr * q * g[i] / (std::sqrt(slots[0][0]) + c.epsilon);
  }
  void push_element(std::size_t i, double g, double q, double lr, double discount, double t) {
    double& x = v[i];
    const auto mix = [q](double beta, double& mean, double next) {
      mean = std::pow(beta, q) * mean + (1 - std::pow(beta, q)) * next;
    };
    switch (c.type) {
      case OptimizerType::sgd:
        x -= lr * q * g;
        break;
      case OptimizerType::momentum:
      case OptimizerType::nesterov: {
        const double stays = std::pow(c.momentum, q), weight = (1 - stays) / (1 - c.momentum);
        double& m = slot(0, i);
        m = stays * m + weight * g;
        x -= lr * q * (c.type == OptimizerType::momentum ? m : weight * g + stays * m);
        break;
      }
      case OptimizerType::adagrad:
      case OptimizerType::rowwise_adagrad:  // of dense variables
        slot(0, i) += q * g * g;
        x -= lr * q * g / (std::sqrt(slot(0, i)) + c.epsilon);
        break;
      case OptimizerType::rmsprop:
        mix(c.rho, slot(0, i), g * g);
        x -= lr * q * g / (std::sqrt(slot(0, i)) + c.epsilon);
        break;
      case OptimizerType::adam:
      case OptimizerType::adamw: {
        if (c.type == OptimizerType::adamw) x *= 1 - lr * q * c.weight_decay;
        mix(c.beta1, slot(0, i), g);
        mix(c.beta2, slot(1, i), g * g);
        const double m_hat = slot(0, i) / (1 - std::pow(c.beta1, t));
        const double v_hat = slot(1, i) / (1 - std::pow(c.beta2, t));
        x -= lr * q * m_hat / (std::sqrt(v_hat) + c.epsilon);
        break;
      }
      case OptimizerType::ftrl: {
        const double n = slot(1, i) + q * g * g;
        slot(0, i) += q * discount * g - (std::sqrt(n) - std::sqrt(slot(1, i))) / c.learning_rate * x;
        slot(1, i) = n;
        const double z = slot(0, i), divisor = (c.beta + std::sqrt(n)) / c.learning_rate + c.l2;
        x = std::abs(z) <= c.l1 ? 0 : (std::copysign(c.l1, z) - z) / divisor;
        break;
      }
    }
  }
};

// Its rate falls with the clock.
OptimizerConfig scheduled(OptimizerConfig config) {
  if (config.type == OptimizerType::ftrl) return config;
  config.schedule.type = ScheduleType::step;
  config.schedule.every_steps = 3;
  config.schedule.factor = 0.5;
  return config;
}

// 200 pushes of random shares, a factor of the rate each; a row may miss some of them.
template <class T>
void expect_follows_the_formulas(const OptimizerConfig& config, Of of, double tolerance) {
  constexpr std::size_t kN = 9;
  const Optimizer optimizer(config);
  Numbers numbers(3);
  State<T> state(optimizer, of, some<T>(kN, numbers));
  Reference expected{config, of, {state.v.begin(), state.v.end()}, {}};
  for (const auto& s : state.slots) expected.slots.emplace_back(s.begin(), s.end());
  double applied = 0;
  for (int k = 1; k <= 200; ++k) {
    const double share = k % 50 == 0 ? 1 : numbers.share() / 4, discount = 0.25 + 0.75 * numbers.share();
    applied += share;
    const Clock clock(1 + static_cast<std::int64_t>(applied));
    const std::vector<T> g = some<T>(kN, numbers);
    ASSERT_TRUE(state.update(g, {clock, share, applied, discount, true}, k));
    const double lr = optimizer.schedule().rate(clock) * discount;
    const bool is_by_row = of == Of::row && config.correction == Correction::row;
    expected.push({g.begin(), g.end()}, share, lr, discount, is_by_row ? k * share : applied);
    for (std::size_t i = 0; i < kN; ++i) {
      ASSERT_NEAR(state.v[i], expected.v[i], tolerance * (1 + std::abs(expected.v[i])))
          << to_string(config.type) << " push " << k;
      for (std::size_t s = 0; s < state.slots.size(); ++s) {
        const double x = expected.slot(s, i);
        ASSERT_NEAR(state.slots[s][i % state.slots[s].size()], x, tolerance * (4 + 4 * std::abs(x)))
            << to_string(config.type) << " slot " << s << " push " << k;
      }
    }
  }
}

TEST(UpdateShares, FollowTheFormulasOverManyPushesOfRandomShares) {
  for (const auto& choice : kOptimizerTypes) {
    for (const double weight_decay : {0.0, 0.1}) {
      for (const Correction correction : {Correction::row, Correction::clock}) {
        for (const Of of : {Of::dense, Of::row}) {
          OptimizerConfig config = scheduled(config_of(choice.value, weight_decay));
          config.correction = correction;
          expect_follows_the_formulas<double>(config, of, 1e-12);
          expect_follows_the_formulas<float>(config, of, 2e-5);
        }
      }
    }
  }
}

// --- pushes that add up to a step
// ---------------------------------------------------------------------------------------------

// Shares that add up to 1: n equal ones, or `n` random ones.
std::vector<double> equal_shares(int n) { return std::vector<double>(static_cast<std::size_t>(n), 1.0 / n); }
std::vector<double> random_shares(int n, Numbers& numbers) {
  std::vector<double> all;
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += all.emplace_back(numbers.share());
  for (double& share : all) share /= sum;
  return all;
}

// Steps of one gradient each, whole and in pushes: what the rule keeps of the gradients must be the same.
void expect_slots_of_whole_steps(OptimizerType type, Of of, const std::vector<double>& shares) {
  const Optimizer optimizer(config_of(type));
  Numbers numbers(4);
  State<double> whole(optimizer, of, some<double>(7, numbers)), parts = whole;
  for (int t = 1; t <= 4; ++t) {
    const std::vector<double> g = some<double>(7, numbers);
    whole.update(g, UpdateStep::whole(Clock(t)), t);
    double applied = t - 1;
    for (const double share : shares) parts.update(g, push_of(t, share, applied += share), t);
    // z of ftrl holds values, which move within the step.
    for (std::size_t s = type == OptimizerType::ftrl ? 1 : 0; s < whole.slots.size(); ++s) {
      for (std::size_t i = 0; i < whole.slots[s].size(); ++i) {
        const double x = whole.slots[s][i];
        ASSERT_NEAR(parts.slots[s][i], x, 1e-12 * std::max(1e-3, std::abs(x)))
            << to_string(type) << " in " << shares.size() << " pushes, step " << t;
      }
    }
    if (type != OptimizerType::sgd) continue;
    for (std::size_t i = 0; i < whole.v.size(); ++i) ASSERT_NEAR(parts.v[i], whole.v[i], 1e-12);
  }
}

TEST(UpdateShares, OfOneGradientThatAddUpToAStepLeaveTheSlotsOfTheStep) {
  Numbers numbers(5);
  for (const auto& choice : kOptimizerTypes) {
    for (const Of of : {Of::dense, Of::row}) {
      for (const int n : {1, 2, 3, 4, 16, 61, 256}) {
        expect_slots_of_whole_steps(choice.value, of, equal_shares(n));
        expect_slots_of_whole_steps(choice.value, of, random_shares(n, numbers));
      }
    }
  }
}

// How far the value has gone after so many steps of the gradient 1.
double way(const Optimizer& optimizer, int n_steps, int n_pushes) {
  State<double> state(optimizer, Of::dense, {3.0});
  double applied = 0;
  for (int t = 1; t <= n_steps; ++t) {
    for (int k = 0; k < n_pushes; ++k) {
      applied += 1.0 / n_pushes;
      state.update({1.0}, push_of(t, 1.0 / n_pushes, applied), t);
    }
  }
  return 3.0 - state.v[0];
}

// A rule that forgot the share, or took it twice, would go n times as far, or an nth of it.
TEST(UpdateShares, GoAsFarAsWholeSteps) {
  for (const auto& choice : kOptimizerTypes) {
    OptimizerConfig config = config_of(choice.value);
    config.learning_rate = 0.002;
    config.l1 = config.l2 = 0;
    const Optimizer optimizer(config);
    const double whole = way(optimizer, 200, 1);
    EXPECT_GT(whole, 0.01) << choice.name;
    for (const int n : {2, 8, 64})
      EXPECT_NEAR(way(optimizer, 200, n) / whole, 1, 0.04) << choice.name << " " << n;
  }
}

// 1 - decay^q would be off in the 9th digit, in float32 in the first.
TEST(UpdateShares, KeepTheirDigitsWhereADecayIsNearOneAndAShareSmall) {
  const MovingMean mean = moving_mean(0.9999999, 1.0 / 4096);
  const double log = -1e-7 - 5e-15 - 1e-21 / 3, x = log / 4096;
  EXPECT_NEAR(mean.rest, -(x + x * x / 2), 1e-9 * mean.rest);
  EXPECT_NEAR(mean.decay, 1 + x, 1e-16);
  EXPECT_EQ(moving_mean(0.9999999, 1).rest, 1 - 0.9999999);
  for (const double share : {1.0, 0.25}) {
    EXPECT_EQ(moving_mean(0, share).decay, 0);
    EXPECT_EQ(moving_mean(0, share).rest, 1);
  }
  OptimizerConfig config = config_of(OptimizerType::rmsprop);
  config.rho = 0.999999;
  const Optimizer optimizer(config);
  State<float> whole(optimizer, Of::dense, {1}), parts = whole;
  whole.update({2}, UpdateStep::whole(Clock(1)), 1);
  for (int k = 1; k <= 64; ++k) parts.update({2}, push_of(1, 1.0 / 64, k / 64.0), 1);
  EXPECT_NEAR(parts.slots[0][0], whole.slots[0][0], 1e-5 * whole.slots[0][0]);
}

// mu = 0 is sgd.
TEST(UpdateShares, OfMomentumZeroAreThoseOfSgd) {
  for (const OptimizerType type : {OptimizerType::momentum, OptimizerType::nesterov}) {
    OptimizerConfig config = config_of(type);
    config.momentum = 0;
    const Optimizer optimizer(config), sgd(config_of(OptimizerType::sgd));
    Numbers numbers(6);
    State<float> with(optimizer, Of::dense, some<float>(37, numbers)), without(sgd, Of::dense, with.v);
    for (int k = 1; k <= 20; ++k) {
      const UpdateStep step = push_of(k, numbers.share(), k);
      const std::vector<float> g = some<float>(37, numbers);
      with.update(g, step, k);
      without.update(g, step, k);
      ASSERT_TRUE(same_bits(with.v, without.v)) << to_string(type) << " push " << k;
    }
  }
}

// --- the factor of the rate
// ---------------------------------------------------------------------------------------------

// A power of two, so that no bit is rounded away.
TEST(UpdateShares, AFactorOfTheRateIsAnotherRate) {
  for (const auto& choice : kOptimizerTypes) {
    if (choice.value == OptimizerType::ftrl) continue;
    OptimizerConfig quartered = config_of(choice.value, 0.1);
    quartered.learning_rate /= 4;
    const Optimizer optimizer(config_of(choice.value, 0.1)), other(quartered);
    for (const Of of : {Of::dense, Of::row}) {
      Numbers numbers(7);
      State<double> a(optimizer, of, some<double>(11, numbers)), b(other, of, a.v);
      for (int k = 1; k <= 8; ++k) {
        const std::vector<double> g = some<double>(11, numbers);
        a.update(g, push_of(k, 1.0 / k, k, 0.25), k);
        b.update(g, push_of(k, 1.0 / k, k), k);
        ASSERT_TRUE(same(a, b)) << choice.name << " push " << k;
      }
    }
  }
}

// Without l1, l2 and beta ftrl is adagrad, with shares and factors as without.
TEST(UpdateShares, AFactorIsToFtrlWhatItIsToAdagrad) {
  OptimizerConfig config = config_of(OptimizerType::ftrl), other = config_of(OptimizerType::adagrad);
  config.beta = config.l1 = config.l2 = other.epsilon = 0;
  const Optimizer ftrl(config), adagrad(other);
  Numbers numbers(8);
  State<double> a(ftrl, Of::dense, some<double>(11, numbers)), b(adagrad, Of::dense, a.v);
  for (int k = 1; k <= 100; ++k) {
    const std::vector<double> g = some<double>(11, numbers);
    const UpdateStep step = push_of(k, numbers.share(), k, numbers.share());
    a.update(g, step, k);
    b.update(g, step, k);
    for (std::size_t i = 0; i < g.size(); ++i) ASSERT_NEAR(a.v[i], b.v[i], 1e-10) << "push " << k;
  }
}

// --- adam's corrections
// ---------------------------------------------------------------------------------------------

// A constant gradient moves by the rate whatever t is, if the correction is right, and only then.
TEST(UpdateShares, AdamCorrectsByTheStepsThatTheSharesAddUpTo) {
  for (const OptimizerType type : {OptimizerType::adam, OptimizerType::adamw}) {
    for (const Of of : {Of::dense, Of::row}) {
      for (const Correction correction : {Correction::row, Correction::clock}) {
        OptimizerConfig config = config_of(type);
        config.correction = correction;
        const Optimizer optimizer(config);
        State<double> state(optimizer, of, {1.0});
        for (int k = 1; k <= 40; ++k) {
          state.update({0.5}, push_of((k + 7) / 8, 0.125, k / 8.0), k);
          ASSERT_NEAR(state.v[0], 1 - k * 0.03 / 8, 2e-6 * k) << to_string(type) << " push " << k;
        }
      }
    }
  }
}

// A row that occurs seldom: by the row t is its own pushes, by the clock all steps that have been applied.
TEST(UpdateShares, AdamsCorrectionByTheRowCountsTheRowsPushes) {
  for (const Correction correction : {Correction::row, Correction::clock}) {
    OptimizerConfig config = config_of(OptimizerType::adam);
    config.correction = correction;
    const Optimizer optimizer(config);
    State<double> row(optimizer, Of::row, {1.0});
    row.update({0.5}, push_of(5'000, 0.25, 4'999.5), 1);
    const MovingMean m = moving_mean(config.beta1, 0.25), a = moving_mean(config.beta2, 0.25);
    const double way = correction == Correction::row ? 1 : m.rest / std::sqrt(a.rest);
    EXPECT_NEAR(1 - row.v[0], 0.03 / 4 * way, 1e-6);
  }
}

// --- what cannot be
// ---------------------------------------------------------------------------------------------

TEST(UpdateShares, SayWhatCannotBeAShare) {
  const auto error_of = [](OptimizerType type, const UpdateStep& step) {
    const Optimizer optimizer(config_of(type));
    State<float> dense(optimizer, Of::dense, {1, 2}), row(optimizer, Of::row, {1, 2});
    const auto before = dense.v;
    const std::string error = thrown([&] { dense.update({3, 4}, step, 1); });
    EXPECT_EQ(thrown([&] { row.update({3, 4}, step, 1); }), error);
    if (error != "no error") {
      EXPECT_EQ(dense.v, before);
      EXPECT_EQ(row.v, before);
    }
    return error;
  };
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  for (const auto& choice : kOptimizerTypes) {
    EXPECT_EQ(error_of(choice.value, push_of(7, 1, 7)), "no error");
    EXPECT_EQ(
        error_of(choice.value, push_of(7, 0, 7)),
        "argument: a push of step 7 has a share of 0 of it, but must have more than 0 and at most 1: leave "
        "out a push without samples");
    EXPECT_EQ(error_of(choice.value, push_of(7, 1, 7, 0)),
              "argument: a push of step 7 multiplies the learning rate by 0, but must by a number above 0: a "
              "push that shall not count is left out");
    for (const double share : {-0.5, 1.5, nan})
      EXPECT_TRUE(error_of(choice.value, push_of(7, share, 7)).starts_with("argument: a push of step 7"));
    for (const double rate : {-0.5, inf, nan})
      EXPECT_TRUE(error_of(choice.value, push_of(7, 1, 7, rate)).starts_with("argument: a push of step 7"));
  }
  for (const double applied : {0.0, -1.0, nan})
    EXPECT_EQ(error_of(OptimizerType::sgd, push_of(7, 1, applied)), "no error");
  EXPECT_EQ(
      error_of(OptimizerType::adam, push_of(7, 0.5, 0)),
      "argument: a push of step 7 says that 0 steps will have been applied with it, but adam's corrections "
      "need more than 0");
}

// --- around the optimizer
// ---------------------------------------------------------------------------------------------

// One trained variable and one moving average on a server.
class Shares {
 public:
  explicit Shares(const OptimizerConfig& config)
      : optimizer_(config),
        shard_(variables_, plan_, ServerId(0), optimizer_.slots()),
        watch_(plan_, shard_),
        updater_(plan_, optimizer_, shard_, watch_) {
    shard_.initialize(1);
  }
  // Two elements of each, by one sum. Returns what they are then: trained, average.
  std::vector<double> update(double sum, const UpdateStep& step) {
    std::vector<double> values;
    for (const bool trainable : {true, false}) {
      for (const BucketId id : shard_.buckets()) {
        if (plan_[id].trainable != trainable) continue;
        std::vector<double> sums(2, sum);
        updater_.update(id, 0, 2, bytes(sums), step);
        values.push_back(*reinterpret_cast<const double*>(shard_.value(id)));
      }
    }
    return values;
  }

 private:
  static VariableTable some_variables() {
    VariableSpec mean = make_spec("b/mean", DType::float64, Shape{2}, Initializer::constant(1), false);
    mean.average_decay = 0.9;
    return VariableTable({make_spec("a/w", DType::float64, Shape{2}, Initializer::constant(1)), mean});
  }
  VariableTable variables_ = some_variables();
  BucketPlan plan_ = BucketPlan::make(variables_, 1);
  Optimizer optimizer_;
  ParameterShard shard_;
  FiniteWatch watch_;
  Updater updater_;
};

TEST(UpdateShares, AMovingAverageThatGetsAStepInSharesIsWhereOneStepWouldTakeIt) {
  const OptimizerConfig config = config_of(OptimizerType::sgd);
  Shares whole(config), parts(config);
  const double expected = whole.update(5, UpdateStep::whole(Clock(1)))[1];
  EXPECT_EQ(expected, 0.9 * 1 + (1 - 0.9) * 5);
  std::vector<double> got;
  for (const double share : {0.5, 0.125, 0.375}) got = parts.update(5, push_of(1, share, 1));
  EXPECT_NEAR(got[1], expected, 1e-14);
  EXPECT_NEAR(parts.update(2, push_of(2, 0.25, 1.25))[1],
              std::pow(0.9, 0.25) * expected + (1 - std::pow(0.9, 0.25)) * 2, 1e-14);
}

UpdateStep flush_of(std::int64_t step, double share) {
  return {Clock(step), share, static_cast<double>(step), 1, true, true};
}

// A push without a part of its gradient, and that part afterwards, are the push with it.
TEST(UpdateShares, WhatIsFlushedCompletesThePushesThatHaveDoneWithoutIt) {
  for (const OptimizerType type : {OptimizerType::sgd, OptimizerType::momentum, OptimizerType::nesterov}) {
    const Optimizer optimizer(config_of(type));
    for (const double share : {1.0, 0.25, 0.03}) {
      Numbers numbers(7);
      const std::vector<double> start = some<double>(9, numbers);
      State<double> whole(optimizer, Of::dense, start), parts(optimizer, Of::dense, start);
      for (int t = 1; t <= 3; ++t) {
        const std::vector<double> sent = some<double>(9, numbers), kept = some<double>(9, numbers);
        std::vector<double> both(9);
        for (std::size_t i = 0; i < both.size(); ++i) both[i] = sent[i] + kept[i];
        whole.update(both, push_of(t, share, t), t);
        parts.update(sent, push_of(t, share, t), t);
        parts.update(kept, flush_of(t, share), t);
      }
      for (std::size_t i = 0; i < start.size(); ++i) {
        EXPECT_NEAR(parts.v[i], whole.v[i], 1e-14) << to_string(type) << " " << share;
        for (std::size_t s = 0; s < whole.slots.size(); ++s)
          EXPECT_NEAR(parts.slots[s][i], whole.slots[s][i], 1e-13) << to_string(type) << " " << share;
      }
    }
  }
}

TEST(UpdateShares, AFlushAddsToSumsOfSquaresAsAPushDoes) {
  const Optimizer optimizer(config_of(OptimizerType::adagrad));
  State<double> state(optimizer, Of::dense, {1.0});
  state.update({2.0}, flush_of(1, 0.25), 1);
  EXPECT_NEAR(state.slots[0][0], 0.2 + 0.25 * 4, 1e-14);
  EXPECT_NEAR(state.v[0], 1 - 0.03 * 0.25 * 2 / (std::sqrt(0.2 + 0.25 * 4) + 1e-6), 1e-14);
}

TEST(UpdateShares, AFlushDecaysNothing) {
  const Optimizer decaying(config_of(OptimizerType::momentum, 0.1));
  State<double> state(decaying, Of::dense, {1.0});
  state.update({2.0}, push_of(1, 0.5, 0.5), 1);
  const double v = state.v[0], m = state.slots[0][0];
  state.update({0.0}, flush_of(1, 0.5), 1);
  EXPECT_EQ(state.v[0], v);
  EXPECT_EQ(state.slots[0][0], m);
}

TEST(UpdateShares, RulesThatDivideByTheSizeOfEachGradientTakeNoFlush) {
  for (const OptimizerType type : {OptimizerType::adam, OptimizerType::adamw, OptimizerType::rmsprop}) {
    const Optimizer optimizer(config_of(type));
    State<double> state(optimizer, Of::dense, {1.0});
    EXPECT_EQ(thrown([&] { state.update({2.0}, flush_of(4, 0.5), 1); }),
              std::string("argument: optimizer ") + to_string(type) +
                  " cannot take what compression has kept back before step 4: it divides by the size of each "
                  "gradient");
  }
}

// What a push is clipped to does not depend on how much it is worth.
TEST(UpdateShares, AreOfTheGradientThatHasBeenClipped) {
  OptimizerConfig config = config_of(OptimizerType::adagrad);
  config.clip = {ClipType::value, 0.5};
  Shares shares(config);
  EXPECT_NEAR(shares.update(100, push_of(1, 0.25, 0.25))[0],
              1 - 0.03 / 4 * 0.5 / (std::sqrt(0.2 + 0.25 * 0.25) + 1e-6), 1e-14);
}

TEST(UpdateShares, OfAMovingAverageCanBeNoneThatCannotBe) {
  Shares shares(config_of(OptimizerType::sgd));
  EXPECT_TRUE(
      thrown([&] { shares.update(5, push_of(3, 0, 3)); }).starts_with("argument: a push of step 3 has a "));
  const std::vector<double> unmoved = shares.update(1, UpdateStep::whole(Clock(4)));
  EXPECT_EQ(unmoved[1], 0.9 * 1 + (1 - 0.9) * 1);
}

}  // namespace
}  // namespace varscope
