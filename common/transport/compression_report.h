#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace varscope {

// What compression of gradients and values has done, on one worker or on all together: the data of dense
// variables, in bytes without headers, and the squares of norms where gradients lose something that is kept
// back. A value type.
struct CompressionReport {
  std::int64_t up = 0, down = 0;            // gradients that were sent, values that have come
  std::int64_t full_up = 0, full_down = 0;  // the same without compression
  struct Residual {                         // over all slices of a scope that were encoded
    std::string scope;
    double residual = 0, gradient = 0;  // sums of squares: of what is kept back, and of the gradients
    // norm(r) / norm(g); 0 where the gradients are.
    double ratio() const { return gradient > 0 ? std::sqrt(residual / gradient) : 0; }
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
      ar& scope& residual& gradient;
    }
  };
  std::vector<Residual> residuals;  // empty where none were measured; in the order of first mention

  void add(const std::string& scope, double residual, double gradient) {
    auto known = std::ranges::find(residuals, scope, &Residual::scope);
    if (known == residuals.end()) known = residuals.insert(known, {scope, 0, 0});
    known->residual += residual;
    known->gradient += gradient;
  }
  CompressionReport& operator+=(const CompressionReport& o) {
    up += o.up;
    down += o.down;
    full_up += o.full_up;
    full_down += o.full_down;
    for (const Residual& r : o.residuals) add(r.scope, r.residual, r.gradient);
    return *this;
  }
  static double share(std::int64_t part, std::int64_t whole) {
    return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 1;
  }
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& up& down& full_up& full_down& residuals;
  }
};

}  // namespace varscope
