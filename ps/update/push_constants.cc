#include "ps/update/push_constants.h"

#include <cmath>

#include "common/base/error.h"

namespace varscope {

MovingMean moving_mean(double decay, double share) {
  if (share == 1) return {decay, 1 - decay};
  return {std::pow(decay, share), -std::expm1(share * std::log(decay))};
}

AdamCorrection adam_correction(const OptimizerConfig& config, double t, double share) {
  if (share == 1) return {1 - std::pow(config.beta1, t), 1 / (1 - std::pow(config.beta2, t))};
  const auto begun = [&](double beta) { return -std::expm1(t * std::log(beta)); };
  return {begun(config.beta1), 1 / begun(config.beta2)};
}

void check_update_step(const UpdateStep& step) {
  if (!(step.share > 0 && step.share <= 1)) {
    fail(
        ErrorKind::argument,
        "a push of step {} has a share of {} of it, but must have more than 0 and at most 1: leave out a push "
        "without samples",
        step.clock.value, step.share);
  }
  if (!(step.rate > 0 && std::isfinite(step.rate))) {
    fail(ErrorKind::argument,
         "a push of step {} multiplies the learning rate by {}, but must by a number above 0: a push that "
         "shall not count is left out",
         step.clock.value, step.rate);
  }
}

PushConstants::PushConstants(const OptimizerConfig& config, const Schedule& schedule, const UpdateStep& s)
    : step(s) {
  check_update_step(step);
  loop_rate = rate = schedule.rate(step.clock) * step.share * step.rate;
  switch (config.type) {
    case OptimizerType::sgd:
    case OptimizerType::ftrl:
      break;
    case OptimizerType::momentum:
    case OptimizerType::nesterov:
      first = moving_mean(config.momentum, step.share);
      scale = first.rest / (1 - config.momentum);
      break;
    case OptimizerType::adagrad:
    case OptimizerType::rowwise_adagrad:
      scale = std::sqrt(step.share);
      loop_rate = rate / scale;
      break;
    case OptimizerType::rmsprop:
      first = moving_mean(config.rho, step.share);
      break;
    case OptimizerType::adam:
    case OptimizerType::adamw:
      if (!(step.applied > 0)) {
        fail(ErrorKind::argument,
             "a push of step {} says that {} steps will have been applied with it, but adam's corrections "
             "need more than 0",
             step.clock.value, step.applied);
      }
      first = moving_mean(config.beta1, step.share);
      second = moving_mean(config.beta2, step.share);
      adam = adam_correction(config, step.applied, step.share);
      break;
  }
}

}  // namespace varscope
