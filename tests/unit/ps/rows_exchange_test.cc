#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <map>

#include "common/base/serialize.h"
#include "common/transport/wire.h"
#include "ps/row_exchange.h"
#include "tests/support/case_stride.h"
#include "tests/support/jobs/ps_exchange.h"
#include "tests/support/jobs/row_exchange.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/thrown.h"

namespace varscope::testing {
namespace {

using ::testing::HasSubstr;

VariableSpec table_spec(const std::string& name, DType dtype, std::int64_t units, int parts,
                        bool trainable = true) {
  VariableSpec spec = make_spec(name, dtype, Shape{0, units}, Initializer::normal(0, 1), trainable);
  spec.table = TableSpec{IdType::uint64, parts};
  return spec;
}

// Beside dense variables: rows of odd sizes, more parts than rows, fewer parts than servers, one not trained.
Exchange rows_exchange(OptimizerType optimizer = OptimizerType::adagrad) {
  const Initializer random = Initializer::normal(0, 1);
  Exchange e;
  e.variables = VariableTable({make_spec("large/weights", DType::float32, Shape{600, 401}, random),
                               table_spec("user/table", DType::float32, 16, 1024),
                               table_spec("item/table", DType::float64, 3, 2),
                               make_spec("small/weights", DType::float32, Shape{9, 7}, random),
                               table_spec("wide/table", DType::float32, 1, 64),
                               table_spec("fixed/table", DType::float32, 4, 8, false)});
  e.optimizer.type = optimizer;
  e.optimizer.learning_rate = 0.05;
  return e;
}

TEST(RowsExchange, EqualsTheDefinitionOnEveryCluster) {
  const Exchange e = rows_exchange();
  for (const int v : {1, 3, 4, 6}) {
    const Digest expected = reference_hash(e, v);
    for (const int s : {1, 2, 3}) {
      for (int w = 1; w <= std::min(v, 4); ++w) {
        const ExchangeResult result = run_over_loopback(e, s, w, v);
        EXPECT_EQ(result.error, "") << s << " servers, " << w << " workers";
        ASSERT_TRUE(result.hash);
        EXPECT_EQ(result.hash->hex(), expected.hex())
            << s << " servers, " << w << " workers, " << v << " leaves";
      }
    }
  }
}

// Rows that a step does not have stay as they are, whatever the rule.
TEST(RowsExchange, EqualsTheDefinitionForEveryRule) {
  for (const auto& [type, name] : kOptimizerTypes) {
    SCOPED_TRACE(name);
    Exchange e = rows_exchange(type);
    e.steps = 6;
    if (type == OptimizerType::adamw) e.optimizer.correction = Correction::clock;
    if (type != OptimizerType::ftrl) e.optimizer.weight_decay = 0.01;
    const ExchangeResult result = run_over_loopback(e, 2, 2, 4);
    EXPECT_EQ(result.error, "");
    ASSERT_TRUE(result.hash);
    EXPECT_EQ(result.hash->hex(), reference_hash(e, 4).hex());
  }
}

TEST(RowsExchange, TrainsTablesAlone) {
  Exchange e = rows_exchange();
  e.variables = VariableTable({e.variables[1], e.variables[4]});
  e.steps = 8;
  const ExchangeResult result = run_over_loopback(e, 3, 2, 3);
  EXPECT_EQ(result.error, "");
  ASSERT_TRUE(result.hash);
  EXPECT_EQ(result.hash->hex(), reference_hash(e, 3).hex());
}

// Ids that are counted, expire, and leave parts that are full, in parts of different sizes.
Exchange limited_exchange(WhenFull when_full, std::int64_t entry, std::int64_t expire_steps) {
  Exchange e = rows_exchange();
  e.steps = 24;
  std::vector<VariableSpec> all;
  for (std::size_t i = 0; i < e.variables.size(); ++i) {
    all.push_back(e.variables[i]);
    if (!all.back().is_table()) continue;
    TableSpec& spec = *all.back().table;
    spec.entry = entry;
    spec.expire_steps = expire_steps;
    spec.when_full = when_full;
    // The most that a step touches of one part, and a little.
    if (when_full != WhenFull::error)
      spec.max_rows = spec.parts * (spec.parts == 2 ? 120 : spec.parts == 64 ? 10 : 4);
    if (entry > 1) spec.max_waiting = spec.parts * 16;
    spec.absent = entry > 1 ? AbsentRows::zeros : AbsentRows::initial;
  }
  e.variables = VariableTable(std::move(all));
  return e;
}

// What is reported of tables, but for when the memory of what has expired is used again.
std::map<std::string, std::array<std::int64_t, 4>> counts_of(const std::vector<TableReport>& tables) {
  std::map<std::string, std::array<std::int64_t, 4>> counts;
  for (const TableReport& t : tables) counts[t.name] = {t.rows, t.waiting, t.evicted, t.waiting_dropped};
  EXPECT_EQ(counts.size(), 4U);
  EXPECT_GT(counts.at("item/table")[0], 0);
  EXPECT_EQ(counts.at("fixed/table"), (std::array<std::int64_t, 4>{}));
  return counts;
}

void expect_definition_on_clusters(const Exchange& e) {
  std::map<int, std::map<std::string, std::array<std::int64_t, 4>>> counts;  // by leaves
  for (const int v : {3, 4}) {
    const Digest expected = reference_hash(e, v);
    EXPECT_NE(expected, reference_hash(limited_exchange(WhenFull::error, 1, 0), v));
    for (const int s : {1, 2, 3}) {
      for (const int w : {1, 2, 4}) {
        if (w > v) continue;
        const ExchangeResult result = run_over_loopback(e, s, w, v);
        EXPECT_EQ(result.error, "") << s << " servers, " << w << " workers";
        ASSERT_TRUE(result.hash);
        EXPECT_EQ(result.hash->hex(), expected.hex())
            << s << " servers, " << w << " workers, " << v << " leaves";
        ASSERT_TRUE(result.finish);
        const auto same = counts_of(result.finish->tables);
        EXPECT_EQ(same, counts.insert({v, same}).first->second) << s << " servers, " << w << " workers";
      }
    }
  }
}

TEST(RowsExchange, EqualsTheDefinitionWhereIdsAreCounted) {
  expect_definition_on_clusters(limited_exchange(WhenFull::error, 3, 0));
}
TEST(RowsExchange, EqualsTheDefinitionWhereRowsExpire) {
  expect_definition_on_clusters(limited_exchange(WhenFull::error, 1, 2));
  expect_definition_on_clusters(limited_exchange(WhenFull::error, 3, 3));
}
TEST(RowsExchange, EqualsTheDefinitionWhereTheLeastRecentRowsLeave) {
  expect_definition_on_clusters(limited_exchange(WhenFull::lru, 1, 0));
  expect_definition_on_clusters(limited_exchange(WhenFull::lru, 2, 4));
}
TEST(RowsExchange, EqualsTheDefinitionWhereTheLeastFrequentRowsLeave) {
  expect_definition_on_clusters(limited_exchange(WhenFull::lfu, 1, 0));
  expect_definition_on_clusters(limited_exchange(WhenFull::lfu, 2, 4));
}

TEST(RowsExchange, EqualsTheDefinitionWhereMessagesAreLate) {
  const Exchange e = rows_exchange();
  const ExchangeResult result =
      run_over_loopback(e, 2, 3, 4, {.seed = 7, .max_delay_polls = 20, .silent_rank = {}});
  EXPECT_EQ(result.error, "");
  ASSERT_TRUE(result.hash);
  EXPECT_EQ(result.hash->hex(), reference_hash(e, 4).hex());
}

// A server's exchange of one table of four parts, and two workers that are played by the test.
class RowProtocol : public ::testing::Test {
 protected:
  RowProtocol() {
    config_.learning_rate = 0.5;
    optimizer_.emplace(config_);
    shards_ = make_table_shards(variables_, plan_, ServerId(0), *optimizer_, 5);
    server_ = hub_.endpoint(Rank(0));
    workers_.push_back(hub_.endpoint(Rank(2)));
    workers_.push_back(hub_.endpoint(Rank(3)));
    exchange_.emplace(RowExchange::Parts{*server_, cluster_, plan_, shards_, ServerId(0), 0});
    for (std::uint64_t id = 0; ids_.size() < 3; ++id) {
      if (plan_[TableId(0)].server_of(id) == ServerId(0)) ids_.push_back(id);
    }
    std::ranges::sort(ids_, {}, mix_row_id);
  }
  MessageHeader wanted(int worker, std::int64_t clock, std::size_t n) const {
    MessageHeader h = make_header(MessageType::rows_wanted, worker, Clock(clock));
    h.bucket = 0;
    h.n_bytes = n * sizeof(std::uint64_t);
    return h;
  }
  // The worker sends these ids, and the server hears of it.
  void ask(int worker, std::int64_t clock, const std::vector<std::uint64_t>& ids) {
    received_.emplace_back(ids.size() * 16);
    RowCodec(*workers_[static_cast<std::size_t>(worker)], 0)
        .receive(RowFlow::values, Rank(0), TableId(0), 0, received_.back());
    exchange_->on_wanted(WorkerId(worker), wanted(worker, clock, ids.size()));
    RowCodec(*workers_[static_cast<std::size_t>(worker)], 0)
        .send(RowFlow::ids, Rank(0), TableId(0), 0, std::as_bytes(std::span(ids)));
    deliver();
  }
  Message push(int worker, std::int64_t clock, const std::vector<std::uint32_t>& n_rows) const {
    Message m{Rank(2 + worker), make_header(MessageType::rows_push, worker, Clock(clock)), to_binary(n_rows)};
    m.header.bucket = 0;
    m.header.leaf_begin = worker;
    m.header.n_contributions = 1;
    m.header.n_bytes = RowsPushLayout(n_rows, 16, false).n_bytes();
    return m;
  }
  void send_push(int worker, const std::vector<std::uint32_t>& positions) {
    const std::vector<std::uint32_t> n_rows{static_cast<std::uint32_t>(positions.size())};
    const RowsPushLayout layout(n_rows, 16, false);
    std::vector<std::byte> bytes(layout.n_bytes());
    std::memcpy(bytes.data(), positions.data(), positions.size() * sizeof(std::uint32_t));
    apply(exchange_->on_push(WorkerId(worker), push(worker, 1, n_rows)));
    RowCodec(*workers_[static_cast<std::size_t>(worker)], 0)
        .send(RowFlow::gradients, Rank(0), TableId(0), 0, bytes);
    deliver();
  }
  void apply(const std::optional<RowExchange::Whole>& whole) {
    if (whole) exchange_->apply(whole->table);
  }
  void deliver() {
    std::vector<Completion> done;
    server_->poll_completions(done);
    for (const Completion& c : done) apply(exchange_->on_completion(c));
    for (const auto& worker : workers_) worker->poll_completions(done);
  }

  LoopbackHub hub_{4};
  ClusterMap cluster_ = assign_roles({"a", "a", "a", "a"}, 2, 2);
  VariableTable variables_{{table_spec("user/table", DType::float32, 4, 4)}};
  RowPlan plan_ = RowPlan::make(variables_, 2);
  OptimizerConfig config_;
  std::optional<Optimizer> optimizer_;
  TableShards shards_;
  std::unique_ptr<Transport> server_;
  std::vector<std::unique_ptr<Transport>> workers_;
  std::optional<RowExchange> exchange_;
  std::deque<std::vector<std::byte>> received_;
  std::vector<std::uint64_t> ids_;  // of the server, in order
};

TEST_F(RowProtocol, RefusesATableThatItDoesNotHave) {
  MessageHeader h = wanted(0, 0, 1);
  h.bucket = 3;
  EXPECT_THAT(thrown([&] { exchange_->on_wanted(WorkerId(0), h); }),
              HasSubstr("worker 0 sent a request for rows of table 3, of which server 0 has no parts"));
}

TEST_F(RowProtocol, RefusesASecondRequestBeforeTheFirstIsOver) {
  exchange_->on_wanted(WorkerId(0), wanted(0, 0, 3));
  EXPECT_THAT(
      thrown([&] { exchange_->on_wanted(WorkerId(0), wanted(0, 1, 3)); }),
      HasSubstr(
          "worker 0 asked for rows of table \"user/table\" at step 1 before its last request was over"));
}

TEST_F(RowProtocol, RefusesIdsThatAreNotInOrder) {
  std::swap(ids_[0], ids_[1]);
  EXPECT_THAT(thrown([&] { ask(0, 0, ids_); }), HasSubstr("that are not in order"));
}

TEST_F(RowProtocol, RefusesIdsOfAnotherServer) {
  std::uint64_t id = 0;
  while (plan_[TableId(0)].server_of(id) == ServerId(0)) ++id;
  EXPECT_THAT(
      thrown([&] { ask(0, 0, {id}); }),
      HasSubstr(fmt::format("worker 0 asked server 0 for row {} of table \"user/table\", whose part", id)));
}

TEST_F(RowProtocol, RefusesAPushOfRowsThatWereNotAskedFor) {
  EXPECT_THAT(thrown([&] { exchange_->on_push(WorkerId(0), push(0, 1, {1})); }),
              HasSubstr("pushed rows of table \"user/table\" that it has not asked for"));
}

TEST_F(RowProtocol, RefusesAPushOfAnotherStep) {
  ask(0, 0, ids_);
  EXPECT_THAT(thrown([&] { exchange_->on_push(WorkerId(0), push(0, 2, {1})); }),
              HasSubstr("its step is 2, expected 1"));
}

TEST_F(RowProtocol, RefusesMoreRowsThanWereAskedFor) {
  ask(0, 0, ids_);
  EXPECT_THAT(thrown([&] { exchange_->on_push(WorkerId(0), push(0, 1, {4})); }),
              HasSubstr("rows of a contribution is 4, expected at most 3"));
}

TEST_F(RowProtocol, RefusesPositionsThatAreNone) {
  ask(0, 0, ids_);
  ask(1, 0, {});
  send_push(0, {0, 3});
  EXPECT_THAT(
      thrown([&] { send_push(1, {}); }),
      HasSubstr("worker 0 pushed rows of table \"user/table\": position 1 of 2 is 3, of 3 rows asked for"));
}

TEST_F(RowProtocol, AppliesAStepWhenAllPushesAreThereAndAnswersWhatHasWaited) {
  ask(0, 0, ids_);
  ask(1, 0, {});
  send_push(0, {0, 2});
  ask(0, 1, ids_);
  EXPECT_EQ(shards_[TableId(0)]->clock(), Clock(0));
  send_push(1, {});
  deliver();
  EXPECT_EQ(shards_[TableId(0)]->clock(), Clock(1));
  EXPECT_EQ(shards_[TableId(0)]->n_rows(), 2);
  Message m;
  int answers = 0;
  while (workers_[0]->poll_message(m)) {
    EXPECT_EQ(type_of(m.header), MessageType::rows);
    EXPECT_EQ(m.header.clock, answers++);
  }
  EXPECT_EQ(answers, 2);
}

TEST_F(RowProtocol, ReadingMakesNoRows) {
  MessageHeader h = wanted(1, 0, ids_.size());
  h.flags = kFlagRead;
  exchange_->on_wanted(WorkerId(1), h);
  RowCodec(*workers_[1], 0).send(RowFlow::ids, Rank(0), TableId(0), 0, std::as_bytes(std::span(ids_)));
  deliver();
  Message m;
  EXPECT_TRUE(workers_[1]->poll_message(m));
  EXPECT_EQ(shards_[TableId(0)]->n_rows(), 0);
}

}  // namespace
}  // namespace varscope::testing
