#include "ps/aggregator.h"

#include <algorithm>

#include "common/base/error.h"
#include "common/base/sum.h"
#include "common/placement/cluster.h"

namespace varscope {
namespace {

std::size_t chunk_bytes(const Bucket& bucket, int chunk) {
  return static_cast<std::size_t>(bucket.wire_chunk(chunk).n_bytes);
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
      tree_(all_contributions(cluster), cluster.logical_workers),
      rounds_(plan.size()) {
  int first = 0;
  for (WorkerId w : cluster.workers.ids()) {
    const auto mine = maximal_nodes(cluster.leaves_of(w), cluster.logical_workers);
    contributions_of_.emplace_back(first, first + static_cast<int>(mine.size()));
    first = contributions_of_.back().second;
  }
}

std::byte* Aggregator::buffer(Round& round, int contribution, int chunk) {
  return round.ring[static_cast<std::size_t>(contribution * round.window + chunk % round.window)].get();
}

std::size_t Aggregator::ring_bytes(const Bucket& bucket, int window) const {
  return static_cast<std::size_t>(tree_.n_contributions() * window) *
         BufferPool::class_of(buffer_bytes(bucket));
}

void Aggregator::announce(WorkerId worker, const Bucket& bucket, const MessageHeader& push) {
  const auto [first, last] = contributions_of_[worker];
  const auto expected =
      static_cast<std::uint64_t>(bucket.n_bytes()) * static_cast<std::uint64_t>(last - first);
  if (push.n_bytes != expected || push.n_contributions != last - first ||
      push.leaf_begin != cluster_.leaves_of(worker).begin) {
    fail(ErrorKind::protocol,
         "worker {} pushed {} bytes in {} contributions to bucket {} ({}), expected {} bytes in {}",
         worker.value, push.n_bytes, push.n_contributions, push.bucket, bucket.scope, expected, last - first);
  }
  Round& round = round_of(bucket.id);
  if (!round.open) {
    round.open = true;
    round.streams.assign(contributions_of_.size(), {});
    round.done.assign(static_cast<std::size_t>(bucket.n_wire_chunks()), false);
    round.chunks_done = 0;
    if (!waiting_.empty() || !try_admit(bucket, round)) waiting_.push_back(bucket.id);
  }
  Stream& stream = round.streams[worker];
  if (stream.announced)
    fail(ErrorKind::protocol, "worker {} pushed bucket {} twice in one step", worker.value, bucket.id.value);
  stream.announced = true;
  if (round.admitted) post_receives(bucket, round, worker);
}

bool Aggregator::try_admit(const Bucket& bucket, Round& round) {
  int window = std::min(limits_.max_window, bucket.n_wire_chunks());
  while (window > 1 && in_use_ + ring_bytes(bucket, window) > limits_.max_bytes) window /= 2;
  const std::size_t bytes = ring_bytes(bucket, window);
  if (in_use_ > 0 && in_use_ + bytes > limits_.max_bytes) return false;
  in_use_ += bytes;
  most_in_use_ = std::max(most_in_use_, in_use_);
  round.window = window;
  round.admitted = true;
  const auto n_buffers = static_cast<std::size_t>(tree_.n_contributions() * window);
  for (std::size_t i = 0; i < n_buffers; ++i) round.ring.push_back(pool_.take(buffer_bytes(bucket)));
  round.arrived.assign(tree_.merges().size() * static_cast<std::size_t>(window), 0);
  return true;
}

void Aggregator::post_receives(const Bucket& bucket, Round& round, WorkerId worker) {
  Stream& stream = round.streams[worker];
  const auto [first, last] = contributions_of_[worker];
  const Rank from = cluster_.rank_of(worker);
  while (stream.announced && stream.next_chunk < bucket.n_wire_chunks() &&
         stream.next_chunk < round.chunks_done + round.window) {
    const int chunk = stream.next_chunk++;
    for (int c = first; c < last; ++c) {
      const Piece piece{buffer(round, c, chunk), chunk_bytes(bucket, chunk)};
      codec_.receive(Flow::gradients, from, bucket, chunk, c, std::span(&piece, 1));
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
  for (int m = tree_.first_merge(contribution); m >= 0;) {
    const ReductionTree::Merge& merge = tree_.merges()[static_cast<std::size_t>(m)];
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
  in_use_ -= ring_bytes(bucket, round.window);
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
