#include "ps/update/optimizer.h"

#include <cmath>

#include "common/base/error.h"
#include "ps/update/optimizer_kernels.h"

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
  }
  return {};
}

void require(bool good, const char* name, double value, const char* range) {
  if (!good) fail(ErrorKind::argument, "optimizer: {} is {}, but must be {}", name, value, range);
}

template <class T>
bool update_as(const OptimizerConfig& s, double rate, T* v, T* g, const std::vector<std::byte*>& slots,
               std::int64_t n, Clock clock) {
  const auto slot = [&](std::size_t i) { return reinterpret_cast<T*>(slots.at(i)); };
  const T lr = static_cast<T>(rate), eps = static_cast<T>(s.epsilon);
  if (s.weight_decay != 0) {
    if (s.type == OptimizerType::adamw) {
      kernels::decay(v, static_cast<T>(rate * s.weight_decay), n);
    } else {
      kernels::add_scaled(g, v, static_cast<T>(s.weight_decay), n);
    }
  }
  switch (s.type) {
    case OptimizerType::sgd:
      return kernels::sgd(v, g, lr, n);
    case OptimizerType::momentum:
      return kernels::momentum(v, g, slot(0), lr, static_cast<T>(s.momentum), n);
    case OptimizerType::nesterov:
      return kernels::nesterov(v, g, slot(0), lr, static_cast<T>(s.momentum), n);
    case OptimizerType::adagrad:
      return kernels::adagrad(v, g, slot(0), lr, eps, n);
    case OptimizerType::rmsprop:
      return kernels::rmsprop(v, g, slot(0), lr, kernels::Decay<T>(s.rho), eps, n);
    case OptimizerType::adam:
    case OptimizerType::adamw: {
      const auto t = static_cast<double>(clock.value);
      const double correction1 = 1 - std::pow(s.beta1, t), correction2 = 1 / (1 - std::pow(s.beta2, t));
      return kernels::adam(v, g, slot(0), slot(1), static_cast<T>(rate / correction1),
                           kernels::Decay<T>(s.beta1), kernels::Decay<T>(s.beta2),
                           static_cast<T>(correction2), eps, n);
    }
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
    : config_(config), schedule_(config), slots_(slots_of(config)) {
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
  require(config.clip.type == ClipType::none || config.clip.limit > 0, "clip.limit", config.clip.limit,
          "above 0");
}

std::vector<std::string> Optimizer::slot_names() const {
  std::vector<std::string> names;
  names.reserve(slots_.size());
  for (const Slot& slot : slots_) names.push_back(slot.name);
  return names;
}

bool Optimizer::update(DType dtype, std::byte* value, std::byte* gradient,
                       const std::vector<std::byte*>& slots, std::int64_t n, Clock clock) const {
  const double rate = schedule_.rate(clock);
  if (dtype == DType::float32) {
    return update_as(config_, rate, reinterpret_cast<float*>(value), reinterpret_cast<float*>(gradient),
                     slots, n, clock);
  }
  if (dtype == DType::float64) {
    return update_as(config_, rate, reinterpret_cast<double*>(value), reinterpret_cast<double*>(gradient),
                     slots, n, clock);
  }
  fail(ErrorKind::argument, "optimizer {} cannot update a variable of dtype {}", to_string(config_.type),
       to_string(dtype));
}

}  // namespace varscope
