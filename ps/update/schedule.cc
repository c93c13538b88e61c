#include "ps/update/schedule.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "common/base/error.h"

namespace varscope {
namespace {

void require(bool good, const char* problem) {
  if (!good) fail(ErrorKind::argument, "optimizer.schedule: {}", problem);
}

double ratio(std::int64_t n, std::int64_t of) { return static_cast<double>(n) / static_cast<double>(of); }

}  // namespace

Schedule::Schedule(double learning_rate, const ScheduleConfig& config)
    : learning_rate_(learning_rate), config_(config) {
  const ScheduleConfig& c = config_;
  require(c.warmup_steps >= 0, "warmup_steps must be 0 or more");
  switch (c.type) {
    case ScheduleType::constant:
      return;
    case ScheduleType::step:
      require(c.every_steps >= 1, "every_steps must be 1 or more");
      require(c.factor > 0, "factor must be above 0");
      return;
    case ScheduleType::piecewise:
      require(std::ranges::is_sorted(c.boundaries, std::ranges::less_equal()), "boundaries must rise");
      require(c.boundaries.size() == c.factors.size(), "factors must be as many as boundaries");
      return;
    case ScheduleType::exponential:
      require(c.rate > 0, "rate must be above 0");
      break;
    case ScheduleType::polynomial:
      require(c.power > 0 && c.end_learning_rate >= 0, "power must be above 0, end_learning_rate 0 or more");
      break;
    case ScheduleType::cosine:
      require(c.alpha >= 0 && c.alpha <= 1, "alpha must be in [0, 1]");
      break;
  }
  require(c.decay_steps >= 1, "decay_steps must be 1 or more");
}

double Schedule::rate(Clock clock) const {
  const std::int64_t warmup = config_.warmup_steps;
  if (clock.value <= warmup) return learning_rate_ * ratio(clock.value, warmup);
  return after_warmup(clock.value - warmup - 1);
}

double Schedule::after_warmup(std::int64_t done) const {
  const ScheduleConfig& c = config_;
  const double r = learning_rate_;
  switch (c.type) {
    case ScheduleType::constant:
      break;
    case ScheduleType::step: {
      const std::int64_t n_drops = done / c.every_steps;
      return r * std::pow(c.factor, static_cast<double>(n_drops));
    }
    case ScheduleType::piecewise: {
      const auto passed = std::ranges::upper_bound(c.boundaries, done) - c.boundaries.begin();
      return passed == 0 ? r : r * c.factors[static_cast<std::size_t>(passed - 1)];
    }
    case ScheduleType::exponential: {
      const double exponent = ratio(done, c.decay_steps);
      return r * std::pow(c.rate, c.staircase ? std::floor(exponent) : exponent);
    }
    case ScheduleType::polynomial: {
      const double left = 1 - ratio(std::min(done, c.decay_steps), c.decay_steps);
      return c.end_learning_rate + (r - c.end_learning_rate) * std::pow(left, c.power);
    }
    case ScheduleType::cosine: {
      const double part = ratio(std::min(done, c.decay_steps), c.decay_steps);
      return r * (c.alpha + (1 - c.alpha) * (1 + std::cos(std::numbers::pi * part)) / 2);
    }
  }
  return r;
}

}  // namespace varscope
