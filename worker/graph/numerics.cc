#include "worker/graph/numerics.h"

#include <cmath>

namespace varscope {
namespace {

// -ffinite-math is off, but a comparison vectorises where isfinite() may not.
template <class T>
std::optional<NotFinite> find_in(std::span<const T> values) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const T v = values[i];
    if (v - v == T(0)) continue;
    const char* what = std::isnan(v) ? "nan" : v > T(0) ? "inf" : "-inf";
    return NotFinite{static_cast<std::int64_t>(i), what};
  }
  return std::nullopt;
}

}  // namespace

std::optional<NotFinite> find_not_finite(const TensorView& view) {
  if (view.empty()) return std::nullopt;
  if (view.dtype() == DType::float32) return find_in<float>(view.as<float>());
  if (view.dtype() == DType::float64) return find_in<double>(view.as<double>());
  return std::nullopt;
}

std::string node_text(const Graph::Node& node) {
  const char* kind = node.kind == Graph::Kind::placeholder ? "placeholder"
                     : node.kind == Graph::Kind::variable  ? "variable"
                                                           : node.op->type();
  return fmt::format("node \"{}\" ({}{}{})", node.name, kind, node.made_at.empty() ? "" : ", ", node.made_at);
}

}  // namespace varscope
