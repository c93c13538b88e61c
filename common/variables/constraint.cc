#include "common/variables/constraint.h"

#include <fmt/format.h>

namespace varscope {

double Constraint::scale(double norm) const {
  if (!(norm > 0)) return 1;
  if (kind == Kind::unit_norm) return 1 / norm;
  return norm > limit ? limit / norm : 1;
}

std::string Constraint::str() const {
  switch (kind) {
    case Kind::none:
      return "none";
    case Kind::non_neg:
      return "non_neg";
    case Kind::max_norm:
      return fmt::format("max_norm({})", limit);
    case Kind::unit_norm:
      return "unit_norm";
  }
  return "?";
}

}  // namespace varscope
