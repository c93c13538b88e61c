#include "worker/train/push_clip.h"

#include <fmt/format.h>

#include <span>
#include <type_traits>
#include <utility>

#include "common/base/error.h"
#include "common/base/norm_kernels.h"

namespace varscope {
namespace {

constexpr std::size_t kMostNames = 5;  // in a message

std::string names_of(const std::map<std::string, double>& variables) {
  std::string text;
  std::size_t n = 0;
  for (const auto& [name, sum] : variables) {
    if (n++ == kMostNames) return text + fmt::format(" and {} more", variables.size() - kMostNames);
    text += (n == 1 ? "" : ", ") + (name.empty() ? "all variables together" : name);
  }
  return text;
}

// Calls f(pointer to the slice's gradients, term) for each slice that has a part in a norm.
template <class F>
void for_each_slice(const BucketPlan& plan, const NormPlan& norms, VariableMemory& memory, F f) {
  for (const Bucket& bucket : plan.buckets()) {
    for (const BucketSlice& slice : bucket.slices) {
      const NormTerm* const term = norms.find(slice.variable, slice.index);
      if (term == nullptr) continue;
      with_real(bucket.dtype, [&]<class T>(T) {
        std::byte* const gradient = memory.gradient(0, slice.variable).bytes();
        f(reinterpret_cast<T*>(gradient) + slice.variable_begin, slice.n_elements, *term);
      });
    }
  }
}

}  // namespace

// There is one worker for the norms of its push, as there would be one server: places are those of terms().
PushClip::PushClip(const Parts& parts)
    : parts_(parts),
      norms_(NormPlan::of_gradients(parts.memory.variables(), parts.clip, 1)),
      sums_(static_cast<std::size_t>(norms_.empty() ? 0 : norms_.n_sums(ServerId(0)))) {
  const VariableTable& variables = parts.memory.variables();
  for (std::size_t v = 0; v < variables.size(); ++v) {
    if (variables[v].is_table() && norms_.find(static_cast<int>(v), 0) != nullptr)
      tables_.push_back(static_cast<int>(v));
  }
}

void PushClip::clip(Clock step, bool is_loss_finite, const std::function<void()>& progress) {
  add_up(progress);
  const NormPlan::SumOf sum_of = [this](const NormTerm& term, std::int64_t) {
    return sums_[static_cast<std::size_t>(term.place)];
  };
  const auto [factors, bad] = norms_.factors(sum_of);
  if (bad && is_loss_finite) tell(step, norms_.not_finite(parts_.memory.variables(), sum_of, *bad));
  scale(factors, progress);
}

void PushClip::add_up(const std::function<void()>& progress) {
  for_each_slice(parts_.plan, norms_, parts_.memory,
                 [&](auto* gradient, std::int64_t n, const NormTerm& term) {
                   sums_[static_cast<std::size_t>(term.place)] = kernels::sum_of_squares(gradient, n);
                   progress();
                 });
  for (const int table : tables_) {
    const auto first = static_cast<std::size_t>(norms_.find(table, 0)->place);
    const auto parts =
        static_cast<std::size_t>(parts_.memory.variables()[static_cast<std::size_t>(table)].table->parts);
    parts_.tables.row_squares(table, std::span(sums_).subspan(first, parts));
    progress();
  }
}

void PushClip::scale(const std::vector<double>& factors, const std::function<void()>& progress) {
  for_each_slice(
      parts_.plan, norms_, parts_.memory, [&](auto* gradient, std::int64_t n, const NormTerm& term) {
        const double factor = factors[norms_.place_of_factors(term)];
        if (factor == 1) return;
        kernels::scale(gradient, static_cast<std::remove_pointer_t<decltype(gradient)>>(factor), n);
        progress();
      });
  for (const int table : tables_) {
    const double factor = factors[norms_.place_of_factors(*norms_.find(table, 0))];
    if (factor != 1) parts_.tables.scale(table, factor);
  }
}

void PushClip::tell(Clock step, const std::map<std::string, double>& variables) {
  const std::string what =
      fmt::format("step {}: the norm of the gradient of {} is not finite", step.value, names_of(variables));
  if (parts_.on_nan == OnNan::stop) throw Error(ErrorKind::not_finite, what);
  if (std::exchange(has_warned_, true) || !parts_.warn) return;
  parts_.warn(what + ", which clips nothing; training goes on (train.on_nan: warn)");
}

}  // namespace varscope
