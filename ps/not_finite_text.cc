#include "ps/not_finite_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace varscope {
namespace {

using Where = NotFiniteFinding::Where;

constexpr std::size_t kMostNames = 5;

// "a, b and 3 more"
std::string list_of(const std::vector<std::string>& names, std::int64_t n_more) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kMostNames); ++i)
    text += (i == 0 ? "" : ", ") + names[i];
  if (names.size() > kMostNames) n_more += static_cast<std::int64_t>(names.size() - kMostNames);
  return n_more > 0 ? text + fmt::format(" and {} more", n_more) : text;
}

// "nan in hidden/weights (element 0), inf in ..."
std::string values_text(const NotFiniteStep& step) {
  std::vector<std::string> names;
  std::string what;
  for (const NotFiniteFinding& f : step.findings) {
    if (f.where != Where::value) continue;
    names.push_back(fmt::format("{}{} ({}{}element {})", f.what == what ? "" : f.what + " in ", f.variable,
                                f.slot.empty() ? "" : fmt::format("slot {}, ", f.slot),
                                f.row.empty() ? "" : fmt::format("row {}, ", f.row), f.element));
    what = f.what;
  }
  return names.empty() ? "" : list_of(names, step.n_more);
}

std::string norms_text(const NotFiniteStep& step, Where where) {
  std::vector<std::string> names;
  for (const NotFiniteFinding& f : step.findings) {
    if (f.where != where) continue;
    const std::string name = f.variable.empty() ? "all variables together" : f.variable;
    if (names.empty() || names.back() != name) names.push_back(name);  // two servers may tell of one table
  }
  if (names.empty()) return "";
  return fmt::format("the norm of the {} of {} is not finite",
                     where == Where::value_norm ? "values" : "gradient", list_of(names, 0));
}

}  // namespace

std::string text_of(const NotFiniteStep& unsorted) {
  NotFiniteStep step = unsorted;
  std::ranges::sort(step.findings, [](const NotFiniteFinding& a, const NotFiniteFinding& b) {
    return std::tie(a.where, a.slot, a.variable) < std::tie(b.where, b.slot, b.variable);
  });
  const std::string values = values_text(step);
  if (step.is_first) return fmt::format("the values that the run starts from have {}", values);
  std::vector<std::string> parts;
  if (!step.loss.empty()) parts.push_back("the loss is " + step.loss);
  for (const Where where : {Where::gradient_norm, Where::value_norm}) {
    if (std::string norms = norms_text(step, where); !norms.empty()) parts.push_back(std::move(norms));
  }
  if (!values.empty()) parts.push_back("the update made " + values);
  if (!step.test_loss.empty()) parts.push_back("the loss of the evaluation after it is " + step.test_loss);
  if (values.empty()) parts.back() += ", though all values are finite after it";
  std::string text = fmt::format("step {}: ", step.step);
  for (std::size_t i = 0; i < parts.size(); ++i) text += (i == 0 ? "" : "; ") + parts[i];
  return text;
}

}  // namespace varscope
