// What a push is worth: updates by shares of a step, beside the formulas in double.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "common/base/hash.h"
#include "ps/update/optimizer.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

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

enum class Of : std::uint8_t { dense, row };

// Values and slots, of a dense variable or of a row.
template <class T>
struct State {
  State(const Optimizer& rule, Of kind, std::vector<T> values) : optimizer(rule), of(kind), v(std::move(values)) {
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
  bool update(std::vector<T> g, Clock clock, std::int64_t count) {
    return of == Of::row
               ? optimizer.update_row(dtype_of<T>(), bytes(v), bytes(g), pointers(), n(), UpdateStep::whole(clock), count)
               : optimizer.update(dtype_of<T>(), bytes(v), bytes(g), pointers(), n(), UpdateStep::whole(clock));
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

// Five whole steps of 37 elements, with and without weight decay and a schedule, dense and as a row that misses one step.
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
      for (int t = 1; t <= 5; ++t) state.update(some<T>(37, numbers), Clock(t + t / 3), t);
      state.add_to(digester);
    }
  }
  return digester.finish().hex().substr(0, 12);
}

TEST(UpdateShares, WholeStepsHaveTheBitsThatTheyHadBeforeThereWereShares) {
  for (const auto& choice : kOptimizerTypes) {
    std::printf("{OptimizerType::%s, \"%s\", \"%s\"},\n", choice.name, bits_of_whole_steps<float>(choice.value).c_str(), bits_of_whole_steps<double>(choice.value).c_str());
  }
}

}  // namespace
}  // namespace varscope
