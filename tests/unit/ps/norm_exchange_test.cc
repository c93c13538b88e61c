#include "ps/update/norm_exchange.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "common/placement/cluster.h"
#include "common/transport/loopback_transport.h"
#include "common/transport/wire.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::make_spec;
using testing::thrown;

VariableTable some_table() {
  return VariableTable({make_spec("b/w", DType::float32, Shape{300, 200}),
                        make_spec("a/w", DType::float32, Shape{2, 5000}),
                        make_spec("a/frozen", DType::float32, Shape{5}, Initializer::constant(1), false),
                        make_spec("a/b", DType::float64, Shape{})});
}

TEST(NormPlan, EveryTrainedSliceCountsOnceInOrderOfNames) {
  const VariableTable table = some_table();
  for (int n_servers : {1, 2, 3}) {
    const NormPlan each = NormPlan::of_gradients(table, {ClipType::norm, 1}, n_servers);
    ASSERT_EQ(each.norms().size(), 3U);
    EXPECT_EQ(each.norms()[0].name, "a/b");
    EXPECT_EQ(each.norms()[1].name, "a/w");
    EXPECT_EQ(each.norms()[2].name, "b/w");
    std::size_t n = 0;
    std::int64_t n_sums = 0;
    for (int v : {3, 1, 0}) {
      const VariableSpec& spec = table[static_cast<std::size_t>(v)];
      for (std::size_t i = 0; i < slice_variable(spec.shape, spec.dtype).size(); ++i, ++n) {
        const NormTerm& term = each.terms()[n];
        EXPECT_EQ(std::tuple(term.variable, term.slice), std::tuple(v, static_cast<std::int64_t>(i)));
        EXPECT_EQ(term.server, spec.owner(term.slice, n_servers));
        EXPECT_EQ(each.find(v, term.slice), &term);
      }
    }
    EXPECT_EQ(each.terms().size(), n);
    EXPECT_EQ(each.find(2, 0), nullptr);
    for (int s = 0; s < n_servers; ++s) n_sums += each.n_sums(ServerId(s));
    EXPECT_EQ(n_sums, static_cast<std::int64_t>(n));
    const NormPlan all = NormPlan::of_gradients(table, {ClipType::global_norm, 1}, n_servers);
    EXPECT_EQ(all.norms().size(), 1U);
    EXPECT_EQ(all.terms().size(), n);
  }
}

TEST(NormPlan, FactorsHoldEachNormToTheLimit) {
  const VariableTable table = some_table();
  const NormPlan each = NormPlan::of_gradients(table, {ClipType::norm, 10}, 1);
  const auto name_of = [&](const NormTerm& term) {
    return table[static_cast<std::size_t>(term.variable)].name;
  };
  // a/b has norm 4, a/w 20, b/w 0.
  const NormPlan::SumOf sums = [&](const NormTerm& term, std::int64_t) {
    if (name_of(term) == "a/b") return 16.0;
    return name_of(term) == "a/w" && term.slice == 0 ? 400.0 : 0.0;
  };
  const NormPlan::Factors of_each = each.factors(sums);
  EXPECT_EQ(of_each.of_groups, (std::vector<double>{1, 0.5, 1}));
  EXPECT_FALSE(of_each.bad);
  const NormPlan all = NormPlan::of_gradients(table, {ClipType::global_norm, 10}, 1);
  EXPECT_EQ(all.factors(sums).of_groups, (std::vector<double>{10 / std::sqrt(416.0)}));
}

TEST(NormPlan, ANormThatIsNotFiniteScalesNothingAndIsNamed) {
  const VariableTable table = some_table();
  constexpr double kInf = std::numeric_limits<double>::infinity();
  const NormPlan each = NormPlan::of_gradients(table, {ClipType::norm, 1}, 2);
  const NormPlan::SumOf sums = [](const NormTerm& term, std::int64_t) {
    return term.variable == 1 ? kInf : 4.0;
  };
  const NormPlan::Factors factors = each.factors(sums);
  EXPECT_EQ(factors.of_groups[0], 0.5);
  EXPECT_EQ(factors.of_groups[1], 1);
  ASSERT_TRUE(factors.bad);
  EXPECT_EQ(each.not_finite(table, sums, *factors.bad), (std::map<std::string, double>{{"a/w", kInf}}));
  // Each of them is finite, all together are not.
  const NormPlan all = NormPlan::of_gradients(table, {ClipType::global_norm, 1}, 2);
  const NormPlan::SumOf large = [](const NormTerm&, std::int64_t) { return 1.5e308; };
  const NormPlan::Factors too_large = all.factors(large);
  ASSERT_TRUE(too_large.bad);
  EXPECT_EQ(too_large.of_groups, (std::vector<double>{1}));
  EXPECT_EQ(all.not_finite(table, large, *too_large.bad), (std::map<std::string, double>{{"", kInf}}));
}

TEST(NormPlan, IsEmptyWhereNoNormIsAskedFor) {
  const VariableTable table = some_table();
  EXPECT_TRUE(NormPlan::of_gradients(table, {}, 2).empty());
  EXPECT_TRUE(NormPlan::of_gradients(table, {ClipType::value, 1}, 2).empty());
  EXPECT_TRUE(NormPlan::of_values(table, 2).empty());
  std::vector<VariableSpec> frozen = {table[2]};
  frozen[0].constraint = Constraint::unit_norm();
  EXPECT_TRUE(NormPlan::of_values(VariableTable(frozen), 2).empty());
}

TEST(NormPlan, GroupsAreTheLastAxisOfTheWholeVariable) {
  VariableSpec part = make_spec("w/part_1", DType::float32, Shape{3, 6000});
  part.part = {"w", Shape{3, 7000}, Shape{0, 1000}, 1, 2};
  part.constraint = Constraint::max_norm(1);
  const NormPlan plan = NormPlan::of_values(VariableTable({part}), 2);
  EXPECT_EQ(plan.n_groups(), 7000);
  std::int64_t n = 0;
  for (const NormTerm& term : plan.terms()) {
    EXPECT_GE(term.first_group, 1000);
    EXPECT_LE(term.first_group + term.n_groups, 7000);
    n += term.n_groups;
  }
  EXPECT_EQ(n % 6000, 0);
}

TEST(NormPlan, GroupsOfATableAreItsRows) {
  VariableSpec part = make_spec("t/part_1", DType::float32, Shape{40, 3000});
  part.part = {"t", Shape{100, 3000}, Shape{60, 0}, 1, 2};
  part.constraint = Constraint::max_norm(1).of_rows();
  const NormPlan plan = NormPlan::of_values(VariableTable({part}), 2);
  EXPECT_EQ(plan.n_groups(), 100);
  std::vector<std::int64_t> elements(100);
  for (const NormTerm& term : plan.terms()) {
    for (std::int64_t g = 0; g < term.n_groups; ++g)
      elements.at(static_cast<std::size_t>(term.first_group + g)) += term.row_length;
  }
  for (std::size_t row = 0; row < 100; ++row) EXPECT_EQ(elements[row], row < 60 ? 0 : 3000) << row;
}

// Three ranks: servers 0 and 1, and a worker.
struct Reducing {
  VariableTable table{
      {make_spec("a/w", DType::float32, Shape{300, 200}), make_spec("b/w", DType::float32, Shape{300, 200})}};
  ClusterMap cluster = assign_roles({"a", "a", "a"}, 2, 1);
  NormPlan plan = NormPlan::of_gradients(table, {ClipType::global_norm, 1}, 2);
  LoopbackHub hub{3};
  std::unique_ptr<Transport> t0 = hub.endpoint(Rank(0));
  BucketPlan buckets = BucketPlan::make(table, 2);
  ParameterShard shard{table, buckets, ServerId(0), {}};
  FiniteWatch watch{buckets, shard};
  NormReducer reducer{*t0, cluster, table, plan, kNormsOfGradients, watch};

  Message sums(int server, Clock clock, std::int64_t from, std::int64_t n) const {
    MessageHeader h = make_header(MessageType::norm_sums, server, clock);
    h.sequence = from;
    return {cluster.rank_of(ServerId(server)), h, std::string(static_cast<std::size_t>(n) * 8, '\0')};
  }
};

TEST(NormReducer, TellsWrongSumsApart) {
  const auto error = [](const std::function<void(Reducing&)>& f) {
    Reducing r;
    return thrown([&] { f(r); });
  };
  Reducing r;
  const std::int64_t n0 = r.plan.n_sums(ServerId(0)), n1 = r.plan.n_sums(ServerId(1));
  ASSERT_GT(n0, 1);
  ASSERT_GT(n1, 1);
  EXPECT_EQ(error([&](Reducing& x) { x.reducer.on_sums(x.sums(1, Clock(1), 0, n1)); }), "no error");
  EXPECT_EQ(
      error([&](Reducing& x) { x.reducer.on_sums(x.sums(1, Clock(1), 0, n1 + 1)); }),
      fmt::format("protocol: rank 1 sent {} bytes of sums of squares from place 0, where 0 of {} numbers "
                  "are here",
                  8 * (n1 + 1), n1));
  for (const auto& [from, n] : {std::pair{std::int64_t{1}, n1 - 1}, {std::int64_t{0}, std::int64_t{0}}})
    EXPECT_NE(error([&](Reducing& x) { x.reducer.on_sums(x.sums(1, Clock(1), from, n)); }), "no error");
  EXPECT_EQ(error([&](Reducing& x) {
              Message m = x.sums(1, Clock(1), 0, n1);
              m.from = Rank(2);
              x.reducer.on_sums(m);
            }),
            "protocol: rank 2 sent norms as server 1");
  EXPECT_EQ(error([&](Reducing& x) {
              x.reducer.on_sums(x.sums(1, Clock(4), 0, n1));
              x.reducer.on_sums(x.sums(0, Clock(5), 0, n0));
            }),
            "protocol: server 0 sent norms of step 5, where step 4 is due");
  EXPECT_EQ(error([&](Reducing& x) {
              x.reducer.on_sums(x.sums(1, Clock(4), 0, n1));
              x.reducer.on_sums(x.sums(0, Clock(4), 0, n0));
              x.reducer.on_sums(x.sums(0, Clock(4), 0, n0));
            }),
            "protocol: server 0 sent norms of step 4, where step 5 is due");
  EXPECT_NE(error([&](Reducing& x) {  // all at once, or in pieces, but not twice
              x.reducer.on_sums(x.sums(1, Clock(4), 0, 1));
              x.reducer.on_sums(x.sums(1, Clock(4), 1, n1 - 1));
              x.reducer.on_sums(x.sums(1, Clock(4), 1, 1));
            }),
            "no error");
}

TEST(NormExchange, TakesOnlyTheFactorsThatAreDue) {
  Reducing r;
  NormExchange exchange(*r.t0, r.cluster, r.plan, ServerId(0), kNormsOfGradients);
  Message scales{Rank(0), make_header(MessageType::norm_scales, 0, Clock(3)), std::string(8, '\0')};
  const auto take = [&] { return thrown([&] { exchange.on_scales(scales); }); };
  EXPECT_EQ(take(), "protocol: rank 0 sent server 0 factors of step 3, which are not due");
  exchange.send(Clock(3));
  scales.from = Rank(1);
  EXPECT_EQ(take(), "protocol: rank 1 sent server 0 factors of step 3, which are not due");
  scales.from = Rank(0);
  EXPECT_EQ(take(), "no error");
  EXPECT_EQ(exchange.scales(r.plan.terms()[0])[0], 0);
  EXPECT_NE(take(), "no error");
}

TEST(NormStream, GoesInMessagesOfOneMebibyte) {
  LoopbackHub hub(2);
  const auto t0 = hub.endpoint(Rank(0)), t1 = hub.endpoint(Rank(1));
  std::vector<double> values(300'000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i);
  NormStream::send(*t0, Rank(1), make_header(MessageType::norm_sums, 0, Clock(1)), values);
  NormStream stream(300'000);
  Message message;
  int n = 0;
  bool whole = false;
  while (!whole) {
    ASSERT_TRUE(t1->poll_message(message));
    EXPECT_LE(message.body.size(), std::size_t{1} << 20);
    whole = stream.receive(message);
    ++n;
  }
  EXPECT_EQ(n, 3);
  EXPECT_EQ(stream.values(), values);
}

}  // namespace
}  // namespace varscope
