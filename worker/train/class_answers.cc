#include "worker/train/class_answers.h"

#include <algorithm>
#include <cmath>

namespace varscope {

std::size_t class_of(ClassLogits kind, std::span<const double> logits) {
  if (kind == ClassLogits::sigmoid) return logits[0] > 0 ? 1 : 0;
  return static_cast<std::size_t>(std::ranges::max_element(logits) - logits.begin());
}

std::vector<double> class_probabilities(ClassLogits kind, std::span<const double> logits) {
  if (kind == ClassLogits::sigmoid) {
    const double p = 1 / (1 + std::exp(-logits[0]));
    return {1 / (1 + std::exp(logits[0])), p};
  }
  const double greatest = *std::ranges::max_element(logits);
  std::vector<double> p;
  p.reserve(logits.size());
  double sum = 0;
  for (const double x : logits) {
    p.push_back(std::exp(x - greatest));
    sum += p.back();
  }
  for (double& x : p) x /= sum;
  return p;
}

}  // namespace varscope
