// Norms and tables: clipping of gradients by the norms of dense variables and rows together, and rows that
// are held to a norm, over servers, workers and arrival orders.
#include "ps/tables/row_norms.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>

#include "checkpoint/restore/reader.h"
#include "tests/support/jobs/norms_exchange.h"
#include "tests/support/jobs/row_exchange.h"
#include "tests/support/references/canonical_reference.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/references/plan_checks.h"

namespace varscope::testing {
namespace {

using ::testing::HasSubstr;

VariableSpec table_spec(const std::string& name, DType dtype, std::int64_t units, int parts,
                        const Constraint& constraint = {}, bool trainable = true) {
  VariableSpec spec = make_spec(name, dtype, Shape{0, units}, Initializer::normal(0, 1), trainable);
  spec.table = TableSpec{IdType::uint64, parts};
  spec.constraint = constraint;
  return spec;
}

// Dense variables around tables in the order of names; more parts than rows, fewer than servers; one that is
// not trained, and so has no part in a norm.
VariableTable dense_and_tables(const Constraint& of_rows = {}) {
  const Initializer random = Initializer::normal(0, 1);
  return VariableTable({make_spec("large/weights", DType::float32, Shape{600, 401}, random),
                        table_spec("user/table", DType::float32, 16, 256, of_rows),
                        table_spec("item/table", DType::float64, 3, 2, of_rows),
                        make_spec("small/weights", DType::float64, Shape{9, 7}, random),
                        table_spec("wide/table", DType::float32, 1, 64),
                        table_spec("fixed/table", DType::float32, 4, 8, {}, false)});
}

Exchange clipped(ClipType clip, double limit, const VariableTable& variables) {
  Exchange e;
  e.variables = variables;
  e.optimizer.type = OptimizerType::adagrad;
  e.optimizer.learning_rate = 0.05;
  e.optimizer.clip = {clip, limit};
  return e;
}

// A whole dense variable by definition.
class ReferenceDense {
 public:
  ReferenceDense(const Exchange& e, int variable)
      : spec_(e.variables[static_cast<std::size_t>(variable)]),
        variable_(variable),
        optimizer_(e.optimizer),
        value_(spec_.dtype, spec_.shape),
        gradient_(spec_.dtype, spec_.shape) {
    spec_.fill(value_.view(), e.seed, 0);
    for (std::size_t i = 0; i < optimizer_.slots().size(); ++i) slots_.emplace_back(spec_.dtype, spec_.shape);
    optimizer_.start_slots(spec_.dtype, value_.view().bytes(), memory(), value_.n_elements());
  }
  // Of the step's gradient, which it keeps: of each slice.
  std::vector<double> squares(int step, int n_leaves) {
    spec_.dtype == DType::float64 ? fill<double>(step, n_leaves) : fill<float>(step, n_leaves);
    std::vector<double> of_slices;
    for (const Slice& s : slice_variable(spec_.shape, spec_.dtype))
      of_slices.push_back(lane_squares(spec_.dtype, at(gradient_, s), s.n_elements()));
    return of_slices;
  }
  void apply(int step, double factor) {
    if (factor != 1) spec_.dtype == DType::float64 ? scale<double>(factor) : scale<float>(factor);
    optimizer_.update(spec_.dtype, value_.view().bytes(), gradient_.view().bytes(), memory(),
                      value_.n_elements(), UpdateStep::whole(Clock(step)));
  }
  void add_to(ValuesHash& hash) {
    std::int64_t i = 0;
    for (const Slice& s : slice_variable(spec_.shape, spec_.dtype)) {
      const auto n = static_cast<std::size_t>(s.n_elements()) * size_of(spec_.dtype);
      hash.add(spec_.name, i++, digest_of(std::span<const std::byte>(at(value_, s), n)));
    }
  }

 private:
  std::byte* at(Tensor& tensor, const Slice& slice) const {
    return tensor.view().bytes() + static_cast<std::size_t>(slice.linear_begin()) * size_of(spec_.dtype);
  }
  std::vector<std::byte*> memory() {
    std::vector<std::byte*> all;
    for (Tensor& s : slots_) all.push_back(s.view().bytes());
    return all;
  }
  template <class T>
  void fill(int step, int n_leaves) {
    const auto v = value_.as<T>(), g = gradient_.as<T>();
    std::vector<T> leaves(static_cast<std::size_t>(n_leaves));
    for (std::size_t i = 0; i < v.size(); ++i) {
      for (int leaf = 0; leaf < n_leaves; ++leaf)
        leaves[static_cast<std::size_t>(leaf)] =
            synthetic_gradient<T>(variable_, static_cast<std::int64_t>(i), leaf, step, v[i]);
      g[i] = canonical_sum(leaves);
    }
  }
  template <class T>
  void scale(double factor) {
    for (T& x : gradient_.as<T>()) x *= static_cast<T>(factor);
  }

  const VariableSpec& spec_;
  int variable_;
  Optimizer optimizer_;
  Tensor value_, gradient_;
  std::vector<Tensor> slots_;
};

// The run by definition: sums of squares by (name, slice or part); one norm, or one of each variable. Counts
// the norms that were above their limit.
Digest clipped_reference(const Exchange& e, int n_leaves, int& n_clipped) {
  const RowPlan plan = RowPlan::make(e.variables, 1);
  std::map<std::string, ReferenceDense> dense;
  std::map<std::string, ReferenceTable> tables;
  for (std::size_t v = 0; v < e.variables.size(); ++v) {
    const VariableSpec& spec = e.variables[v];
    if (spec.is_table()) {
      if (spec.trainable) tables.try_emplace(spec.name, e, *plan.of_variable(static_cast<int>(v)));
    } else {
      dense.try_emplace(spec.name, e, static_cast<int>(v));
    }
  }
  const Constraint limit = Constraint::max_norm(e.optimizer.clip.limit);
  for (int step = 1; step <= e.steps; ++step) {
    std::map<std::string, double> squares;  // by norm
    std::map<std::string, ReferenceTable::Sums> rows;
    std::map<std::string, std::vector<double>> terms;  // by variable
    for (auto& [name, of] : dense) terms[name] = of.squares(step, n_leaves);
    for (auto& [name, of] : tables) {
      rows[name] = of.gradients(step, n_leaves);
      terms[name] = of.squares(rows[name]);
    }
    const auto norm_of = [&](const std::string& name) {
      return e.optimizer.clip.type == ClipType::global_norm ? "" : name;
    };
    for (const auto& [name, sums] : terms) {
      for (const double s : sums) squares[norm_of(name)] += s;
    }
    const auto factor = [&](const std::string& name) {
      return e.optimizer.clip.needs_norms() ? reference_scale(limit, squares[norm_of(name)]) : 1;
    };
    for (const auto& [name, sums] : terms) n_clipped += factor(name) != 1;
    for (auto& [name, of] : dense) of.apply(step, factor(name));
    for (auto& [name, of] : tables) of.apply(step, std::move(rows[name]), factor(name));
  }
  ValuesHash hash(e.variables);
  for (auto& [name, of] : dense) of.add_to(hash);
  for (auto& [name, of] : tables) of.add_to(hash);
  return hash.finish();
}

void expect_reference_on_every_cluster(const Exchange& e) {
  for (const int leaves : {1, 4, 6}) {
    int n_clipped = 0;
    const std::string expected = clipped_reference(e, leaves, n_clipped).hex();
    EXPECT_EQ(n_clipped > 0, e.optimizer.clip.needs_norms());
    for (const int servers : {1, 2, 3}) {
      for (int workers = 1; workers <= std::min(leaves, 4); ++workers) {
        SCOPED_TRACE(fmt::format("{} servers, {} workers, {} leaves", servers, workers, leaves));
        const ExchangeResult result = run_over_loopback(e, servers, workers, leaves);
        ASSERT_EQ(result.error, "");
        EXPECT_EQ(result.hash->hex(), expected);
      }
    }
  }
}

TEST(RowNorms, AGlobalNormIsOfDenseVariablesAndRowsTogether) {
  expect_reference_on_every_cluster(clipped(ClipType::global_norm, 100, dense_and_tables()));
}

TEST(RowNorms, ATableIsOneVariable) {
  expect_reference_on_every_cluster(clipped(ClipType::norm, 7, dense_and_tables()));
}

// Nothing else comes of gradients of ids that wait for their rows.
TEST(RowNorms, HaveTheGradientsOfIdsThatWait) {
  std::vector<VariableSpec> all = dense_and_tables(Constraint::max_norm(1.5).of_rows()).variables();
  for (VariableSpec& v : all) {
    if (!v.is_table()) continue;
    v.table->entry = 3;
    v.table->expire_steps = 2;
    v.table->absent = AbsentRows::zeros;
  }
  Exchange e = clipped(ClipType::global_norm, 100, VariableTable(all));
  e.steps = 6;
  expect_reference_on_every_cluster(e);
}

TEST(RowNorms, ClipTablesAlone) {
  const VariableTable all = dense_and_tables();
  expect_reference_on_every_cluster(clipped(ClipType::global_norm, 3, VariableTable({all[1], all[4]})));
}

TEST(RowNorms, RowsAreHeldToANormWithClippingAndWithout) {
  const Constraint largest = Constraint::max_norm(1.5).of_rows(), unit = Constraint::unit_norm().of_rows();
  expect_reference_on_every_cluster(clipped(ClipType::none, 1, dense_and_tables(largest)));
  expect_reference_on_every_cluster(clipped(ClipType::none, 1, dense_and_tables(unit)));
  expect_reference_on_every_cluster(clipped(ClipType::global_norm, 100, dense_and_tables(largest)));
}

TEST(RowNorms, HaveTheSameBitsWhereMessagesAreLate) {
  const Exchange e =
      clipped(ClipType::global_norm, 100, dense_and_tables(Constraint::max_norm(1.5).of_rows()));
  int n_clipped = 0;
  const std::string expected = clipped_reference(e, 4, n_clipped).hex();
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    const ExchangeResult result = run_over_loopback(
        e, 3, 2, 4, {.seed = seed, .max_delay_polls = seed % 2 == 0 ? 3 : 40, .silent_rank = {}});
    ASSERT_EQ(result.error, "");
    EXPECT_EQ(result.hash->hex(), expected) << seed;
  }
}

// Beside variables whose values wait for norms too.
TEST(RowNorms, DoNotDependOnTheClusterBesideDenseConstraints) {
  const VariableTable tables = dense_and_tables(Constraint::unit_norm().of_rows());
  std::vector<VariableSpec> all = constrained_table().variables();
  for (const VariableSpec& v : tables.variables()) {
    if (v.is_table()) all.push_back(v);
  }
  const Exchange e = norms_exchange(ClipType::global_norm, 50, VariableTable(all));
  const ExchangeResult first = run_over_loopback(e, 1, 1, 6);
  ASSERT_EQ(first.error, "");
  for (const auto& [servers, workers] : {std::pair{2, 1}, {1, 3}, {3, 2}, {5, 3}}) {
    const ExchangeResult result = run_over_loopback(e, servers, workers, 6);
    ASSERT_EQ(result.error, "");
    EXPECT_EQ(result.hash->hex(), first.hash->hex()) << servers << " servers, " << workers << " workers";
  }
}

TEST(RowNorms, ALimitThatIsNeverReachedChangesNothing) {
  Exchange e = clipped(ClipType::none, 1, dense_and_tables());
  const ExchangeResult plain = run_over_loopback(e, 2, 2, 4);
  for (const ClipType type : {ClipType::norm, ClipType::global_norm}) {
    e.optimizer.clip = {type, 1e30};
    const ExchangeResult result = run_over_loopback(e, 2, 2, 4);
    ASSERT_EQ(result.error, "");
    EXPECT_EQ(result.hash->hex(), plain.hash->hex());
  }
}

// A checkpoint holds steps that are fully applied, rows too: from any of them another cluster comes to the
// same end.
TEST(RowNorms, ResumeToTheSameBitsFromACutWithinDeferredSteps) {
  const TempDir dir;
  Exchange e = clipped(ClipType::global_norm, 100, dense_and_tables(Constraint::max_norm(1.5).of_rows()));
  e.optimizer.type = OptimizerType::adam;
  e.steps = 6;
  const ExchangeResult whole = run_over_loopback(e, 2, 2, 4);
  e.checkpoint_dir = dir.path();
  e.every_steps = 3;
  const ExchangeResult saving =
      run_over_loopback(e, 3, 2, 4, {.seed = 1, .max_delay_polls = 20, .silent_rank = {}});
  ASSERT_EQ(saving.error, "");
  EXPECT_EQ(saving.hash->hex(), whole.hash->hex());
  e.first = 3;
  e.every_steps = 1000;
  for (const auto& [servers, workers] : {std::pair{1, 3}, {2, 1}}) {
    std::filesystem::rename(dir / step_name(6), dir / fmt::format("aside-{}", servers));
    const ExchangeResult resumed = run_over_loopback(e, servers, workers, 4);
    ASSERT_EQ(resumed.error, "");
    EXPECT_EQ(resumed.hash->hex(), whole.hash->hex()) << servers << " servers";
  }
}

VariableTable beside_huge_rows(const Constraint& constraint) {
  VariableSpec huge = table_spec("huge/table", DType::float64, 7, 4, constraint);
  huge.initializer = Initializer::constant(1e200);
  return VariableTable({make_spec("a/w", DType::float32, Shape{50, 40}, Initializer::normal(0, 1)), huge});
}

TEST(RowNorms, OneThatIsNotFiniteEndsTheJobByTheTablesName) {
  const auto error_of = [](ClipType clip, const Constraint& constraint) {
    Exchange e = clipped(clip, 1, beside_huge_rows(constraint));
    e.optimizer.type = OptimizerType::sgd;
    return run_over_loopback(e, 2, 2, 2).error;
  };
  const auto words = [](const std::string& of) {
    return "not finite: step 1: the norm of the " + of +
           " of huge/table is not finite, though all values are finite after it";
  };
  for (const ClipType clip : {ClipType::norm, ClipType::global_norm})
    EXPECT_THAT(error_of(clip, {}), HasSubstr(words("gradient")));
  EXPECT_THAT(error_of(ClipType::none, Constraint::max_norm(1).of_rows()), HasSubstr(words("values")));
}

TEST(RowNorms, OneThatIsNotFiniteScalesNothing) {
  Exchange e = clipped(ClipType::global_norm, 1, beside_huge_rows({}));
  e.on_nan = OnNan::warn;
  e.steps = 2;  // in the third nobody has a row
  const ExchangeResult result = run_over_loopback(e, 2, 2, 2);
  ASSERT_EQ(result.error, "");
  e.optimizer.clip = {};
  const ExchangeResult plain = run_over_loopback(e, 2, 2, 2);
  ASSERT_EQ(plain.error, "");
  EXPECT_EQ(result.hash->hex(), plain.hash->hex());
}

TEST(RowNorms, AConstrainedRowHasTheNormThatItMayHave) {
  const Constraint largest = Constraint::max_norm(2).of_rows(), unit = Constraint::unit_norm().of_rows();
  const auto constrained = [](const Constraint& rule, std::vector<double> row) {
    EXPECT_TRUE(constrain_row(rule, DType::float64, reinterpret_cast<std::byte*>(row.data()),
                              static_cast<std::int64_t>(row.size())));
    return row;
  };
  EXPECT_EQ(constrained(largest, {0.5, -1, 0}), (std::vector<double>{0.5, -1, 0}));
  EXPECT_EQ(constrained(largest, {6, 0, -8}), (std::vector<double>{6 * 0.2, 0, -8 * 0.2}));
  EXPECT_EQ(constrained(unit, {0.25, 0}), (std::vector<double>{1, 0}));
  EXPECT_EQ(constrained(unit, {0, 0}), (std::vector<double>{0, 0}));  // has no direction
  std::array<float, 2> row{std::numeric_limits<float>::infinity(), 3};
  EXPECT_FALSE(constrain_row(unit, DType::float32, reinterpret_cast<std::byte*>(row.data()), 2));
  EXPECT_EQ(row[1], 3);
}

}  // namespace
}  // namespace varscope::testing
