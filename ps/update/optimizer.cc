#include "ps/update/optimizer.h"

#include <cmath>

#include "common/base/error.h"
#include "ps/update/optimizer_kernels.h"
#include "ps/update/update_kernels.h"

namespace varscope {
namespace {

std::vector<Slot> slots_of(const OptimizerConfig& config) {
  switch (config.type) {
    case OptimizerType::sgd:
      return {};
    case OptimizerType::momentum:
    case OptimizerType::nesterov:
      return {{"momentum"}};
    case OptimizerType::adagrad:
      return {{"accumulator", config.initial_accumulator}};
    case OptimizerType::rmsprop:
      return {{"mean_square"}};
    case OptimizerType::adam:
    case OptimizerType::adamw:
      return {{"m"}, {"v"}};
    case OptimizerType::ftrl: {
      const double divisor =
          (config.beta + std::sqrt(config.initial_accumulator)) / config.learning_rate + config.l2;
      return {{.name = "z", .per_value = -divisor, .per_sign = -config.l1},
              {"n", config.initial_accumulator}};
    }
    case OptimizerType::rowwise_adagrad:
      return {{"accumulator", config.initial_accumulator}};
  }
  return {};
}

std::vector<Slot> row_slots_of(const OptimizerConfig& config) {
  std::vector<Slot> slots = slots_of(config);
  if (config.type == OptimizerType::rowwise_adagrad) slots.front().is_per_row = true;
  return slots;
}

void require(bool good, const char* name, double value, const char* range) {
  if (!good) fail(ErrorKind::argument, "optimizer: {} is {}, but must be {}", name, value, range);
}

// What is too small for float32 is 0.
void require_ftrl(const OptimizerConfig& config) {
  const float first_root =
      static_cast<float>(config.beta) + std::sqrt(static_cast<float>(config.initial_accumulator));
  require(first_root > 0, "beta + sqrt(initial_accumulator)", static_cast<double>(first_root),
          "above 0 for ftrl, in float32 too");
  if (config.schedule.is_constant()) return;
  fail(ErrorKind::argument, "optimizer: {}", kFtrlNeedsAConstantRate);
}

void require_slots(std::size_t n, std::size_t expected) {
  if (n != expected) fail(ErrorKind::argument, "optimizer: {} slots were given, but it has {}", n, expected);
}

bool is_adam(const OptimizerConfig& config) {
  return config.type == OptimizerType::adam || config.type == OptimizerType::adamw;
}

// Those of the first updates of a row, until they are 1 or there are very many.
std::vector<AdamCorrection> first_corrections(const OptimizerConfig& config) {
  constexpr std::int64_t kMost = 1 << 16;
  std::vector<AdamCorrection> all;
  if (!is_adam(config)) return all;
  do {
    all.push_back(adam_correction(config, static_cast<double>(std::ssize(all) + 1), 1));
  } while (std::ssize(all) < kMost && !(all.back().mean == 1 && all.back().square == 1));
  return all;
}

// What compression has kept back of pushes with this share: the part of v and of each sum that they would
// have moved, had they had it. Momentum keeps what it is, and moves v by what is new to it.
template <class T>
bool flush_momentum(const OptimizerConfig& s, const PushConstants& push, T* v, const T* g, T* m,
                    std::int64_t n) {
  const double of_rest = s.type == OptimizerType::nesterov ? 1 + push.first.decay : 1;
  const bool is_finite = kernels::sgd(v, g, static_cast<T>(push.loop_rate * of_rest), n);
  kernels::add_scaled(m, g, T(1), n);
  return is_finite;
}

void check_flush(const OptimizerConfig& s, const UpdateStep& step) {
  const bool is_adaptive = is_adam(s) || s.type == OptimizerType::rmsprop;
  if (!step.is_flush || !is_adaptive) return;
  fail(
      ErrorKind::argument,
      "optimizer {} cannot take what compression has kept back before step {}: it divides by the size of each "
      "gradient",
      to_string(s.type), step.clock.value);
}

template <class T>
bool update_as(const OptimizerConfig& s, bool is_row, const PushConstants& push, const AdamCorrection& adam,
               T* v, T* g, std::span<std::byte* const> slots, std::int64_t n) {
  const auto slot = [&](std::size_t i) { return reinterpret_cast<T*>(slots[i]); };
  const T lr = static_cast<T>(push.loop_rate), eps = static_cast<T>(s.epsilon);
  if (s.weight_decay != 0 && !push.step.is_flush) {
    if (s.type == OptimizerType::adamw) {
      kernels::decay(v, static_cast<T>(push.rate * s.weight_decay), n);
    } else {
      kernels::add_scaled(g, v, static_cast<T>(s.weight_decay), n);
    }
  }
  if (push.scale != 1) kernels::scale(g, static_cast<T>(push.scale), n);
  switch (s.type) {
    case OptimizerType::sgd:
      return kernels::sgd(v, g, lr, n);
    case OptimizerType::momentum:
      if (push.step.is_flush) return flush_momentum(s, push, v, g, slot(0), n);
      return kernels::momentum(v, g, slot(0), lr, static_cast<T>(push.first.decay), n);
    case OptimizerType::nesterov:
      if (push.step.is_flush) return flush_momentum(s, push, v, g, slot(0), n);
      return kernels::nesterov(v, g, slot(0), lr, static_cast<T>(push.first.decay), n);
    case OptimizerType::rowwise_adagrad:
      if (is_row) return kernels::rowwise_adagrad(v, g, slot(0), lr, eps, n);
      [[fallthrough]];
    case OptimizerType::adagrad:
      return kernels::adagrad(v, g, slot(0), lr, eps, n);
    case OptimizerType::ftrl:
      return kernels::ftrl(v, g, slot(0), slot(1), kernels::Ftrl<T>(s, push.step), n);
    case OptimizerType::rmsprop:
      return kernels::rmsprop(v, g, slot(0), lr, kernels::Decay<T>(push.first), eps, n);
    case OptimizerType::adam:
    case OptimizerType::adamw:
      return kernels::adam(v, g, slot(0), slot(1), static_cast<T>(push.rate / adam.mean),
                           kernels::Decay<T>(push.first), kernels::Decay<T>(push.second),
                           static_cast<T>(adam.square), eps, n);
  }
  return true;
}

}  // namespace

const char* to_string(OptimizerType type) {
  for (const auto& choice : kOptimizerTypes) {
    if (choice.value == type) return choice.name;
  }
  return "unknown";
}

Optimizer::Optimizer(const OptimizerConfig& config)
    : config_(config), schedule_(config), slots_(slots_of(config)), row_slots_(row_slots_of(config)) {
  require(config.learning_rate > 0, "learning_rate", config.learning_rate, "above 0");
  for (const auto& [name, value] : {std::pair{"momentum", config.momentum},
                                    {"beta1", config.beta1},
                                    {"beta2", config.beta2},
                                    {"rho", config.rho}}) {
    require(value >= 0 && value < 1, name, value, "in [0, 1)");
  }
  require(config.epsilon >= 0, "epsilon", config.epsilon, "0 or above");
  require(config.weight_decay >= 0, "weight_decay", config.weight_decay, "0 or above");
  require(config.initial_accumulator >= 0, "initial_accumulator", config.initial_accumulator, "0 or above");
  for (const auto& [name, value] : {std::pair{"beta", config.beta}, {"l1", config.l1}, {"l2", config.l2}})
    require(value >= 0, name, value, "0 or above");
  if (config.type == OptimizerType::ftrl) require_ftrl(config);
  require(config.clip.type == ClipType::none || config.clip.limit > 0, "clip.limit", config.clip.limit,
          "above 0");
  row_corrections_ = first_corrections(config);
}

std::vector<std::string> Optimizer::slot_names() const {
  std::vector<std::string> names;
  names.reserve(slots_.size());
  for (const Slot& slot : slots_) names.push_back(slot.name);
  return names;
}

bool Optimizer::is_exact() const {
  if (config_.weight_decay != 0) return false;
  switch (config_.type) {
    case OptimizerType::sgd:
    case OptimizerType::adagrad:
    case OptimizerType::rowwise_adagrad:
    case OptimizerType::ftrl:
      return true;
    case OptimizerType::momentum:
    case OptimizerType::nesterov:
    case OptimizerType::rmsprop:
    case OptimizerType::adam:
    case OptimizerType::adamw:
      return false;
  }
  return false;
}

void Optimizer::start_slots(DType dtype, const std::byte* value, std::span<std::byte* const> slots,
                            std::int64_t n) const {
  require_slots(slots.size(), slots_.size());
  for (std::size_t i = 0; i < slots.size(); ++i) start_slot(slots_[i], dtype, value, slots[i], n);
}

void Optimizer::start_row_slots(DType dtype, const std::byte* value, std::span<std::byte* const> slots,
                                std::int64_t units) const {
  require_slots(slots.size(), row_slots_.size());
  for (std::size_t i = 0; i < slots.size(); ++i)
    start_slot(row_slots_[i], dtype, value, slots[i], row_slots_[i].is_per_row ? 1 : units);
}

bool Optimizer::update(DType dtype, std::byte* value, std::byte* gradient, std::span<std::byte* const> slots,
                       std::int64_t n, const UpdateStep& step) const {
  check_flush(config_, step);
  const PushConstants push = constants(step);
  return update(Of::dense, dtype, value, gradient, slots, n, push, push.adam);
}

bool Optimizer::update_row(DType dtype, std::byte* value, std::byte* gradient,
                           std::span<std::byte* const> slots, std::int64_t units, const PushConstants& push,
                           std::int64_t count) const {
  return update(Of::row, dtype, value, gradient, slots, units, push,
                config_.correction == Correction::row ? row_correction(count, push.step.share) : push.adam);
}

AdamCorrection Optimizer::row_correction(std::int64_t count, double share) const {
  if (!is_adam(config_)) return {};
  const double t = static_cast<double>(count) * share;
  const auto n_kept = static_cast<double>(row_corrections_.size());
  if (share == 1 && t <= n_kept) return row_corrections_[static_cast<std::size_t>(count - 1)];
  // The last one is 1 and stays so, or there are too many to be kept.
  const AdamCorrection& last = row_corrections_.back();
  return t > n_kept && last.mean == 1 && last.square == 1 ? last : adam_correction(config_, t, share);
}

bool Optimizer::update(Of of, DType dtype, std::byte* value, std::byte* gradient,
                       std::span<std::byte* const> slots, std::int64_t n, const PushConstants& push,
                       const AdamCorrection& adam) const {
  require_slots(slots.size(), slots_.size());
  if (dtype == DType::float32) {
    return update_as(config_, of == Of::row, push, adam, reinterpret_cast<float*>(value),
                     reinterpret_cast<float*>(gradient), slots, n);
  }
  if (dtype == DType::float64) {
    return update_as(config_, of == Of::row, push, adam, reinterpret_cast<double*>(value),
                     reinterpret_cast<double*>(gradient), slots, n);
  }
  fail(ErrorKind::argument, "optimizer {} cannot update a variable of dtype {}", to_string(config_.type),
       to_string(dtype));
}

}  // namespace varscope
