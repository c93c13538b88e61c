// BSP with backup workers: whose gradients make a step, what their sum is, and what the others do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>

#include "common/base/serialize.h"
#include "common/transport/counted_workers.h"
#include "common/transport/wire.h"
#include "ps/record/step_record.h"
#include "ps/shared_answers.h"
#include "ps/step_quorum.h"
#include "tests/support/jobs/counted_exchange.h"
#include "tests/support/jobs/run_ranks.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/temp_dir.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::counted_reference_hash;
using testing::CountedExchange;
using testing::CountedResult;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::make_spec;
using testing::run_counted;
using testing::TempDir;
using testing::thrown;

CountedWorkers some_of(int n, std::initializer_list<int> workers) {
  CountedWorkers counted(n);
  for (const int w : workers) counted.add(WorkerId(w));
  return counted;
}

std::vector<int> numbers(const CountedWorkers& counted) {
  std::vector<int> all;
  for (WorkerId w : counted.ids()) {
    if (counted.has(w)) all.push_back(w.value);
  }
  return all;
}

// --- who counts, in bytes

TEST(CountedWorkers, TravelAsABitEach) {
  for (const int n : {1, 7, 8, 9, 17}) {
    std::mt19937 random(static_cast<unsigned>(n));
    CountedWorkers counted(n);
    for (WorkerId w : counted.ids()) {
      if (w.value == n - 1 || random() % 2 == 0) counted.add(w);
    }
    EXPECT_EQ(CountedWorkers::from_bytes(counted.to_bytes(), n), counted);
    EXPECT_EQ(counted.to_bytes().size(), static_cast<std::size_t>(n + 7) / 8);
  }
  EXPECT_EQ(some_of(9, {0, 3, 8}).to_bytes(), std::string("\x09\x01"));
  EXPECT_EQ(CountedWorkers::all(9).count(), 9);
}

TEST(CountedWorkers, BytesThatNameNobodyOrOthersAreRefused) {
  EXPECT_EQ(thrown([] { CountedWorkers::from_bytes("ab", 8); }),
            "protocol: the counted ones of 8 workers are named in 2 bytes, expected 1");
  EXPECT_EQ(thrown([] { CountedWorkers::from_bytes("\x08", 3); }),
            "protocol: worker 3 is named as counted, of 3 workers");
  EXPECT_EQ(thrown([] { CountedWorkers::from_bytes(std::string(1, '\0'), 3); }),
            "protocol: none of 3 workers is named as counted");
}

TEST(CountedPush, SaysFactorsThatCanBe) {
  const CountedPush push{1.5, 2, some_of(3, {2})};
  EXPECT_EQ(CountedPush::from_bytes(push.to_bytes(), 3, Rank(1)), push);
  EXPECT_EQ(thrown([] { CountedPush::from_bytes("abc", 3, Rank(1)); }),
            "protocol: rank 1 sent a push with 3 bytes that say which workers count");
  const CountedPush none{0, 2, some_of(3, {2})};
  EXPECT_EQ(thrown([&] { CountedPush::from_bytes(none.to_bytes(), 3, Rank(1)); }),
            "protocol: rank 1 sent a push whose sums are to be multiplied by 0 and 2");
}

// --- the tree

// As a text: "((0 2) 5)".
std::string text_of(const ReductionTree& tree, const std::vector<int>& leaves) {
  std::vector<std::string> buffers;
  for (const int leaf : leaves) buffers.push_back(std::to_string(leaf));
  for (const ReductionTree::Merge& m : tree.merges()) {
    auto& left = buffers[static_cast<std::size_t>(m.left)];
    left = "(" + left + " " + buffers[static_cast<std::size_t>(m.right)] + ")";
  }
  return buffers.front();
}

std::string text_of_present(std::vector<int> leaves, int n) {
  std::vector<TreeNode> nodes;
  for (const int leaf : leaves) nodes.push_back(maximal_nodes({leaf, leaf + 1}, n).front());
  return text_of(ReductionTree::of_present(nodes, n), leaves);
}

TEST(ReductionTreeOfPresent, PassesAbsentLeavesThrough) {
  EXPECT_EQ(text_of_present({0, 1, 2, 3}, 4), "((0 1) (2 3))");
  EXPECT_EQ(text_of_present({0, 2, 3}, 4), "(0 (2 3))");
  EXPECT_EQ(text_of_present({1, 2}, 4), "(1 2)");
  EXPECT_EQ(text_of_present({3}, 4), "3");
  EXPECT_EQ(text_of_present({0, 2, 5, 6}, 7), "((0 2) (5 6))");
  EXPECT_EQ(text_of_present({4}, 5), "4");
  EXPECT_EQ(text_of_present({1, 3, 4}, 5), "((1 3) 4)");
}

TEST(ReductionTreeOfPresent, NeedsALeaf) {
  EXPECT_EQ(thrown([] { ReductionTree::of_present({}, 3); }),
            "protocol: gradient contributions cover 0 of 3 logical workers");
}

// --- who is chosen

StepQuorum quorum_of(
    int n_workers, int n_backups, StepQuorum::Samples samples = [](Clock, WorkerId) { return 4; }) {
  return StepQuorum({n_workers, n_backups, Clock(0), std::move(samples)});
}

TEST(StepQuorum, TheFirstThatAreDoneMakeTheStep) {
  StepQuorum quorum = quorum_of(4, 1);
  quorum.on_done(WorkerId(3), Clock(1));
  quorum.on_done(WorkerId(0), Clock(1));
  EXPECT_FALSE(quorum.chosen());
  quorum.on_done(WorkerId(1), Clock(1));
  quorum.on_done(WorkerId(2), Clock(1));
  ASSERT_TRUE(quorum.chosen());
  EXPECT_THAT(numbers(*quorum.chosen()), ElementsAre(0, 1, 3)) << "who is done before the go, but late";
  quorum.let_go(*quorum.chosen());
  EXPECT_THAT(quorum.dropped().workers, ElementsAre(WorkerId(2)));
  EXPECT_EQ(quorum.dropped().samples, 4);
  EXPECT_EQ(quorum.dropped().of_samples, 16);
  EXPECT_FALSE(quorum.chosen()) << "nobody has the next step";
}

TEST(StepQuorum, WhoComesAfterTheGoIsNotOfTheNextStep) {
  StepQuorum quorum = quorum_of(3, 2);
  quorum.on_done(WorkerId(1), Clock(1));
  quorum.let_go(*quorum.chosen());
  quorum.on_done(WorkerId(0), Clock(1));
  EXPECT_FALSE(quorum.chosen());
  quorum.on_done(WorkerId(2), Clock(2));
  EXPECT_THAT(numbers(*quorum.chosen()), ElementsAre(2));
}

// A short last batch leaves workers without samples, and these are the first to be done.
TEST(StepQuorum, AStepIsNotOfThoseAloneWhoHaveNoSamples) {
  StepQuorum quorum = quorum_of(4, 2, [](Clock, WorkerId w) { return w.value == 2 ? 1 : 0; });
  for (const int w : {0, 1, 3}) quorum.on_done(WorkerId(w), Clock(1));
  EXPECT_FALSE(quorum.chosen());
  quorum.on_done(WorkerId(2), Clock(1));
  EXPECT_THAT(numbers(*quorum.chosen()), ElementsAre(0, 1, 2, 3));
}

TEST(StepQuorum, CountsWhatIsDropped) {
  StepQuorum quorum = quorum_of(3, 1, [](Clock c, WorkerId w) { return c.value * 10 + w.value; });
  for (const int late : {1, 1, 0}) {
    quorum.let_go([&] {
      CountedWorkers counted = CountedWorkers(3);
      for (WorkerId w : counted.ids()) {
        if (w.value != late) counted.add(w);
      }
      return counted;
    }());
  }
  const DroppedSummary& total = quorum.total();
  EXPECT_EQ(total.samples, 11 + 21 + 30);
  EXPECT_EQ(total.of_samples, 3 * (10 + 20 + 30) + 3 * 3);
  EXPECT_EQ(total.workers[WorkerId(1)].steps, 2);
  EXPECT_EQ(total.workers[WorkerId(1)].samples, 32);
  EXPECT_EQ(total.workers[WorkerId(0)].samples, 30);
  EXPECT_EQ(text_of(total), "62 of 189 samples (32.8 %); most of worker 1: 32 in 2 steps");
}

TEST(StepQuorum, AWorkerHasNoGradientOfAStepTwiceNorOfOneThatIsFar) {
  StepQuorum quorum = quorum_of(3, 1);
  quorum.on_done(WorkerId(1), Clock(1));
  EXPECT_EQ(thrown([&] { quorum.on_done(WorkerId(1), Clock(1)); }),
            "protocol: worker 1 has a gradient of step 1 after that of step 1, where step 1 is the next");
  EXPECT_EQ(thrown([&] { quorum.on_done(WorkerId(0), Clock(2)); }),
            "protocol: worker 0 has a gradient of step 2 after that of step 0, where step 1 is the next");
}

// --- a whole exchange

// Several chunks, two precisions, a moving average, and a variable that is never pushed.
CountedExchange some_exchange() {
  CountedExchange e;
  VariableSpec average = make_spec("norm/mean", DType::float32, Shape{300}, Initializer::constant(0), false);
  average.average_decay = 0.9;
  e.exchange.variables = VariableTable(
      {make_spec("large/weights", DType::float32, Shape{400, 401}, Initializer::normal(0, 1)),
       make_spec("small/weights", DType::float32, Shape{9, 7}, Initializer::normal(0, 1)),
       make_spec("small/frozen", DType::float32, Shape{13}, Initializer::normal(0, 1), false),
       make_spec("double/weights", DType::float64, Shape{5000}, Initializer::normal(0, 1)), average});
  e.exchange.optimizer.type = OptimizerType::adam;
  e.exchange.optimizer.learning_rate = 0.05;
  e.exchange.steps = 6;
  e.samples = [](Clock c, WorkerId w) { return 3 + (c.value + w.value) % 3; };
  return e;
}

// In each step other ones are late, so many as there are backups.
void make_some_late(CountedExchange& e, std::uint64_t seed) {
  e.is_late = [n = e.n_workers, b = e.n_backups, seed](Clock c, WorkerId worker) {
    std::vector<int> order(static_cast<std::size_t>(n));
    for (int w = 0; w < n; ++w) order[static_cast<std::size_t>(w)] = w;
    std::mt19937_64 random(seed * 1000 + static_cast<std::uint64_t>(c.value));
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
    return std::find(order.begin(), order.begin() + b, worker.value) != order.begin() + b;
  };
}

std::vector<WorkerId> late_ones(const CountedExchange& e, Clock step) {
  std::vector<WorkerId> late;
  for (WorkerId w : IdRange<WorkerId>(e.n_workers)) {
    if (e.is_late(step, w)) late.push_back(w);
  }
  return late;
}

TEST(BackupWorkers, AStepIsTheMeanOverThoseThatCount) {
  for (const auto& [servers, workers, backups] :
       {std::tuple{1, 2, 1}, {1, 3, 1}, {2, 5, 2}, {3, 4, 3}, {2, 4, 1}}) {
    SCOPED_TRACE(fmt::format("S {} W {} b {}", servers, workers, backups));
    CountedExchange e = some_exchange();
    e.n_servers = servers;
    e.n_workers = workers;
    e.n_backups = backups;
    make_some_late(e, static_cast<std::uint64_t>(workers));
    const CountedResult r = run_counted(e);
    ASSERT_EQ(r.error, "");
    EXPECT_EQ(r.finish->values_hash, counted_reference_hash(e));
    for (const Digest& hash : r.worker_hash) EXPECT_EQ(hash, r.finish->values_hash);
    ASSERT_EQ(r.steps.size(), static_cast<std::size_t>(e.exchange.steps));
    for (const StepSummary& step : r.steps) {
      EXPECT_EQ(step.dropped.workers, late_ones(e, step.clock));
      std::int64_t n_counted = 0;
      for (WorkerId w : IdRange<WorkerId>(workers))
        n_counted += e.is_late(step.clock, w) ? 0 : e.samples(step.clock, w);
      EXPECT_EQ(step.sums.samples, n_counted);
    }
    for (WorkerId w : r.n_dropped.ids()) EXPECT_EQ(r.finish->dropped->workers[w].steps, r.n_dropped[w]);
  }
}

TEST(BackupWorkers, BitsDoNotDependOnTheNumberOfServersWithNormsEither) {
  std::optional<Digest> first;
  for (const int servers : {1, 2, 3}) {
    CountedExchange e = some_exchange();
    e.n_servers = servers;
    e.n_backups = 2;
    e.exchange.optimizer.clip.type = ClipType::global_norm;
    e.exchange.optimizer.clip.limit = 1;
    make_some_late(e, 7);
    const CountedResult r = run_counted(e);
    ASSERT_EQ(r.error, "");
    if (!first) first = r.finish->values_hash;
    EXPECT_EQ(r.finish->values_hash, *first) << servers;
  }
  EXPECT_NE(*first, counted_reference_hash(some_exchange())) << "nothing was clipped";
}

// Tables of two precisions, on several servers, and one that is never trained.
void add_tables(CountedExchange& e) {
  std::vector<VariableSpec> all(e.exchange.variables.variables().begin(),
                                e.exchange.variables.variables().end());
  const auto add = [&](const char* name, DType dtype, std::int64_t units, int parts, bool trainable) {
    all.push_back(make_spec(name, dtype, Shape{0, units}, Initializer::normal(0, 1), trainable));
    all.back().table = TableSpec{IdType::uint64, parts};
  };
  add("user/table", DType::float32, 16, 64, true);
  add("item/table", DType::float64, 3, 2, true);
  add("fixed/table", DType::float32, 4, 8, false);
  e.exchange.variables = VariableTable(std::move(all));
}

TEST(BackupWorkers, RowsOfTablesAreTheMeanOverThoseThatCount) {
  for (const auto& [servers, workers, backups] : {std::tuple{1, 2, 1}, {2, 5, 2}, {3, 4, 1}}) {
    SCOPED_TRACE(fmt::format("S {} W {} b {}", servers, workers, backups));
    CountedExchange e = some_exchange();
    add_tables(e);
    e.exchange.steps = 12;
    e.n_servers = servers;
    e.n_workers = workers;
    e.n_backups = backups;
    make_some_late(e, static_cast<std::uint64_t>(workers));
    const CountedResult r = run_counted(e);
    ASSERT_EQ(r.error, "");
    EXPECT_EQ(r.finish->values_hash, counted_reference_hash(e));
  }
}

TEST(BackupWorkers, OneThatSleptLeavesNoRequestForRowsBehind) {
  CountedExchange e = some_exchange();
  add_tables(e);
  e.exchange.steps = 9;
  e.sleeper = WorkerId(2);
  e.sleeps_until = 4;
  e.is_late = [](Clock, WorkerId w) { return w.value == 2; };
  const CountedResult r = run_counted(e);
  ASSERT_EQ(r.error, "");
  EXPECT_EQ(r.finish->values_hash, counted_reference_hash(e));
}

TEST(BackupWorkers, ClippedRowsHaveTheSameBitsOnAnyServersAndInAReplay) {
  std::optional<Digest> first;
  TempDir dir;
  for (const int servers : {1, 2, 3}) {
    CountedExchange e = some_exchange();
    add_tables(e);
    e.n_servers = servers;
    e.exchange.optimizer.clip.type = ClipType::global_norm;
    e.exchange.optimizer.clip.limit = 1;
    (servers == 1 ? e.record_dir : e.replay_dir) = dir.path();
    const CountedResult r = run_counted(e);
    ASSERT_EQ(r.error, "");
    if (!first) first = r.finish->values_hash;
    EXPECT_EQ(r.finish->values_hash, *first) << servers;
  }
}

// It takes nothing while others make four steps: it goes on with the newest values, at once.
TEST(BackupWorkers, OneThatWakesFindsTheNewestStep) {
  CountedExchange e = some_exchange();
  e.sleeper = WorkerId(2);
  e.sleeps_until = 4;
  e.is_late = [](Clock, WorkerId w) { return w.value == 2; };
  const CountedResult r = run_counted(e);
  ASSERT_EQ(r.error, "");
  EXPECT_EQ(r.finish->values_hash, counted_reference_hash(e));
  EXPECT_EQ(r.worker_hash[WorkerId(2)], r.finish->values_hash);
  EXPECT_EQ(r.n_dropped[WorkerId(2)], 6);
  // The go of step 4 may come to it last of all.
  EXPECT_LE(r.n_catch_ups[WorkerId(2)], 4);
  EXPECT_EQ(r.finish->dropped->samples, r.finish->dropped->workers[WorkerId(2)].samples);
}

TEST(BackupWorkers, ARunInWhichAnybodyMayBeLateEnds) {
  for (const int backups : {1, 2, 3}) {
    CountedExchange e = some_exchange();
    e.n_backups = backups;
    e.exchange.steps = 30;
    const CountedResult r = run_counted(e);
    ASSERT_EQ(r.error, "");
    for (const Digest& hash : r.worker_hash) EXPECT_EQ(hash, r.finish->values_hash);
    for (const StepSummary& step : r.steps)
      EXPECT_EQ(step.dropped.workers.size(), static_cast<std::size_t>(backups));
  }
}

TEST(BackupWorkers, ARecordedRunIsDoneAgainToTheSameBits) {
  TempDir dir;
  CountedExchange e = some_exchange();
  e.n_servers = 2;
  e.n_backups = 2;
  e.exchange.steps = 20;
  e.record_dir = dir.path();
  const CountedResult recorded = run_counted(e);
  ASSERT_EQ(recorded.error, "");
  e.record_dir = "";
  e.replay_dir = dir.path();
  const CountedResult again = run_counted(e);
  ASSERT_EQ(again.error, "");
  EXPECT_EQ(again.finish->values_hash, recorded.finish->values_hash);
  ASSERT_EQ(again.steps.size(), recorded.steps.size());
  for (std::size_t i = 0; i < again.steps.size(); ++i)
    EXPECT_EQ(again.steps[i].dropped.workers, recorded.steps[i].dropped.workers);
}

TEST(BackupWorkers, WhereAllCountTheBitsAreThoseOfBsp) {
  TempDir dir;
  PosixFs fs;
  CountedExchange e = some_exchange();
  add_tables(e);
  e.n_workers = 3;
  {
    const RecordHeader header{.program_version = "test",
                              .start_id = "test",
                              .servers = 1,
                              .workers = 3,
                              .logical_workers = 3,
                              .rule = {.backups = 1}};
    TicketRecord record(SegmentWriter::Parts{fs, tickets_dir(dir.path()), "", header, {}}, Clock(0));
    for (int step = 1; step <= e.exchange.steps; ++step) record.counted(Clock(step), CountedWorkers::all(3));
  }
  e.replay_dir = dir.path();
  const CountedResult r = run_counted(e);
  ASSERT_EQ(r.error, "");
  EXPECT_EQ(r.finish->dropped->samples, 0);
  testing::Exchange bulk = e.exchange;
  const testing::ExchangeResult all = testing::run_over_loopback(bulk, 1, 3, 3);
  ASSERT_EQ(all.error, "");
  EXPECT_EQ(r.finish->values_hash, *all.hash);
}

TEST(BackupRecord, EndsWhereItMakesNoSense) {
  TempDir dir;
  PosixFs fs;
  const RecordHeader header{
      .program_version = "test", .start_id = "test", .servers = 1, .workers = 3, .rule = {.backups = 1}};
  {
    TicketRecord record(SegmentWriter::Parts{fs, tickets_dir(dir.path()), "", header, {}}, Clock(0));
    record.counted(Clock(1), some_of(3, {0, 2}));
    record.counted(Clock(3), some_of(3, {0, 1}));
    record.counted(Clock(2), some_of(3, {0, 1}));
  }
  const RecordedTickets tickets(fs, dir.path(), Clock(0));
  EXPECT_EQ(tickets.header().rule.backups, 1);
  EXPECT_EQ(tickets.last(), Clock(1));
  EXPECT_EQ(tickets.why_ended(), "a record of who was dealt what makes no sense");
  ASSERT_NE(tickets.counted(Clock(1)), nullptr);
  EXPECT_THAT(numbers(*tickets.counted(Clock(1))), ElementsAre(0, 2));
  EXPECT_EQ(tickets.counted(Clock(2)), nullptr);
  EXPECT_THAT(replayable_steps(fs, dir.path()), ElementsAre(Clock(0)));
}

// --- a server that is told nonsense, and one whose worker takes nothing

// One server and three workers, of which a backup; no coordinator.
class BackupServer : public ::testing::Test {
 protected:
  // `act` plays the workers; then the server ends. Returns what the server threw.
  std::string with_server(const std::function<void()>& act) {
    return testing::run_ranks(hub, 2, [&](Rank rank) {
      if (rank == Rank(0)) {
        const auto transport = hub.endpoint(Rank(0));
        ServerRank::Parts parts{.transport = *transport,
                                .cluster = cluster,
                                .variables = variables,
                                .plan = plan,
                                .id = ServerId(0),
                                .optimizer = optimizer(),
                                .fill = [&](ParameterShard& shard, TableShards&) { shard.initialize(3); },
                                .start_id = "test",
                                .rows = &rows,
                                .rule = {.backups = 1}};
        ServerRank(parts).run();
        return;
      }
      act();
      hub_endpoint(1)->send_message(Rank(0), make_header(MessageType::shutdown, 0, Clock(0)));
    });
  }
  static OptimizerConfig optimizer() {
    OptimizerConfig config;
    config.type = OptimizerType::sgd;
    config.learning_rate = 1;
    return config;
  }
  Transport* hub_endpoint(int rank) {
    auto& endpoint = endpoints[static_cast<std::size_t>(rank)];
    if (!endpoint) endpoint = hub.endpoint(Rank(rank));
    return endpoint.get();
  }
  std::unique_ptr<PsClient> client(int worker, VariableMemory& memory) {
    return std::make_unique<PsClient>(*hub_endpoint(worker + 1), cluster, plan, rows, WorkerId(worker),
                                      memory, PsClient::Options{.rule = {.backups = 1}});
  }
  static std::string body(CountedWorkers counted, double scale = 1) {
    return CountedPush{scale, 1, std::move(counted)}.to_bytes();
  }

  LoopbackHub hub{4};
  std::array<std::unique_ptr<Transport>, 4> endpoints;
  ClusterMap cluster = assign_roles({"a", "a", "a", "a"}, 1, 0);
  VariableTable variables{{make_spec("a/w", DType::float32, Shape{300'000}, Initializer::constant(7)),
                           make_spec("b/w", DType::float32, Shape{5}, Initializer::constant(7))}};
  BucketPlan plan = BucketPlan::make(variables, 1);
  RowPlan rows = RowPlan::make(variables, 1);
};

// The values that it asked for stay on their way: the others make three steps meanwhile. What it takes then
// is what it asked for.
TEST_F(BackupServer, OneThatTakesNothingHoldsNobodyUp) {
  VariableMemory first(variables, 1), second(variables, 1);
  std::vector<float> late(300'000);
  EXPECT_EQ(with_server([&] {
              Transport& sleeper = *hub_endpoint(3);
              for (const Bucket& bucket : plan.buckets()) {
                MessageHeader pull = make_header(MessageType::pull, 2, Clock(0));
                pull.bucket = bucket.id.value;
                sleeper.send_message(Rank(0), pull);
              }
              const auto a = client(0, first), b = client(1, second);
              for (PsClient* c : {a.get(), b.get()}) {
                c->pull_all(Clock(0));
                c->wait_all();
              }
              for (int step = 1; step <= 3; ++step) {
                for (auto& [c, memory] : {std::pair{a.get(), &first}, {b.get(), &second}}) {
                  for (int v = 0; v < 2; ++v) std::ranges::fill(memory->gradient(0, v).as<float>(), 1.0F);
                  for (const Bucket& bucket : plan.buckets())
                    c->push(bucket.id, Clock(step), 0, body(some_of(3, {0, 1}), 1.5));
                }
                a->wait_all();
                b->wait_all();
              }
              EXPECT_EQ(first.value(0).as<float>()[0], 7.0F - 3 * 1.5F * 2);
              WireCodec codec(sleeper);
              const Bucket& large = plan[plan.of_variable(0).front()];
              int n_due = large.n_wire_chunks();
              for (int chunk = 0; chunk < large.n_wire_chunks(); ++chunk) {
                const WireChunk part = large.wire_chunk(chunk);
                const Piece piece{reinterpret_cast<std::byte*>(late.data()) + part.begin,
                                  static_cast<std::size_t>(part.n_bytes)};
                codec.receive(Flow::values, Rank(0), large, chunk, 0, std::span(&piece, 1));
              }
              std::vector<Completion> done;
              while (n_due > 0) {
                done.clear();
                sleeper.poll_completions(done);
                n_due -= static_cast<int>(done.size());
              }
            }),
            "");
  EXPECT_TRUE(std::ranges::all_of(late, [](float v) { return v == 7; }));
}

// However many workers share a copy, and whatever its form: the memory is for those that may be late.
TEST(SharedAnswers, OneCopyServesAllWhoseGradientsCount) {
  for (const ValueForm values : {ValueForm::full, ValueForm::bf16}) {
    VariableSpec spec = make_spec("a/w", DType::float32, Shape{300'000}, Initializer::constant(7));
    spec.compression.values = values;
    const VariableTable variables({spec});
    const BucketPlan plan = BucketPlan::make(variables, 1);
    LoopbackHub hub(9);
    const ClusterMap cluster = assign_roles(std::vector<std::string>(9, "host"), 1, 0);
    const auto server = hub.endpoint(Rank(0));
    SharedAnswers answers(*server, plan, cluster, SharedAnswers::bytes_for(plan, ServerId(0), 1));
    const std::vector<Rank> counted(cluster.workers.begin(), cluster.workers.end() - 1);
    ASSERT_EQ(counted.size(), 7U);
    const std::vector<float> memory(300'000, 7.0F);
    const Bucket& bucket = plan[BucketId(0)];
    const WireForm form = form_of_values(bucket);
    const auto send_all = [&] {
      for (int chunk = 0; chunk < bucket.n_wire_chunks(); ++chunk) {
        if (!answers.try_send(counted, bucket.id, chunk, reinterpret_cast<const std::byte*>(memory.data()),
                              form))
          return false;
      }
      return true;
    };
    EXPECT_TRUE(send_all()) << "the answers of a step, which worker 0 does not take";
    EXPECT_TRUE(send_all()) << "those of the next one";
    EXPECT_EQ(send_all(), values == ValueForm::bf16) << "codes take half of it";
    EXPECT_LE(answers.most_bytes_in_use(), SharedAnswers::bytes_for(plan, ServerId(0), 1));
  }
}

TEST_F(BackupServer, PushesMustAgreeOnWhoCounts) {
  VariableMemory memory(variables, 1);
  const auto push_of = [&](int worker, const std::string& says) {
    const auto c = client(worker, memory);
    c->pull_all(Clock(0));
    c->wait_all();
    c->push(BucketId(0), Clock(1), 0, says);
  };
  EXPECT_EQ(with_server([&] {
              push_of(0, body(some_of(3, {1, 2})));
              client(1, memory)->wait_shutdown();
            }),
            "protocol: worker 0 pushed step 1, of which its own gradient does not count");
}

TEST_F(BackupServer, PushesMustAgreeOnTheFactor) {
  VariableMemory memory(variables, 1), other(variables, 1);
  EXPECT_EQ(with_server([&] {
              const auto a = client(0, memory), b = client(1, other);
              for (PsClient* c : {a.get(), b.get()}) {
                c->pull_all(Clock(0));
                c->wait_all();
              }
              a->push(BucketId(0), Clock(1), 0, body(some_of(3, {0, 1})));
              b->push(BucketId(0), Clock(1), 0, body(some_of(3, {0, 1}), 2));
              b->wait_all();
            }),
            "protocol: worker 1 pushed step 1 with other counted workers or factors than another");
}

// --- the coordinator

struct Heard final : RunObserver {
  void on_eval(const EvalSummary& e) override { evaluated.push_back(e.clock.value); }
  void on_step(const StepSummary& s) override { steps.push_back(s); }
  void on_request(const std::string& what) override { requests.push_back(what); }
  std::vector<std::int64_t> evaluated;
  std::vector<StepSummary> steps;
  std::vector<std::string> requests;
};

// One server and three workers, of which only messages are seen.
class BackupCoordinator : public ::testing::Test {
 protected:
  void make(TrainPlan train, std::optional<EarlyStop> stop = {}) {
    Coordinator::Parts parts{*server, cluster, plan, variables, train, {}, nullptr, heard};
    parts.rule.backups = 1;
    parts.samples = [](Clock, WorkerId) { return 2; };
    parts.stop = std::move(stop);
    coordinator = std::make_unique<Coordinator>(parts);
    coordinator->start();
  }
  void done(int worker, std::int64_t step, std::uint32_t flags = 0) {
    MessageHeader h = make_header(MessageType::gradient_done, worker, Clock(step));
    h.flags = flags;
    coordinator->on_message({Rank(worker + 1), h, ""});
  }
  void report(int worker, std::int64_t step) {
    StepReport r;
    r.leaves = {{1.0, 1, 2}};
    coordinator->on_message(
        {Rank(worker + 1), make_header(MessageType::step_report, worker, Clock(step)), to_binary(r)});
  }
  // `worker` evaluates batch `worker` of three.
  void evaluate(int worker, std::int64_t step, double loss = 1) {
    EvalReport r;
    r.batches = {worker};
    r.sums = {{loss, 1, 2}};
    r.reals = {{}};
    r.n_batches = 3;
    coordinator->on_message(
        {Rank(worker + 1), make_header(MessageType::eval_report, worker, Clock(step)), to_binary(r)});
  }
  // What worker 0 has been sent since the last call: "go 1: 0 2", "begin 3", "end 4".
  std::vector<std::string> sent() {
    std::vector<std::string> all;
    Message message;
    while (workers[0]->poll_message(message)) {
      const MessageHeader& h = message.header;
      EXPECT_EQ(type_of(h), MessageType::go);
      std::string text = (h.flags & kFlagBegin) != 0 ? "begin" : (h.flags & kFlagEnd) != 0 ? "end" : "go";
      text += fmt::format(" {}", h.clock);
      if (!message.body.empty()) {
        text += ":";
        for (const int w : numbers(CountedWorkers::from_bytes(message.body, 3)))
          text += fmt::format(" {}", w);
      }
      if ((h.flags & kFlagStop) != 0) text += ", the last";
      all.push_back(text);
    }
    return all;
  }

  ClusterMap cluster = assign_roles({"a", "a", "a", "a"}, 1, 0);
  VariableTable variables;
  BucketPlan plan = BucketPlan::make(variables, 1);
  LoopbackHub hub{4};
  std::unique_ptr<Transport> server = hub.endpoint(Rank(0));
  std::vector<std::unique_ptr<Transport>> workers = [this] {
    std::vector<std::unique_ptr<Transport>> all;
    for (int w = 0; w < 3; ++w) all.push_back(hub.endpoint(Rank(w + 1)));
    return all;
  }();
  Heard heard;
  std::unique_ptr<Coordinator> coordinator;
};

TEST_F(BackupCoordinator, LetsAStepGoOnceEnoughHaveItAndTheStepBeforeIsOver) {
  make({.first = Clock(0), .last = Clock(9), .steps_per_epoch = 3});
  EXPECT_THAT(sent(), IsEmpty());
  done(2, 1);
  EXPECT_THAT(sent(), IsEmpty());
  done(0, 1);
  EXPECT_THAT(sent(), ElementsAre("go 1: 0 2"));
  done(1, 1);  // too late
  report(0, 1);
  done(0, 2);
  done(1, 2);
  EXPECT_THAT(sent(), IsEmpty()) << "worker 2 has not reported step 1";
  report(2, 1);
  EXPECT_THAT(sent(), ElementsAre("go 2: 0 1"));
  ASSERT_EQ(heard.steps.size(), 1U);
  EXPECT_EQ(heard.steps[0].sums.samples, 4);
  EXPECT_THAT(heard.steps[0].dropped.workers, ElementsAre(WorkerId(1)));
}

TEST_F(BackupCoordinator, RefusesTheReportOfWhoDoesNotCount) {
  make({.first = Clock(0), .last = Clock(9), .steps_per_epoch = 3});
  done(2, 1);
  done(0, 1);
  EXPECT_EQ(thrown([&] { report(1, 1); }), "protocol: worker 1 reports step 1 while step 1 is under way");
}

TEST_F(BackupCoordinator, NoStepGoesBeforeAllHaveEvaluated) {
  make({.first = Clock(0), .last = Clock(9), .steps_per_epoch = 1, .evaluates_every = 1});
  for (const int w : {0, 1}) done(w, 1);
  for (const int w : {0, 1}) report(w, 1);
  for (const int w : {0, 1}) evaluate(w, 1);
  for (const int w : {0, 1}) done(w, 2);
  EXPECT_THAT(sent(), ElementsAre("go 1: 0 1")) << "worker 2 has not evaluated";
  evaluate(2, 1);
  EXPECT_THAT(sent(), ElementsAre("go 2: 0 1"));
  EXPECT_THAT(heard.evaluated, ElementsAre(1));
}

// Who has no batch of the test set may report its step after the evaluation.
TEST_F(BackupCoordinator, AnEvaluationMayEndBeforeTheLastReportOfItsStep) {
  make({.first = Clock(0), .last = Clock(9), .steps_per_epoch = 1, .evaluates_every = 1});
  for (const int w : {0, 1}) done(w, 1);
  report(0, 1);
  for (const int w : {0, 1, 2}) evaluate(w, 1);
  for (const int w : {0, 1}) done(w, 2);
  EXPECT_THAT(sent(), ElementsAre("go 1: 0 1"));
  report(1, 1);
  EXPECT_THAT(sent(), ElementsAre("go 2: 0 1"));
}

TEST_F(BackupCoordinator, EarlyStoppingSaysWhetherAStepIsComputed) {
  StopConfig rule;
  rule.metric = "loss";
  rule.patience = 1;
  make({.first = Clock(0), .last = Clock(9), .steps_per_epoch = 1, .evaluates_every = 1},
       EarlyStop(rule, MetricOrder::smaller, {}));
  EXPECT_THAT(sent(), ElementsAre("begin 1"));
  for (std::int64_t step = 1; step <= 2; ++step) {
    for (const int w : {0, 1}) done(w, step);
    for (const int w : {0, 1}) report(w, step);
    EXPECT_THAT(sent(), ElementsAre(fmt::format("go {}: 0 1", step)));
    for (const int w : {0, 1, 2}) evaluate(w, step, static_cast<double>(step));
    EXPECT_THAT(sent(), ElementsAre(step == 1 ? "begin 2" : "end 3"));
  }
}

TEST_F(BackupCoordinator, ASignalIsHeardFromWhoHasAGradient) {
  make({.first = Clock(0), .last = Clock(9), .steps_per_epoch = 3});
  done(0, 1, kRequestStop);
  EXPECT_EQ(heard.requests.size(), 1U);
  done(1, 1);
  EXPECT_THAT(sent(), ElementsAre("go 1: 0 1, the last"));
}

}  // namespace
}  // namespace varscope
