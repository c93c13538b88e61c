#include "launch/commands/gradcheck.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "common/base/error.h"
#include "common/base/figures.h"
#include "common/base/hash.h"
#include "common/base/philox.h"
#include "launch/job/job_setup.h"
#include "launch/job/loaded_model.h"
#include "worker/train/evaluator.h"

namespace varscope {
namespace {

// The first samples of the training data.
Batch first_samples(const JobConfig& job, const Dataset& data, std::int64_t n) {
  Batch batch(data.spec(), job.model.dtype, n);
  std::vector<std::int64_t> indices(static_cast<std::size_t>(n));
  std::iota(indices.begin(), indices.end(), 0);
  data.read_weighted(indices, batch.view(n));
  return batch;
}

class Checker {
 public:
  Checker(LoadedModel& loaded, const BatchView& batch, std::uint64_t seed)
      : model_(loaded.model()), session_(loaded.session()), feeds_(model_.feeds(batch)) {
    session_.set_run({seed, 1, 0, 1});
    leave_kinks(seed);
    gradients_ = session_.gradients(model_.loss, feeds_);
    loss_ = loss();
  }

  // Of the element whose difference is the largest part of what it is allowed.
  struct Result {
    double part = -1;  // difference / allowance
    double difference = 0, allowance = 0;
    std::int64_t element = 0;
    double analytic = 0, numeric = 0;
    std::int64_t tried = 0;
    bool fits() const { return part <= 1; }
  };
  Result check(const Variable& v, std::int64_t n_elements, double tolerance, std::uint64_t seed) {
    const std::vector<double*> values = numbers_of(v);
    const auto gradient = gradients_.at(v.name()).as<double>();
    double scale = 0;  // differences far below the variable's largest gradient are rounding
    for (const double g : gradient) {
      if (std::isfinite(g)) scale = std::max(scale, std::abs(g));
    }
    const RandomStream draw(seed, RandomPurpose::test, hash64(v.name()));
    std::vector<std::size_t> not_zero;  // most rows of an embedding do not occur in a batch
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      if (gradient[i] != 0) not_zero.push_back(i);
    }
    Result result;
    const std::int64_t n_all = std::ssize(values);
    result.tried = std::min(n_elements, n_all);
    for (std::int64_t i = 0; i < result.tried; ++i) {
      const bool all = result.tried == n_all;
      const auto at = static_cast<std::uint64_t>(i);
      std::size_t e = all ? static_cast<std::size_t>(i) : draw.below(at, values.size());
      if (!all && i % 2 == 0 && !not_zero.empty()) e = not_zero[draw.below(at, not_zero.size())];
      Result best = compare(*values[e], static_cast<std::int64_t>(e), gradient[e], scale, tolerance);
      best.tried = result.tried;
      if (best.part >= result.part) result = best;
    }
    return result;
  }

 private:
  // All that a variable has; of a table, of the rows that the samples look up.
  std::vector<double*> numbers_of(const Variable& v) {
    std::vector<double*> all;
    const auto add = [&all](const TensorView& values) {
      for (double& value : values.as<double>()) all.push_back(&value);
    };
    if (!v.spec().is_table()) {
      add(session_.value(v));
      return all;
    }
    for (const std::uint64_t id : session_.ids(v)) add(session_.memory().row(v, id));
    return all;
  }
  Result compare(double& value, std::int64_t e, double gradient, double scale, double tolerance) {
    Result best{HUGE_VAL, HUGE_VAL, 0, e, gradient, std::numeric_limits<double>::quiet_NaN(), 0};
    // A kink (relu, max) within the step spoils a difference; a smaller step may not meet it.
    for (const double step : {1e-4, 1e-5, 1e-6, 1e-7}) {
      const double d = difference(value, step);
      // What rounding of the two losses may do to the difference.
      const double noise =
          16 * std::numeric_limits<double>::epsilon() * std::max(1.0, std::abs(loss_)) / step;
      const double allowance =
          noise + tolerance * std::max({std::abs(d), std::abs(gradient), scale * 1e-3, 1e-8});
      const double off = std::abs(d - gradient);
      if (!std::isfinite(off)) {
        best.numeric = d;  // never right
      } else if (off / allowance < best.part) {
        best = {off / allowance, off, allowance, e, gradient, d, 0};
      }
    }
    return best;
  }

  // First values often put a relu exactly at 0, where a background meets a zero bias: a little noise moves
  // them off.
  void leave_kinks(std::uint64_t seed) {
    loss();  // reads the rows of tables: which there are
    session_.reset_states();
    for (const Variable* v : model_.graph.variables()) {
      if (!v->trainable() || v->dtype() != DType::float64) continue;
      const RandomStream noise(seed, RandomPurpose::test, hash64("noise of " + v->name()));
      std::uint64_t i = 0;
      for (double* value : numbers_of(*v)) *value += 0.01 * noise.normal(i++);
    }
  }
  double loss() {
    session_.reset_states();
    return session_.run({model_.loss}, feeds_)[0].as<double>()[0];
  }
  double difference(double& value, double step) {
    const double before = value;
    value = before + step;
    const double up = loss();
    value = before - step;
    const double down = loss();
    value = before;
    return (up - down) / (2 * step);
  }

  const Model& model_;
  Session& session_;
  Feeds feeds_;
  std::map<std::string, Tensor, std::less<>> gradients_;
  double loss_ = 0;
};

}  // namespace

int check_gradients(JobConfig job, const GradcheckOptions& options, const LayerRegistry& layers,
                    std::string& out) {
  job.model.dtype = DType::float64;
  job.train.batch = options.samples;  // a text is read as so many sequences
  const auto data = load_dataset(job, job.data.train, DataSplit::train);
  LoadedModel loaded =
      LoadedModel::initial(job, {.mode = GraphMode::train, .data = DataFacts::of(*data), .layers = &layers});
  const std::int64_t n = std::min(options.samples, data->size());
  const Batch batch = first_samples(job, *data, n);
  Checker checker(loaded, batch.view(n), static_cast<std::uint64_t>(job.job.seed));
  bool good = true;
  int n_checked = 0;
  out = fmt::format(
      "{}: gradients of the loss of {} samples, against central differences in float64\n\n"
      "{:<40} {:>8} {:>12} {:>12}\n",
      job.job.name, n, "variable", "elements", "difference", "allowed");
  for (const Variable* v : loaded.model().graph.variables()) {
    if (!v->trainable()) continue;
    if (v->dtype() != DType::float64) {
      fail(ErrorKind::config,
           "variable \"{}\" (made at {}) is {} by its scope's dtype; gradcheck needs float64", v->name(),
           v->made_at(), to_string(v->dtype()));
    }
    const Checker::Result r =
        checker.check(*v, options.elements, options.tolerance, static_cast<std::uint64_t>(job.job.seed));
    ++n_checked;
    good = good && r.fits();
    out += fmt::format("{:<40} {:>8} {:>12} {:>12}{}\n", v->name(), r.tried, short_number(r.difference, 3),
                       short_number(r.allowance, 3),
                       r.fits() ? ""
                                : fmt::format("  WRONG: element {} has {}, differences say {}", r.element,
                                              short_number(r.analytic, 10), short_number(r.numeric, 10)));
  }
  if (n_checked == 0)
    fail(ErrorKind::config, "{}: model.layers: no variable is trained: nothing to check", job.file);
  out += good ? "\nall gradients agree\n"
              : fmt::format("\ngradients differ by more than is allowed: rounding, and {:g} of their size\n",
                            options.tolerance);
  return static_cast<int>(good ? ExitCode::ok : ExitCode::difference);
}

}  // namespace varscope
