#include "tests/support/jobs/norms_exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "tests/support/references/plan_checks.h"

namespace varscope::testing {
namespace {

VariableSpec part_of(const VariableSpec& whole, int index, int n_parts, Shape offset, Shape shape) {
  VariableSpec v = whole;
  v.name = fmt::format("{}/part_{}", whole.name, index);
  v.part = {whole.name, whole.shape, std::move(offset), index, n_parts};
  v.shape = std::move(shape);
  return v;
}

}  // namespace

VariableSpec with_constraint(VariableSpec v, const Constraint& constraint) {
  v.constraint = constraint;
  return v;
}

VariableTable constrained_table() {
  const Initializer random = Initializer::normal(0, 1);
  std::vector<VariableSpec> all = {
      with_constraint(make_spec("large/weights", DType::float32, Shape{600, 401}, random),
                      Constraint::max_norm(20)),
      with_constraint(make_spec("large/biases", DType::float32, Shape{401}, random), Constraint::non_neg()),
      with_constraint(make_spec("small/weights", DType::float32, Shape{9, 3, 7}, random),
                      Constraint::unit_norm()),
      with_constraint(make_spec("small/frozen", DType::float32, Shape{13}, random, false),
                      Constraint::max_norm(0.1)),
      with_constraint(make_spec("double/weights", DType::float64, Shape{5000}, random),
                      Constraint::max_norm(10)),
      with_constraint(make_spec("wide/weights", DType::float32, Shape{3, 9000}, random),
                      Constraint::max_norm(0.5)),
      make_spec("free/weights", DType::float64, Shape{40, 30}, random),
      with_constraint(make_spec("scale", DType::float32, Shape{}, Initializer::constant(-3)),
                      Constraint::unit_norm())};
  const VariableSpec split = with_constraint(
      make_spec("split/weights", DType::float32, Shape{150, 20}, random), Constraint::max_norm(2));
  all.push_back(part_of(split, 0, 2, Shape{0, 0}, Shape{80, 20}));
  all.push_back(part_of(split, 1, 2, Shape{80, 0}, Shape{70, 20}));
  all.push_back(with_constraint(make_spec("table/embeddings", DType::float32, Shape{700, 33}, random),
                                Constraint::max_norm(4).of_rows()));
  all.push_back(with_constraint(make_spec("long/rows", DType::float64, Shape{3, 7000}, random),
                                Constraint::unit_norm().of_rows()));
  const VariableSpec cut = with_constraint(make_spec("cut/table", DType::float32, Shape{90, 50}, random),
                                           Constraint::max_norm(5).of_rows());
  all.push_back(part_of(cut, 0, 3, Shape{0, 0}, Shape{90, 30}));
  all.push_back(part_of(cut, 1, 3, Shape{0, 30}, Shape{90, 19}));
  all.push_back(part_of(cut, 2, 3, Shape{0, 49}, Shape{90, 1}));
  VariableSpec mean = make_spec("large/mean", DType::float32, Shape{401}, random, false);
  mean.average_decay = 0.9;
  all.push_back(mean);
  return VariableTable(std::move(all));
}

VariableTable without_constraints(const VariableTable& table) {
  std::vector<VariableSpec> all = table.variables();
  for (VariableSpec& v : all) v.constraint = {};
  return VariableTable(std::move(all));
}

Exchange norms_exchange(ClipType clip, double limit, const VariableTable& variables) {
  Exchange e;
  e.variables = variables;
  e.optimizer.type = OptimizerType::momentum;
  e.optimizer.learning_rate = 0.05;
  e.optimizer.weight_decay = 0.01;
  e.optimizer.clip = {clip, limit};
  e.steps = 3;
  return e;
}

NormsReference::NormsReference(const Exchange& e, int n_leaves) : e_(e), n_leaves_(n_leaves) {
  for (const VariableSpec& v : e.variables.variables()) {
    Tensor start(v.dtype, v.shape);
    v.fill(start.view(), e.seed, 0);
    values_.emplace_back();
    for (std::int64_t i = 0; i < start.n_elements(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      values_.back().push_back(v.dtype == DType::float64 ? start.as<double>()[at]
                                                         : static_cast<double>(start.as<float>()[at]));
    }
    momentum_.emplace_back(values_.back().size(), 0.0);
  }
  for (int step = 1; step <= e.steps; ++step) run_step(step);
}

void NormsReference::run_step(int step) {
  std::vector<std::vector<double>> gradients;
  for (std::size_t v = 0; v < values_.size(); ++v) {
    gradients.emplace_back(values_[v].size(), 0.0);
    for (std::size_t i = 0; i < values_[v].size(); ++i) {
      for (int leaf = 0; leaf < n_leaves_; ++leaf) {
        gradients[v][i] += synthetic_gradient<double>(static_cast<int>(v), static_cast<std::int64_t>(i), leaf,
                                                      step, values_[v][i]);
      }
    }
  }
  clip(gradients);
  for (std::size_t v = 0; v < values_.size(); ++v) update(v, gradients[v]);
  constrain();
}

void NormsReference::clip(std::vector<std::vector<double>>& gradients) const {
  const ClipConfig& c = e_.optimizer.clip;
  double all = 0;
  std::map<std::string, double> squares;  // by full name: parts count together
  for (std::size_t v = 0; v < gradients.size(); ++v) {
    if (!spec(v).trainable) continue;
    for (double g : gradients[v]) {
      squares[spec(v).full_name()] += g * g;
      all += g * g;
    }
  }
  for (std::size_t v = 0; v < gradients.size(); ++v) {
    if (!spec(v).trainable) continue;
    const double norm = std::sqrt(c.type == ClipType::global_norm ? all : squares[spec(v).full_name()]);
    for (double& g : gradients[v]) {
      if (c.type == ClipType::value) g = std::min(c.limit, std::max(-c.limit, g));
      if (c.needs_norms()) g *= std::min(1.0, c.limit / norm);
    }
  }
}

void NormsReference::update(std::size_t v, const std::vector<double>& gradient) {
  const OptimizerConfig& o = e_.optimizer;
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    double& x = values_[v][i];
    if (spec(v).is_average()) x = spec(v).average_decay * x + (1 - spec(v).average_decay) * gradient[i];
    if (!spec(v).trainable) continue;
    momentum_[v][i] = o.momentum * momentum_[v][i] + gradient[i] + o.weight_decay * x;
    x -= o.learning_rate * momentum_[v][i];
    if (spec(v).constraint.kind == Constraint::Kind::non_neg) x = std::max(x, 0.0);
  }
}

void NormsReference::constrain() {
  std::map<std::pair<std::string, std::int64_t>, double> squares;
  const auto group = [&](std::size_t v, std::size_t i) {
    const Shape& s = spec(v).shape;
    const std::int64_t last = s.rank() > 1 ? s[s.rank() - 1] : 1;
    const auto at = static_cast<std::int64_t>(i);
    return std::pair(spec(v).full_name(), spec(v).constraint.is_by_row() ? at / last : at % last);
  };
  const auto for_each = [&](auto f) {
    for (std::size_t v = 0; v < values_.size(); ++v) {
      if (!spec(v).trainable || !spec(v).constraint.needs_norms()) continue;
      for (std::size_t i = 0; i < values_[v].size(); ++i) f(v, i);
    }
  };
  for_each([&](std::size_t v, std::size_t i) { squares[group(v, i)] += values_[v][i] * values_[v][i]; });
  for_each([&](std::size_t v, std::size_t i) {
    const double norm = std::sqrt(squares[group(v, i)]);
    const Constraint::Kind kind = spec(v).constraint.kind;
    if (kind == Constraint::Kind::unit_norm || kind == Constraint::Kind::row_unit_norm) values_[v][i] /= norm;
    if (kind == Constraint::Kind::max_norm || kind == Constraint::Kind::row_max_norm)
      values_[v][i] *= std::min(1.0, spec(v).constraint.limit / norm);
  });
}

}  // namespace varscope::testing
