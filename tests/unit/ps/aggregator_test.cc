#include "ps/aggregator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "common/placement/cluster.h"
#include "common/transport/loopback_transport.h"
#include "common/transport/wire.h"
#include "tests/support/references/canonical_reference.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::canonical_sum;
using testing::make_spec;
using testing::thrown;

// Buckets of 3 chunks, 1 chunk and 2 chunks, one that is never pushed, and more small ones to stand in line.
VariableTable some_table() {
  std::vector<VariableSpec> all = {
      make_spec("large/w", DType::float32, Shape{300'000}),
      make_spec("small/w", DType::float32, Shape{70, 3}),
      make_spec("double/w", DType::float64, Shape{70'000}),
      make_spec("frozen/w", DType::float32, Shape{5}, Initializer::constant(0), false)};
  for (int i = 0; i < 5; ++i)
    all.push_back(make_spec("more" + std::to_string(i) + "/w", DType::float32, Shape{1000 + i}));
  return VariableTable(std::move(all));
}

ClusterMap cluster_of(int n_workers, int n_leaves) {
  ClusterMap map;
  map.servers.push_back(Rank(0));
  for (int w = 0; w < n_workers; ++w) map.workers.push_back(Rank(w + 1));
  map.logical_workers = n_leaves;
  return map;
}

double leaf_value(int bucket, int leaf, std::int64_t i) {
  std::uint64_t x = static_cast<std::uint64_t>(i + 1) * 0x9E3779B97F4A7C15U +
                    static_cast<std::uint64_t>(bucket * 64 + leaf);
  x ^= x >> 31;
  x *= 0xBF58476D1CE4E5B9U;
  x ^= x >> 29;
  return std::ldexp(static_cast<double>(x >> 11) * 0x1p-53 - 0.5, static_cast<int>(x % 13));
}

// What each worker pushes of each bucket, and what the sum must be, as bytes.
struct Gradients {
  IdVector<BucketId, std::vector<std::vector<std::byte>>> of_contribution;
  IdVector<BucketId, std::vector<std::byte>> sum;
};

template <class T>
void fill_gradients(const Bucket& bucket, const ClusterMap& cluster, Gradients& out) {
  const auto n = static_cast<std::size_t>(bucket.n_elements);
  std::vector<std::vector<T>> contributions, buffers;
  std::vector<T> leaves(static_cast<std::size_t>(cluster.logical_workers)), sum(n);
  for (int w = 0; w < cluster.n_workers(); ++w) {
    const LeafRange range = cluster.leaves_of(WorkerId(w));
    const LocalSumPlan plan = LocalSumPlan::make(range, cluster.logical_workers);
    buffers.assign(static_cast<std::size_t>(plan.n_buffers), std::vector<T>(n));
    for (std::size_t k = 0; k < plan.leaves.size(); ++k) {
      auto& buffer = buffers[static_cast<std::size_t>(plan.leaves[k].buffer)];
      for (std::size_t i = 0; i < n; ++i) {
        buffer[i] = static_cast<T>(
            leaf_value(bucket.id.value, range.begin + static_cast<int>(k), static_cast<std::int64_t>(i)));
      }
      for (const auto& [into, from] : plan.leaves[k].merges) {
        for (std::size_t i = 0; i < n; ++i)
          buffers[static_cast<std::size_t>(into)][i] += buffers[static_cast<std::size_t>(from)][i];
      }
    }
    buffers.resize(plan.contributions.size());
    contributions.insert(contributions.end(), buffers.begin(), buffers.end());
  }
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t v = 0; v < leaves.size(); ++v) {
      leaves[v] =
          static_cast<T>(leaf_value(bucket.id.value, static_cast<int>(v), static_cast<std::int64_t>(i)));
    }
    sum[i] = canonical_sum(leaves);
  }
  const auto to_bytes = [](const std::vector<T>& values) {
    const auto bytes = std::as_bytes(std::span(values));
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  };
  auto& pushed = out.of_contribution.emplace_back();
  for (const auto& c : contributions) pushed.push_back(to_bytes(c));
  out.sum.push_back(to_bytes(sum));
}

struct Job {
  Job(int n_workers, int n_leaves) : cluster(cluster_of(n_workers, n_leaves)) {
    for (const Bucket& b : plan.buckets()) {
      b.dtype == DType::float64 ? fill_gradients<double>(b, cluster, gradients)
                                : fill_gradients<float>(b, cluster, gradients);
    }
  }
  MessageHeader push_header(WorkerId w, const Bucket& bucket) const {
    const LeafRange leaves = cluster.leaves_of(w);
    MessageHeader h = make_header(MessageType::push, w.value, Clock(1));
    h.bucket = bucket.id.value;
    h.n_contributions = static_cast<int>(maximal_nodes(leaves, cluster.logical_workers).size());
    h.n_bytes = static_cast<std::uint64_t>(bucket.n_bytes()) * static_cast<std::uint64_t>(h.n_contributions);
    h.leaf_begin = leaves.begin;
    return h;
  }

  VariableTable variables = some_table();
  ClusterMap cluster;
  BucketPlan plan = BucketPlan::make(variables, 1);
  Gradients gradients;
};

// Lets all workers push all buckets once, everything in random order: announcements, each worker's sends, the
// server's polls, the release of finished chunks.
class RandomRun {
 public:
  RandomRun(const Job& setup, Aggregator::Limits limits, unsigned seed)
      : setup_(setup),
        hub_(setup.cluster.n_workers() + 1),
        server_(hub_.endpoint(Rank(0))),
        aggregator_(*server_, setup.plan, setup.cluster, limits),
        random_(seed) {
    for (int w = 0; w < setup.cluster.n_workers(); ++w) workers_.push_back(hub_.endpoint(Rank(w + 1)));
  }

  void one_clock() {
    std::vector<Stream> streams = all_streams();
    std::size_t n_rounds = 0;
    for (const Bucket& b : setup_.plan.buckets()) n_rounds += b.trainable ? 1 : 0;
    std::size_t finished = 0;
    for (int turn = 0; finished < n_rounds; ++turn) {
      ASSERT_LT(turn, 200'000) << "the aggregator is stuck with " << finished << " of " << n_rounds
                               << " rounds done";
      const auto action = random_() % 4;
      if (action < 2 && !streams.empty()) {
        const std::size_t i = random_() % streams.size();
        if (advance(streams[i])) {
          std::swap(streams[i], streams.back());
          streams.pop_back();
        }
      } else if (action == 2) {
        poll();
      } else if (!ready_.empty()) {
        const std::size_t i = random_() % ready_.size();
        const Aggregator::ReadyChunk chunk = ready_[i];
        ready_.erase(ready_.begin() + static_cast<std::ptrdiff_t>(i));
        finished += aggregator_.release_chunk(chunk) ? 1 : 0;
      }
    }
    EXPECT_TRUE(streams.empty());
    EXPECT_EQ(aggregator_.bytes_in_use(), 0U);
  }
  const Aggregator& aggregator() const { return aggregator_; }
  int n_checked() const { return n_checked_; }

 private:
  struct Stream {  // one worker's push of one bucket
    WorkerId worker;
    const Bucket* bucket;
    int first_contribution, n_contributions;
    bool announced = false;
    int n_sent = 0;
  };

  std::vector<Stream> all_streams() const {
    std::vector<Stream> all;
    int first = 0;
    for (int w = 0; w < setup_.cluster.n_workers(); ++w) {
      int n_contributions = 0;
      for (const Bucket& b : setup_.plan.buckets()) {
        if (!b.trainable) continue;
        n_contributions = setup_.push_header(WorkerId(w), b).n_contributions;
        all.push_back({WorkerId(w), &b, first, n_contributions});
      }
      first += n_contributions;
    }
    return all;
  }

  // Announces, or sends the next piece; true when both are complete.
  bool advance(Stream& s) {
    const int n_sends = s.bucket->n_wire_chunks() * s.n_contributions;
    if (!s.announced && (s.n_sent == n_sends || random_() % 2 == 0)) {
      aggregator_.announce(s.worker, *s.bucket, setup_.push_header(s.worker, *s.bucket));
      s.announced = true;
    } else if (s.n_sent < n_sends) {
      const int chunk = s.n_sent / s.n_contributions, contribution = s.n_sent % s.n_contributions;
      const auto& bytes =
          setup_.gradients
              .of_contribution[s.bucket->id][static_cast<std::size_t>(s.first_contribution + contribution)];
      const auto begin = static_cast<std::size_t>(chunk * kWireChunkBytes);
      const ConstPiece piece{bytes.data() + begin,
                             std::min<std::size_t>(kWireChunkBytes, bytes.size() - begin)};
      workers_[s.worker]->post_send(Rank(0), push_tag(s.bucket->id), std::span(&piece, 1), {});
      ++s.n_sent;
    }
    return s.announced && s.n_sent == n_sends;
  }

  void poll() {
    std::vector<Completion> done;
    server_->poll_completions(done);
    std::shuffle(done.begin(), done.end(), random_);
    for (const Completion& c : done) {
      ASSERT_EQ(WireCodec::flow_of(c), Flow::gradients);
      Aggregator::ReadyChunk chunk{};
      if (!aggregator_.on_received(c, chunk)) continue;
      const auto& sum = setup_.gradients.sum[chunk.bucket];
      const auto begin = static_cast<std::size_t>(chunk.chunk * kWireChunkBytes);
      const std::size_t n_bytes = std::min<std::size_t>(kWireChunkBytes, sum.size() - begin);
      ASSERT_EQ(std::memcmp(chunk.sum, sum.data() + begin, n_bytes), 0)
          << "bucket " << chunk.bucket.value << " chunk " << chunk.chunk;
      std::memset(chunk.sum, 0xee, n_bytes);  // as the optimizer may
      ready_.push_back(chunk);
      ++n_checked_;
    }
  }

  const Job& setup_;
  LoopbackHub hub_;
  std::unique_ptr<Transport> server_;
  IdVector<WorkerId, std::unique_ptr<Transport>> workers_;
  Aggregator aggregator_;
  std::mt19937 random_;
  std::vector<Aggregator::ReadyChunk> ready_;
  int n_checked_ = 0;
};

std::size_t largest_round_bytes(const Job& setup) {
  std::size_t largest = 0;
  const auto n = all_contributions(setup.cluster).size();
  for (const Bucket& b : setup.plan.buckets()) {
    largest = std::max(
        largest, n * BufferPool::class_of(static_cast<std::size_t>(std::min(kWireChunkBytes, b.n_bytes()))));
  }
  return largest;
}

TEST(Aggregator, SumsAreBitIdenticalWhateverArrivesWhen) {
  for (const auto& [n_workers, n_leaves] : {std::pair{1, 1}, {1, 5}, {3, 3}, {3, 8}, {5, 7}}) {
    const Job setup(n_workers, n_leaves);
    for (unsigned seed = 0; seed < 4; ++seed) {
      RandomRun run(setup, {}, seed);
      for (int clock = 0; clock < 2; ++clock)
        ASSERT_NO_FATAL_FAILURE(run.one_clock()) << n_workers << " " << n_leaves;
      EXPECT_EQ(run.n_checked(), 2 * (3 + 1 + 2 + 5));
    }
  }
}

TEST(Aggregator, EveryWindowGivesTheSame) {
  const Job setup(3, 8);
  for (int window : {1, 2, 3, 8}) {
    RandomRun run(setup, {.max_bytes = std::size_t{32} << 20, .max_window = window},
                  static_cast<unsigned>(window));
    ASSERT_NO_FATAL_FAILURE(run.one_clock()) << window;
  }
}

TEST(Aggregator, AByteLimitHoldsAndNeverDeadlocks) {
  const Job setup(3, 5);
  const std::size_t largest = largest_round_bytes(setup);
  for (std::size_t limit : {std::size_t{1}, std::size_t{100'000}, largest, largest + 50'000, 2 * largest}) {
    for (unsigned seed = 0; seed < 6; ++seed) {
      RandomRun run(setup, {.max_bytes = limit, .max_window = 8}, seed);
      ASSERT_NO_FATAL_FAILURE(run.one_clock()) << limit;
      EXPECT_LE(run.aggregator().most_bytes_in_use(), std::max(limit, largest)) << limit;
      EXPECT_GT(run.aggregator().most_bytes_in_use(), 0U);
    }
  }
}

TEST(Aggregator, WrongPushesAreToldApart) {
  const Job setup(2, 3);
  LoopbackHub hub(3);
  const auto server = hub.endpoint(Rank(0));
  Aggregator aggregator(*server, setup.plan, setup.cluster);
  const Bucket& small = setup.plan[BucketId(1)];
  const auto error_with = [&](WorkerId w, auto change) {
    MessageHeader h = setup.push_header(w, small);
    change(h);
    return thrown([&] { aggregator.announce(w, small, h); });
  };
  const WorkerId w0(0), w1(1);
  EXPECT_EQ(
      error_with(w0, [](auto& h) { h.n_bytes += 4; }),
      "protocol: worker 0 pushed 844 bytes in 1 contributions to bucket 1 (small), expected 840 bytes in 1");
  EXPECT_EQ(
      error_with(w1, [](auto& h) { h.n_contributions = 1; }),
      "protocol: worker 1 pushed 1680 bytes in 1 contributions to bucket 1 (small), expected 1680 bytes in 2")
      << "worker 1 of 2 holds leaves 1 and 2 of 3";
}

TEST(Aggregator, APushIsForOneClockAndOneSetOfLeaves) {
  const Job setup(2, 2);
  LoopbackHub hub(3);
  const auto server = hub.endpoint(Rank(0));
  Aggregator aggregator(*server, setup.plan, setup.cluster);
  const Bucket& small = setup.plan[BucketId(1)];
  MessageHeader h = setup.push_header(WorkerId(1), small);
  h.leaf_begin = 0;
  EXPECT_NE(thrown([&] { aggregator.announce(WorkerId(1), small, h); }), "no error");
  aggregator.announce(WorkerId(0), small, setup.push_header(WorkerId(0), small));
  EXPECT_EQ(thrown([&] { aggregator.announce(WorkerId(0), small, setup.push_header(WorkerId(0), small)); }),
            "protocol: worker 0 pushed bucket 1 twice in one step");
}

TEST(Aggregator, AShortChunkIsSeen) {
  const Job setup(1, 1);
  LoopbackHub hub(2);
  const auto server = hub.endpoint(Rank(0)), worker = hub.endpoint(Rank(1));
  Aggregator aggregator(*server, setup.plan, setup.cluster);
  const Bucket& small = setup.plan[BucketId(1)];
  aggregator.announce(WorkerId(0), small, setup.push_header(WorkerId(0), small));
  const std::vector<std::byte> bytes(800);
  const ConstPiece piece{bytes.data(), bytes.size()};
  worker->post_send(Rank(0), push_tag(BucketId(1)), std::span(&piece, 1), {});
  std::vector<Completion> done;
  server->poll_completions(done);
  ASSERT_EQ(done.size(), 1U);
  Aggregator::ReadyChunk ready{};
  EXPECT_EQ(thrown([&] { aggregator.on_received(done[0], ready); }),
            "protocol: wire chunk 0 of bucket 1 (small, of server 0) has 800 bytes instead of 840");
}

}  // namespace
}  // namespace varscope
