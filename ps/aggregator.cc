#include "ps/aggregator.h"

#include <algorithm>

#include "common/base/error.h"
#include "common/base/sum.h"
#include "common/placement/cluster.h"
#include "common/transport/wire.h"

namespace varscope {
namespace {

std::size_t chunk_bytes(const Bucket& bucket, int chunk) {
  return static_cast<std::size_t>(bucket.wire_chunk(chunk).n_bytes);
}

// The last of an odd number is a node of a higher level.
std::vector<TreeNode> all_leaves(int n) {
  std::vector<TreeNode> leaves;
  leaves.reserve(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) leaves.push_back(maximal_nodes({i, i + 1}, n).front());
  return leaves;
}

std::vector<TreeNode> contributions_of(const CountedWorkers& counted, const ClusterMap& cluster) {
  std::vector<TreeNode> nodes;
  for (WorkerId w : counted.ids()) {
    if (counted.has(w)) nodes.push_back(maximal_nodes(cluster.leaves_of(w), cluster.logical_workers).front());
  }
  return nodes;
}

// A ring's buffers take any chunk of the bucket.
std::size_t buffer_bytes(const Bucket& bucket) {
  return static_cast<std::size_t>(bucket.largest_chunk_bytes());
}

}  // namespace

Aggregator::Aggregator(Transport& transport, const BucketPlan& plan, const ClusterMap& cluster, Limits limits)
    : codec_(transport),
      plan_(plan),
      cluster_(cluster),
      limits_(limits),
      nodes_(all_contributions(cluster), cluster, WireForm::full),
      leaves_(all_leaves(cluster.logical_workers), cluster, WireForm::encoded),
      rounds_(plan.size()) {}

Aggregator::Shares::Shares(const std::vector<TreeNode>& all, const ClusterMap& cluster, WireForm form)
    : tree(all, cluster.logical_workers) {
  int first = 0;
  for (WorkerId w : cluster.workers.ids()) {
    const LeafRange leaves = cluster.leaves_of(w);
    const std::size_t n = form == WireForm::encoded ? static_cast<std::size_t>(leaves.size())
                                                    : maximal_nodes(leaves, cluster.logical_workers).size();
    of_worker.emplace_back(first, first + static_cast<int>(n));
    first = of_worker.back().second;
  }
}

Aggregator::Shares::Shares(const CountedWorkers& counted, const ClusterMap& cluster)
    : tree(ReductionTree::of_present(contributions_of(counted, cluster), cluster.logical_workers)) {
  int first = 0;
  for (WorkerId w : counted.ids()) {
    of_worker.emplace_back(first, first + (counted.has(w) ? 1 : 0));
    first = of_worker.back().second;
  }
}

std::byte* Aggregator::buffer(Round& round, int contribution, int chunk) {
  return round.ring[static_cast<std::size_t>(contribution * round.window + chunk % round.window)].get();
}

// With what is staged of encoded chunks, which is about as much as they take at most.
std::size_t Aggregator::ring_bytes(const Bucket& bucket, const Round& round, int window) const {
  std::size_t each = BufferPool::class_of(buffer_bytes(bucket));
  if (round.form == WireForm::encoded) {
    std::int64_t most = 0;
    for (const WireChunk& run : bucket.runs)
      most = std::max(most, wire_bytes(bucket, Flow::gradients, round.form, run));
    each += BufferPool::class_of(static_cast<std::size_t>(most));
  }
  return static_cast<std::size_t>(round.shares->tree.n_contributions() * window) * each;
}

void Aggregator::open(const Bucket& bucket, Round& round, WireForm form) {
  round.open = true;
  round.form = form;
  round.shares = &shares_of(form);
  round.streams.assign(round.shares->of_worker.size(), {});
  round.done.assign(static_cast<std::size_t>(bucket.n_wire_chunks()), false);
  round.chunks_done = 0;
  if (!waiting_.empty() || !try_admit(bucket, round)) waiting_.push_back(bucket.id);
}

void Aggregator::announce(WorkerId worker, const Bucket& bucket, const MessageHeader& push) {
  const WireForm form = (push.flags & kFlagEncoded) != 0 ? WireForm::encoded : WireForm::full;
  if (form == WireForm::encoded && !codec_of(bucket, Flow::gradients)) {
    fail(ErrorKind::protocol, "worker {} pushed encoded gradients to bucket {} ({}), which is not compressed",
         worker.value, push.bucket, bucket.scope);
  }
  const auto [first, last] = shares_of(form).of_worker[worker];
  const auto expected = static_cast<std::uint64_t>(wire_bytes(bucket, Flow::gradients, form)) *
                        static_cast<std::uint64_t>(last - first);
  if (push.n_bytes != expected || push.n_contributions != last - first ||
      push.leaf_begin != cluster_.leaves_of(worker).begin) {
    fail(ErrorKind::protocol,
         "worker {} pushed {} bytes in {} contributions to bucket {} ({}), expected {} bytes in {}",
         worker.value, push.n_bytes, push.n_contributions, push.bucket, bucket.scope, expected, last - first);
  }
  Round& round = round_of(bucket.id);
  if (!round.open) open(bucket, round, form);
  if (round.form != form) {
    fail(ErrorKind::protocol, "worker {} pushed bucket {} ({}) {}, another did not", worker.value,
         push.bucket, bucket.scope, form == WireForm::encoded ? "encoded" : "in full");
  }
  Stream& stream = round.streams[worker];
  if (stream.announced)
    fail(ErrorKind::protocol, "worker {} pushed bucket {} twice in one step", worker.value, bucket.id.value);
  stream.announced = true;
  if (round.admitted) post_receives(bucket, round, worker);
}

bool Aggregator::try_admit(const Bucket& bucket, Round& round) {
  int window = std::min(limits_.max_window, bucket.n_wire_chunks());
  while (window > 1 && in_use_ + ring_bytes(bucket, round, window) > limits_.max_bytes) window /= 2;
  const std::size_t bytes = ring_bytes(bucket, round, window);
  if (in_use_ > 0 && in_use_ + bytes > limits_.max_bytes) return false;
  in_use_ += bytes;
  most_in_use_ = std::max(most_in_use_, in_use_);
  round.window = window;
  round.admitted = true;
  const auto n_buffers = static_cast<std::size_t>(round.shares->tree.n_contributions() * window);
  for (std::size_t i = 0; i < n_buffers; ++i) round.ring.push_back(pool_.take(buffer_bytes(bucket)));
  round.arrived.assign(round.shares->tree.merges().size() * static_cast<std::size_t>(window), 0);
  return true;
}

void Aggregator::post_receives(const Bucket& bucket, Round& round, WorkerId worker) {
  Stream& stream = round.streams[worker];
  const auto [first, last] = round.shares->of_worker[worker];
  const Rank from = cluster_.rank_of(worker);
  while (stream.announced && stream.next_chunk < bucket.n_wire_chunks() &&
         stream.next_chunk < round.chunks_done + round.window) {
    const int chunk = stream.next_chunk++;
    for (int c = first; c < last; ++c) {
      const Piece piece{buffer(round, c, chunk), chunk_bytes(bucket, chunk)};
      codec_.receive(Flow::gradients, from, bucket, chunk, c, std::span(&piece, 1), round.form);
    }
  }
}

bool Aggregator::on_received(const Completion& completion, ReadyChunk& ready) {
  const auto [what, bucket_id, contribution, chunk] = completion.key;
  const Bucket& bucket = plan_[BucketId(bucket_id)];
  Round& round = round_of(bucket.id);
  codec_.arrived(bucket, completion);
  if (!merge_upwards(bucket, round, contribution, chunk)) return false;
  ready = {bucket.id, chunk, buffer(round, 0, chunk)};
  return true;
}

// Adds along the path to the root as far as both operands are there; true when the root is reached.
bool Aggregator::merge_upwards(const Bucket& bucket, Round& round, int contribution, int chunk) {
  const ReductionTree& tree = round.shares->tree;
  for (int m = tree.first_merge(contribution); m >= 0;) {
    const ReductionTree::Merge& merge = tree.merges()[static_cast<std::size_t>(m)];
    auto& seen = round.arrived[static_cast<std::size_t>(m * round.window + chunk % round.window)];
    if (++seen < 2) return false;
    seen = 0;
    add_into(bucket.dtype, buffer(round, merge.left, chunk), buffer(round, merge.right, chunk),
             chunk_bytes(bucket, chunk));
    m = merge.next;
  }
  return true;
}

bool Aggregator::release_chunk(const ReadyChunk& chunk) {
  const Bucket& bucket = plan_[chunk.bucket];
  Round& round = round_of(chunk.bucket);
  round.done[static_cast<std::size_t>(chunk.chunk)] = true;
  while (round.chunks_done < bucket.n_wire_chunks() &&
         round.done[static_cast<std::size_t>(round.chunks_done)]) {
    ++round.chunks_done;
  }
  if (round.chunks_done == bucket.n_wire_chunks()) {
    close(bucket, round);
    return true;
  }
  for (WorkerId w : round.streams.ids()) post_receives(bucket, round, w);
  return false;
}

void Aggregator::close(const Bucket& bucket, Round& round) {
  for (AlignedBytes& b : round.ring) pool_.give(std::move(b), buffer_bytes(bucket));
  round.ring.clear();
  in_use_ -= ring_bytes(bucket, round, round.window);
  round.open = round.admitted = false;
  while (!waiting_.empty()) {
    const Bucket& next = plan_[waiting_.front()];
    Round& admitted = round_of(next.id);
    if (!try_admit(next, admitted)) return;
    waiting_.pop_front();
    for (WorkerId w : admitted.streams.ids()) post_receives(next, admitted, w);
  }
}

}  // namespace varscope
