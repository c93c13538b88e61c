// The rows of a table as a server has them, beside a map of rows that the dense rules update.
#include "ps/tables/table_shard.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <random>

#include "tests/support/references/plan_checks.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::make_spec;
using testing::thrown;

using Ids = std::vector<std::uint64_t>;
using Row = std::vector<float>;
using Gradients = std::map<std::uint64_t, Row>;  // of one leaf

constexpr std::uint64_t kLeast = std::uint64_t{1} << 63;  // INT64_MIN
constexpr std::uint64_t kSeed = 11;

VariableSpec table_spec(std::int64_t units, int parts,
                        Initializer initializer = Initializer::uniform(-0.5, 0.5),
                        DType dtype = DType::float32) {
  VariableSpec spec = make_spec("user/embedding", dtype, Shape{0, units}, std::move(initializer));
  spec.table = TableSpec{IdType::int64, parts};
  return spec;
}

OptimizerConfig rule(OptimizerType type, double weight_decay = 0) {
  OptimizerConfig config;
  config.type = type;
  config.learning_rate = 0.25;
  config.initial_accumulator = 0.125;
  config.weight_decay = weight_decay;
  return config;
}

// A table on S servers. One shard each.
class Table {
 public:
  Table(const VariableSpec& spec, const OptimizerConfig& config, int n_servers = 1)
      : variables_({spec}), plan_(RowPlan::make(variables_, n_servers)), optimizer_(config) {
    for (int s = 0; s < n_servers; ++s) {
      shards_.push_back(std::make_unique<TableShard>(
          TableShard::Parts{variables_[0], table(), ServerId(s), optimizer_, kSeed}));
    }
  }
  const RowPlan::Table& table() const { return plan_[TableId(0)]; }
  const VariableSpec& spec() const { return variables_[0]; }
  const Optimizer& optimizer() const { return optimizer_; }
  TableShard& shard(int s = 0) { return *shards_[static_cast<std::size_t>(s)]; }
  int n_shards() const { return static_cast<int>(shards_.size()); }

  // What `nodes` contribute, each shard getting what is its own. Half of the ids that are asked for are not
  // pushed.
  void apply(std::int64_t clock, const std::vector<Gradients>& contributions, const ReductionTree& tree) {
    apply(UpdateStep::whole(Clock(clock)), contributions, tree);
  }
  void apply(const UpdateStep& step, const std::vector<Gradients>& contributions, const ReductionTree& tree,
             double scale = 1) {
    for (int s = 0; s < n_shards(); ++s) {
      std::vector<Ids> ids;
      std::vector<std::vector<std::uint32_t>> positions;
      std::vector<Row> gradients;
      for (const Gradients& g : contributions) {
        ids.push_back(ids_of(g, s));
        positions.emplace_back();
        gradients.emplace_back();
        for (std::uint32_t i = 0; i < ids.back().size(); ++i) {
          const auto found = g.find(ids.back()[i]);
          if (found == g.end()) continue;
          positions.back().push_back(i);
          gradients.back().insert(gradients.back().end(), found->second.begin(), found->second.end());
        }
      }
      std::vector<TableShard::Contribution> all;
      for (std::size_t i = 0; i < ids.size(); ++i)
        all.push_back({ids[i], positions[i], reinterpret_cast<const std::byte*>(gradients[i].data())});
      const auto before = gradients;
      shard(s).apply(step, all, tree, scale);
      EXPECT_EQ(gradients, before);
    }
  }
  Row read(const Ids& ids) {
    Row values(ids.size() * static_cast<std::size_t>(table().units));
    for (std::size_t i = 0; i < ids.size(); ++i)
      read_one(ids[i], &values[i * static_cast<std::size_t>(table().units)]);
    return values;
  }
  std::map<std::int64_t, Digest> hashes() {
    HashReport report;
    for (const auto& s : shards_) s->add_hashes(report);
    std::map<std::int64_t, Digest> all;
    for (const auto& e : report.entries) EXPECT_TRUE(all.emplace(e.slice, e.digest).second);
    return all;
  }
  // All rows, by part.
  std::map<int, std::vector<std::byte>> rows() {
    std::map<int, std::vector<std::byte>> all;
    for (const auto& s : shards_) {
      s->cut();
      for (const int part : s->parts()) {
        PartRows read;
        s->read_part(part, TableShard::kAll, read);
        all[part] = std::move(read.rows);
      }
      s->end_cut();
    }
    return all;
  }

 private:
  Ids ids_of(const Gradients& g, int server) const {
    Ids ids;
    for (const auto& [id, gradient] : g) {
      for (const std::uint64_t asked : {id, id ^ 0x5555}) {
        if (table().server_of(asked).value == server) ids.push_back(asked);
      }
    }
    std::ranges::sort(ids, {}, mix_row_id);
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    return ids;
  }
  void read_one(std::uint64_t id, float* to) {
    shard(table().server_of(id).value).read(std::span(&id, 1), Clock(0), reinterpret_cast<std::byte*>(to));
  }

  VariableTable variables_;
  RowPlan plan_;
  Optimizer optimizer_;
  std::vector<std::unique_ptr<TableShard>> shards_;
};

Gradients added(Gradients left, const Gradients& right) {
  for (const auto& [id, g] : right) {
    const auto [found, is_new] = left.emplace(id, g);
    for (std::size_t i = 0; !is_new && i < g.size(); ++i) found->second[i] += g[i];
  }
  return left;
}

// The sum of the leaves below a node: left half plus right half, one that lacks an id left out.
Gradients node_sum(const std::vector<Gradients>& leaves, TreeNode node) {
  if (static_cast<std::size_t>(node.first) >= leaves.size()) return {};
  if (node.level == 0) return leaves[static_cast<std::size_t>(node.first)];
  return added(node_sum(leaves, {node.first, node.level - 1}),
               node_sum(leaves, {node.first + (1 << (node.level - 1)), node.level - 1}));
}
Gradients whole_sum(const std::vector<Gradients>& leaves) { return node_sum(leaves, {0, 8}); }

// Rows in a map, made of the definition; slots and values of one row are dense variables of their own.
class Reference {
 public:
  Reference(const VariableSpec& spec, const OptimizerConfig& config) : spec_(spec), optimizer_(config) {}
  struct Held {
    Row values;
    std::vector<Row> slots;
    std::uint32_t last = 0, count = 0;
  };
  Row first(std::uint64_t id) const {
    Row values(static_cast<std::size_t>(spec_.shape[1]));
    for (std::size_t c = 0; c < values.size(); ++c) {
      spec_.initializer.fill(TensorView(DType::float32, Shape{1}, reinterpret_cast<std::byte*>(&values[c])),
                             kSeed, spec_.name, static_cast<std::int64_t>(id * values.size() + c));
    }
    return values;
  }
  void step(std::int64_t clock, const Gradients& sum) { step(UpdateStep::whole(Clock(clock)), sum); }
  void step(const UpdateStep& step, const Gradients& sum) {
    for (auto [id, g] : sum) {
      const auto [found, is_new] = rows_.emplace(id, Held{});
      Held& row = found->second;
      if (is_new) row.values = first(id);
      const auto n = static_cast<std::int64_t>(row.values.size());
      auto* const value = reinterpret_cast<std::byte*>(row.values.data());
      if (is_new) {
        for (const Slot& s : optimizer_.row_slots())
          row.slots.emplace_back(s.is_per_row ? 1 : row.values.size());
        optimizer_.start_row_slots(DType::float32, value, memory_of(row), n);
      }
      auto* const gradient = reinterpret_cast<std::byte*>(g.data());
      if (std::ranges::any_of(optimizer_.row_slots(), &Slot::is_per_row)) {
        optimizer_.update_row(DType::float32, value, gradient, memory_of(row), n, step, row.count + 1);
      } else {
        optimizer_.update(DType::float32, value, gradient, memory_of(row), n, step);
      }
      row.last = static_cast<std::uint32_t>(step.clock.value);
      ++row.count;
    }
  }
  const std::map<std::uint64_t, Held>& rows() const { return rows_; }
  // Their records, one behind the other, of one part or of all.
  std::vector<std::byte> records(const RowPlan::Table& table, const RowLayout& layout, int part) const {
    Ids ids;
    for (const auto& [id, row] : rows_) {
      if (table.part_of(id) == part) ids.push_back(id);
    }
    std::ranges::sort(ids, {}, mix_row_id);
    std::vector<std::byte> all(ids.size() * layout.row_bytes());
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const Held& row = rows_.at(ids[i]);
      std::byte* const to = all.data() + i * layout.row_bytes();
      RowLayout::set_id(to, ids[i]);
      RowLayout::set_last(to, row.last);
      RowLayout::set_count(to, row.count);
      std::memcpy(to + RowLayout::kValuesAt, row.values.data(), layout.value_bytes());
      for (std::size_t s = 0; s < row.slots.size(); ++s)
        std::memcpy(to + layout.slot_at(s), row.slots[s].data(), layout.slot_bytes(s));
    }
    return all;
  }

 private:
  static std::vector<std::byte*> memory_of(Held& row) {
    std::vector<std::byte*> slots;
    for (Row& s : row.slots) slots.push_back(reinterpret_cast<std::byte*>(s.data()));
    return slots;
  }
  VariableSpec spec_;
  Optimizer optimizer_;
  std::map<std::uint64_t, Held> rows_;
};

// Gradients of one leaf: some rows of few ids, among them the extreme ones, of very different sizes, so that
// the order of a sum shows in its bits.
Gradients some_gradients(std::mt19937& random, std::int64_t units) {
  const Ids extremes = {kLeast, ~std::uint64_t{1}, ~std::uint64_t{0}, 0, kLeast - 1};
  Gradients leaf;
  const std::size_t n = random() % 40;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t at = random() % 60;
    Row& row = leaf[at < extremes.size() ? extremes[at] : at % 2 == 0 ? at << 32 : at];
    row.clear();
    for (std::int64_t c = 0; c < units; ++c) {
      row.push_back(
          std::ldexp(static_cast<float>(random() % 2'001) - 1'000.0F, static_cast<int>(random() % 24) - 24));
    }
  }
  return leaf;
}

void expect_equal(Table& table, const Reference& expected) {
  const auto rows = table.rows();
  std::int64_t n_rows = 0;
  for (int part = 0; part < table.table().spec.parts; ++part) {
    const auto records = expected.records(table.table(), table.shard().layout(), part);
    const auto found = rows.find(part);
    ASSERT_EQ(found == rows.end() ? std::vector<std::byte>() : found->second, records) << part;
  }
  for (int s = 0; s < table.n_shards(); ++s) n_rows += table.shard(s).n_rows();
  EXPECT_EQ(n_rows, static_cast<std::int64_t>(expected.rows().size()));
  for (const auto& [id, row] : expected.rows()) ASSERT_EQ(table.read({id}), row.values) << id;
}

void expect_true_hashes(Table& table, const Reference& expected) {
  std::map<std::int64_t, RowHashSum> sums;
  for (const auto& [id, row] : expected.rows())
    sums[table.table().part_of(id)].add(id, std::as_bytes(std::span(row.values)));
  const auto hashes = table.hashes();
  ASSERT_EQ(hashes.size(), sums.size());
  for (const auto& [part, sum] : sums) EXPECT_EQ(hashes.at(part), sum.digest());
}

// The leaves of each worker, for each way to divide V of them among workers.
std::vector<std::vector<LeafRange>> all_splits(int n_leaves) {
  std::vector<std::vector<LeafRange>> all;
  for (int cuts = 0; cuts < 1 << (n_leaves - 1); ++cuts) {
    std::vector<LeafRange> split;
    int begin = 0;
    for (int leaf = 1; leaf <= n_leaves; ++leaf) {
      if (leaf < n_leaves && (cuts >> (leaf - 1)) % 2 == 0) continue;
      split.push_back({begin, leaf});
      begin = leaf;
    }
    all.push_back(split);
  }
  return all;
}

std::vector<TreeNode> nodes_of(const std::vector<LeafRange>& split, int n_leaves) {
  std::vector<TreeNode> nodes;
  for (const LeafRange& worker : split) {
    for (const TreeNode& node : maximal_nodes(worker, n_leaves)) nodes.push_back(node);
  }
  return nodes;
}

// Steps over all splits and one to three servers, against the reference.
void expect_rows_of_rule(const OptimizerConfig& config, std::int64_t units) {
  const VariableSpec spec = table_spec(units, 8);
  for (const int n_leaves : {1, 2, 3, 4, 6}) {
    Reference expected(spec, config);
    std::vector<std::vector<Gradients>> steps(4);
    std::mt19937 random(static_cast<unsigned>(n_leaves));
    for (std::size_t t = 0; t < steps.size(); ++t) {
      for (int leaf = 0; leaf < n_leaves; ++leaf) steps[t].push_back(some_gradients(random, units));
      expected.step(static_cast<std::int64_t>(t) + 1, whole_sum(steps[t]));
    }
    for (const auto& split : all_splits(n_leaves)) {
      const std::vector<TreeNode> nodes = nodes_of(split, n_leaves);
      const ReductionTree tree(nodes, n_leaves);
      Table table(spec, config, 1 + static_cast<int>(split.size()) % 3);
      for (std::size_t t = 0; t < steps.size(); ++t) {
        std::vector<Gradients> contributions;
        for (const TreeNode& node : nodes) contributions.push_back(node_sum(steps[t], node));
        table.apply(static_cast<std::int64_t>(t) + 1, contributions, tree);
      }
      expect_equal(table, expected);
      expect_true_hashes(table, expected);
    }
  }
}

TEST(TableShard, RowsOfSgd) { expect_rows_of_rule(rule(OptimizerType::sgd), 5); }
TEST(TableShard, RowsOfAdagrad) { expect_rows_of_rule(rule(OptimizerType::adagrad), 16); }
TEST(TableShard, RowsOfAdagradWithWeightDecay) { expect_rows_of_rule(rule(OptimizerType::adagrad, 0.5), 3); }
TEST(TableShard, RowsOfRowwiseAdagrad) { expect_rows_of_rule(rule(OptimizerType::rowwise_adagrad), 9); }
TEST(TableShard, RowsOfFtrl) { expect_rows_of_rule(rule(OptimizerType::ftrl), 1); }
TEST(TableShard, RowsOfMomentumStayWhenTheyAreAbsent) {
  expect_rows_of_rule(rule(OptimizerType::momentum), 4);
}

// Leaves as pushes of their own, several of a step, on one to three servers.
void expect_rows_of_pushes(const OptimizerConfig& config, std::int64_t units) {
  const VariableSpec spec = table_spec(units, 8);
  const ReductionTree one({{0, 0}}, 1);
  for (const int n_servers : {1, 2, 3}) {
    Table table(spec, config, n_servers);
    Reference expected(spec, config);
    std::mt19937 random(7);
    double applied = 0;
    for (std::int64_t clock : {1, 1, 1, 2, 2, 2, 2, 5, 6, 6}) {
      const double share = static_cast<double>(1 + random() % 8) / 8;
      const UpdateStep push{Clock(clock), share, applied += share, 0.75, true};
      const Gradients g = some_gradients(random, units);
      table.apply(push, {g}, one);
      expected.step(push, g);
    }
    expect_equal(table, expected);
    expect_true_hashes(table, expected);
  }
}

TEST(TableShard, RowsOfPushesThatAreSharesOfAStep) {
  for (const double weight_decay : {0.0, 0.5}) {
    expect_rows_of_pushes(rule(OptimizerType::sgd, weight_decay), 5);
    expect_rows_of_pushes(rule(OptimizerType::momentum, weight_decay), 4);
    expect_rows_of_pushes(rule(OptimizerType::adagrad, weight_decay), 16);
    expect_rows_of_pushes(rule(OptimizerType::rowwise_adagrad, weight_decay), 9);
    expect_rows_of_pushes(rule(OptimizerType::ftrl, weight_decay), 1);
    OptimizerConfig adam = rule(OptimizerType::adam, weight_decay);
    adam.correction = Correction::clock;  // what Reference updates dense variables by
    expect_rows_of_pushes(adam, 3);
  }
}

// What norms multiply a gradient by comes before what a share does.
TEST(TableShard, APushIsScaledByItsNormAndByItsShare) {
  const OptimizerConfig config = rule(OptimizerType::adagrad);
  Table table(table_spec(1, 1, Initializer::constant(1)), config);
  table.apply({Clock(1), 0.25, 0.25, 1, true}, {{{7, Row{4}}}}, ReductionTree({{0, 0}}, 1), 0.5);
  EXPECT_FLOAT_EQ(table.read({7})[0], 1 - 0.25F * 0.25F * 2 / std::sqrt(0.125F + 0.25F * 4));
}

TEST(TableShard, APushThatIsAWholeStepHasTheBitsOfTheStep) {
  for (const OptimizerType type : {OptimizerType::adagrad, OptimizerType::adam, OptimizerType::ftrl}) {
    Table steps(table_spec(5, 4), rule(type)), pushes(table_spec(5, 4), rule(type));
    std::mt19937 random(3);
    for (int t = 1; t <= 6; ++t) {
      const Gradients g = some_gradients(random, 5);
      steps.apply(t, {g}, ReductionTree({{0, 0}}, 1));
      pushes.apply({Clock(t), 1, static_cast<double>(t), 1, true}, {g}, ReductionTree({{0, 0}}, 1));
    }
    EXPECT_EQ(steps.rows(), pushes.rows()) << to_string(type);
  }
}

// Seven leaves of many, few of whom have an id: who has it meets wherever the tree says.
TEST(TableShard, ManyContributionsOfFewWhoHaveAnId) {
  const VariableSpec spec = table_spec(2, 1);
  for (const int n_leaves : {33, 64, 100}) {
    std::vector<LeafRange> split;
    for (int leaf = 0; leaf < n_leaves; ++leaf) split.push_back({leaf, leaf + 1});
    const ReductionTree tree(nodes_of(split, n_leaves), n_leaves);
    Table table(spec, rule(OptimizerType::sgd));
    Reference expected(spec, rule(OptimizerType::sgd));
    std::mt19937 random(3);
    for (int t = 1; t <= 3; ++t) {
      std::vector<Gradients> leaves;
      for (int leaf = 0; leaf < n_leaves; ++leaf)
        leaves.push_back(random() % 3 == 0 ? some_gradients(random, 2) : Gradients());
      table.apply(t, leaves, tree);
      expected.step(t, whole_sum(leaves));
    }
    expect_equal(table, expected);
  }
}

TEST(TableShard, DoublesAndLongRows) {
  const std::int64_t units = 65'536;
  Table table(table_spec(units, 2, Initializer::constant(1), DType::float64), rule(OptimizerType::adagrad));
  const std::vector<double> gradient(static_cast<std::size_t>(units), 2);
  const Ids ids = {unmix_row_id(1), unmix_row_id(2), unmix_row_id(kLeast)};
  const std::vector<std::uint32_t> positions = {0, 2};
  const std::vector<double> two = [&] {
    auto g = gradient;
    g.insert(g.end(), gradient.begin(), gradient.end());
    return g;
  }();
  const std::vector<TableShard::Contribution> contributions = {
      {ids, positions, reinterpret_cast<const std::byte*>(two.data())},
      {ids, positions, reinterpret_cast<const std::byte*>(two.data())}};
  table.shard().apply(UpdateStep::whole(Clock(1)), contributions, ReductionTree({{0, 0}, {1, 0}}, 2));
  EXPECT_EQ(table.shard().n_rows(), 2);
  EXPECT_EQ(table.shard().n_rows(1), 1);
  std::vector<double> values(3 * static_cast<std::size_t>(units));
  table.shard().read(ids, Clock(0), reinterpret_cast<std::byte*>(values.data()));
  const double expected = 1 - 0.25 * 4 / (std::sqrt(0.125 + 16) + table.optimizer().config().epsilon);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bool is_absent = i / static_cast<std::size_t>(units) == 1;
    ASSERT_EQ(values[i], is_absent ? 1 : expected) << i;
  }
}

TEST(TableShard, ReadingMakesNothing) {
  const VariableSpec spec = table_spec(3, 4);
  Table table(spec, rule(OptimizerType::sgd));
  const Reference reference(spec, rule(OptimizerType::sgd));
  const std::int64_t bytes = table.shard().n_bytes();
  Ids ids;
  for (std::uint64_t id = 0; id < 100; ++id) ids.push_back(id * 0x9e3779b97f4a7c15U);
  std::ranges::sort(ids, {}, mix_row_id);
  Row values(ids.size() * 3);
  table.shard().read(ids, Clock(0), reinterpret_cast<std::byte*>(values.data()));
  for (std::size_t i = 0; i < ids.size(); ++i)
    EXPECT_EQ(Row(&values[3 * i], &values[3 * i] + 3), reference.first(ids[i]));
  table.shard().read({}, Clock(0), nullptr);
  EXPECT_EQ(table.shard().n_rows(), 0);
  EXPECT_EQ(table.shard().n_bytes(), bytes);
  EXPECT_TRUE(table.hashes().empty());
}

TEST(TableShard, NothingInAStep) {
  Table table(table_spec(3, 4), rule(OptimizerType::sgd));
  table.apply(1, {{}, {}}, ReductionTree({{0, 0}, {1, 0}}, 2));
  EXPECT_EQ(table.shard().n_rows(), 0);
  EXPECT_EQ(table.shard().clock(), Clock(1));
}

TEST(TableShard, WhatIsNotTrainedIsNeverMade) {
  VariableSpec spec = table_spec(3, 4);
  spec.trainable = false;
  Table table(spec, rule(OptimizerType::adagrad));
  EXPECT_TRUE(table.shard().layout().slots().empty());
  table.apply(1, {{{7, Row{1, 2, 3}}}}, ReductionTree({{0, 0}}, 1));
  EXPECT_EQ(table.shard().n_rows(), 0);
  EXPECT_EQ(table.shard().clock(), Clock(1));
}

TEST(TableShard, ClipsByValueAfterTheSumAndKeepsValuesFromBelowZero) {
  VariableSpec spec = table_spec(2, 4, Initializer::constant(1));
  spec.constraint = Constraint::non_neg();
  OptimizerConfig config = rule(OptimizerType::sgd);
  config.learning_rate = 1;
  config.clip = {ClipType::value, 2};
  Table table(spec, config);
  table.apply(1, {{{7, Row{3, 0.25F}}}, {{7, Row{-3, 0.25F}}}}, ReductionTree({{0, 0}, {1, 0}}, 2));
  EXPECT_EQ(table.read({7}), (Row{1, 0.5F}));
  table.apply(2, {{{7, Row{3, 0}}}, {{7, Row{0, 3}}}}, ReductionTree({{0, 0}, {1, 0}}, 2));
  EXPECT_EQ(table.read({7}), (Row{0, 0}));
}

TEST(TableShard, FindsTheFirstThatIsNotFinite) {
  const float inf = std::numeric_limits<float>::infinity();
  Table table(table_spec(3, 4, Initializer::constant(1)), rule(OptimizerType::adagrad));
  const ReductionTree tree({{0, 0}}, 1);
  table.apply(1, {{{7, Row{1, 2, 3}}}}, tree);
  EXPECT_TRUE(table.shard().not_finite().empty());
  table.apply(2, {{{7, Row{1, 2, inf}}}}, tree);
  table.apply(3, {{{8, Row{inf, 2, 3}}}}, tree);
  const auto& found = table.shard().not_finite();
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].variable, "user/embedding");
  EXPECT_EQ(found[0].slot, "");
  EXPECT_EQ(found[0].clock, 2);
  EXPECT_EQ(found[0].row, "7");
  EXPECT_EQ(found[0].element, 2);
  EXPECT_EQ(found[0].what, "nan");
  EXPECT_EQ(found[1].slot, "accumulator");
  EXPECT_EQ(found[1].row, "7");
  EXPECT_EQ(found[1].element, 2);
  EXPECT_EQ(found[1].what, "inf");
}

// The same rows on three servers as on one: records go from one to the others.
TEST(TableShard, RestoresRowsOnOtherServers) {
  const VariableSpec spec = table_spec(4, 8);
  Table table(spec, rule(OptimizerType::adagrad)), other(spec, rule(OptimizerType::adagrad), 3);
  Reference expected(spec, rule(OptimizerType::adagrad));
  std::mt19937 random(4);
  const ReductionTree tree({{0, 0}}, 1);
  const auto step = [&](Table& t, std::int64_t clock, const Gradients& g) { t.apply(clock, {g}, tree); };
  for (int t = 1; t <= 20; ++t) {
    const Gradients g = some_gradients(random, 4);
    step(table, t, g);
    expected.step(t, g);
  }
  const auto rows = table.rows();
  for (int s = 0; s < other.n_shards(); ++s) {
    other.shard(s).set_clock(Clock(20));
    for (const int part : other.shard(s).parts()) other.shard(s).restore(part, rows.at(part));
  }
  EXPECT_EQ(other.hashes(), table.hashes());
  const Gradients g = some_gradients(random, 4);
  step(other, 21, g);
  expected.step(21, g);
  expect_equal(other, expected);
  expect_true_hashes(other, expected);
}

TEST(TableShard, RestoresValuesWithNewSlots) {
  const VariableSpec spec = table_spec(2, 4);
  Table table(spec, rule(OptimizerType::adagrad));
  const Row values = {3, 4};
  table.shard().restore_values(5, reinterpret_cast<const std::byte*>(values.data()));
  EXPECT_EQ(table.read({5}), values);
  table.apply(1, {{{5, Row{1, 0}}}}, ReductionTree({{0, 0}}, 1));
  const double eps = table.optimizer().config().epsilon;
  EXPECT_FLOAT_EQ(table.read({5})[0], static_cast<float>(3 - 0.25 / (std::sqrt(1.125) + eps)));
  const Row bad = {1, std::numeric_limits<float>::quiet_NaN()};
  table.shard().restore_values(6, reinterpret_cast<const std::byte*>(bad.data()));
  ASSERT_EQ(table.shard().not_finite().size(), 1U);
  EXPECT_EQ(table.shard().not_finite()[0].row, "6");
  EXPECT_EQ(table.shard().not_finite()[0].element, 1);
}

TEST(TableShard, SaysWhatCannotBeRestored) {
  Table table(table_spec(1, 2), rule(OptimizerType::sgd));
  const std::uint64_t id = unmix_row_id(3);  // of part 0
  std::vector<std::byte> row(table.shard().layout().row_bytes());
  RowLayout::set_id(row.data(), id);
  const std::string text = id_text(IdType::int64, id);
  EXPECT_EQ(thrown([&] { table.shard().restore(1, row); }),
            "checkpoint: table \"user/embedding\": row " + text +
                " is among those of part 1, but belongs to part 0");
  table.shard().restore(0, row);
  EXPECT_EQ(thrown([&] { table.shard().restore(0, row); }),
            "checkpoint: table \"user/embedding\": row " + text + " is there twice");
  row.pop_back();
  EXPECT_EQ(thrown([&] { table.shard().restore(0, row); }),
            "checkpoint: table \"user/embedding\": part 0 has 23 bytes, but a row has 24");
  EXPECT_EQ(thrown([&] { table.shard().restore(2, {}); }),
            "argument: table \"user/embedding\": part 2 is not on this server");
}

TEST(TableShard, SaysWhatItCannotApply) {
  Table table(table_spec(1, 2), rule(OptimizerType::sgd), 2);
  const ReductionTree tree({{0, 0}}, 1);
  table.apply(2, {{}}, tree);
  EXPECT_EQ(thrown([&] { table.apply(2, {{}}, tree); }),
            "argument: table \"user/embedding\": step 2 cannot be applied after step 2");
  EXPECT_EQ(thrown([&] { table.apply(0xffff'ffff, {{}}, tree); }),
            "argument: table \"user/embedding\": step 4294967295 cannot be applied after step 2");
  const auto push = [&](std::int64_t clock, double share = 0.5) {
    return thrown([&] { table.apply({Clock(clock), share, 1, 1, true}, {{}}, tree); });
  };
  EXPECT_EQ(push(2), "no error");
  EXPECT_EQ(push(2), "no error");
  EXPECT_EQ(push(1), "argument: table \"user/embedding\": a push of step 1 cannot be applied after step 2");
  EXPECT_EQ(push(0xffff'ffff),
            "argument: table \"user/embedding\": a push of step 4294967295 cannot be applied after step 2");
  EXPECT_EQ(
      push(3, 0),
      "argument: a push of step 3 has a share of 0 of it, but must have more than 0 and at most 1: leave "
      "out a push without samples");
  EXPECT_EQ(table.shard().clock(), Clock(2));
  EXPECT_EQ(thrown([&] {
              table.apply(3, {{}, {}}, tree);
            }),
            "protocol: 2 contributions to the rows of a step, but 1 to its sum");
  const int away = table.shard(1).parts().front();
  const std::uint64_t id = unmix_row_id(std::uint64_t(away) << 63);
  float value = 0;
  EXPECT_EQ(
      thrown([&] { table.shard(0).read(std::span(&id, 1), Clock(0), reinterpret_cast<std::byte*>(&value)); }),
      "argument: table \"user/embedding\": part " + std::to_string(away) + " is not on this server");
}

#ifndef VARSCOPE_SANITIZED  // whose memory has no limit
TEST(TableShard, SaysThatThereIsNoMemory) {
  Table table(table_spec(65'536, 1), rule(OptimizerType::sgd));
  const ReductionTree tree({{0, 0}}, 1);
  const std::vector<std::uint32_t> positions = {0};
  const Row gradient(65'536, 1);
  std::uint64_t id = 0;
  const auto push = [&] {
    ++id;
    const TableShard::Contribution one{std::span(&id, 1), positions,
                                       reinterpret_cast<const std::byte*>(gradient.data())};
    table.shard().apply(UpdateStep::whole(Clock(static_cast<std::int64_t>(id))), std::span(&one, 1), tree);
  };
  push();
  std::size_t n_pages = 0;
  std::ifstream("/proc/self/statm") >> n_pages;
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_AS, &before), 0);
  rlimit little = before;
  little.rlim_cur = n_pages * 4'096 + (8 << 20);
  ASSERT_EQ(::setrlimit(RLIMIT_AS, &little), 0);
  const std::string text = thrown([&] {
    for (int i = 0; i < 1'000; ++i) push();
  });
  ::setrlimit(RLIMIT_AS, &before);
  const std::string n = std::to_string(table.shard().n_rows());
  EXPECT_EQ(text.rfind("io: table \"user/embedding\": no memory for another row of 262160 bytes beside " + n +
                           " rows in ",
                       0),
            0U)
      << text;
  EXPECT_NE(text.find(" MiB; use more servers, fewer units, or an optimizer with fewer slots"),
            std::string::npos)
      << text;
  table.read({id - 1});
  push();  // what was there before goes on
  EXPECT_EQ(std::to_string(table.shard().n_rows() - 1), n);
}
#endif

TEST(TableShard, RefusesWhatRowsCannotHave) {
  const auto made = [](const VariableSpec& spec, const OptimizerConfig& config) {
    return thrown([&] { Table(spec, config); });
  };
  const OptimizerConfig sgd = rule(OptimizerType::sgd);
  VariableSpec spec = table_spec(2, 2, Initializer::orthogonal());
  EXPECT_EQ(made(spec, sgd), "argument: table \"user/embedding\": rows cannot begin with " +
                                 spec.initializer.str() + ": use constant, uniform or a normal");
  spec = table_spec(2, 2);
  spec.constraint = Constraint::max_norm(3);
  EXPECT_EQ(made(spec, sgd),
            "argument: table \"user/embedding\": the constraint max_norm(3) needs all of its rows in each "
            "step; use max_norm(3) of each row");
}

void expect_little_memory(OptimizerType type, std::int64_t units) {
  Table table(table_spec(units, TableSpec::kDefaultParts, Initializer::constant(0)), rule(type));
  TableShard& shard = table.shard();
  const RowLayout& layout = shard.layout();
  std::size_t held = layout.value_bytes();
  for (std::size_t i = 0; i < layout.slots().size(); ++i) held += layout.slot_bytes(i);
  const ReductionTree tree({{0, 0}}, 1);
  const std::size_t n = 5'000;
  const Row gradients(n * static_cast<std::size_t>(units));
  std::vector<std::uint32_t> positions(n);
  for (std::uint32_t i = 0; i < n; ++i) positions[i] = i;
  Ids ids(n);
  double worst = 0;
  for (std::int64_t clock = 1; shard.n_rows() < 1'000'000; ++clock) {
    for (std::size_t i = 0; i < n; ++i) ids[i] = static_cast<std::uint64_t>(clock) * n + i;
    std::ranges::sort(ids, {}, mix_row_id);
    const std::vector<TableShard::Contribution> all = {
        {ids, positions, reinterpret_cast<const std::byte*>(gradients.data())}};
    shard.apply(UpdateStep::whole(Clock(clock)), all, tree);
    const auto n_rows = static_cast<std::size_t>(shard.n_rows());
    if (n_rows < 100'000) continue;
    const double beyond =
        static_cast<double>(shard.n_bytes()) / static_cast<double>(n_rows) - static_cast<double>(held);
    worst = std::max(worst, beyond);
    ASSERT_LE(beyond, 40) << n_rows;
  }
  ::testing::Test::RecordProperty("worst", std::to_string(worst));
}

TEST(TableShard, FortyBytesARowBeyondValuesAndSlots) {
  expect_little_memory(OptimizerType::sgd, 16);
  expect_little_memory(OptimizerType::rowwise_adagrad, 16);
  expect_little_memory(OptimizerType::adagrad, 16);
}

TEST(TableShard, ASmallTableIsSmall) {
  Table table(table_spec(16, TableSpec::kDefaultParts), rule(OptimizerType::adagrad));
  const std::int64_t empty = table.shard().n_bytes();
  EXPECT_LE(empty, 96 << 10);
  table.apply(1, {{{1, Row(16)}}}, ReductionTree({{0, 0}}, 1));
  EXPECT_LE(table.shard().n_bytes() - empty, 8 << 10);
}

}  // namespace
}  // namespace varscope
