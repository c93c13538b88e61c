#include "common/variables/constraint.h"

#include <fmt/format.h>

namespace varscope {

Constraint Constraint::of_rows() const {
  Constraint c = *this;
  if (kind == Kind::max_norm) c.kind = Kind::row_max_norm;
  if (kind == Kind::unit_norm) c.kind = Kind::row_unit_norm;
  return c;
}

double Constraint::scale(double norm) const {
  if (!(norm > 0)) return 1;
  if (kind == Kind::unit_norm || kind == Kind::row_unit_norm) return 1 / norm;
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
    case Kind::row_max_norm:
      return fmt::format("max_norm({}) of each row", limit);
    case Kind::row_unit_norm:
      return "unit_norm of each row";
  }
  return "?";
}

}  // namespace varscope
