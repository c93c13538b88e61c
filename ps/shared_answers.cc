#include "ps/shared_answers.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace varscope {
namespace {

int take_number(std::vector<int>& free, std::size_t& size) {
  if (free.empty()) return static_cast<int>(size++);
  const int number = free.back();
  free.pop_back();
  return number;
}

}  // namespace

std::size_t SharedAnswers::bytes_for(const BucketPlan& plan, ServerId server, std::int64_t backups) {
  std::size_t n_bytes = 0;
  for (const BucketId id : plan.of_server(server)) {
    const Bucket& bucket = plan[id];
    for (int chunk = 0; bucket.is_pushed() && chunk < bucket.n_wire_chunks(); ++chunk)
      n_bytes += BufferPool::class_of(static_cast<std::size_t>(bucket.wire_chunk(chunk).n_bytes));
  }
  return n_bytes * static_cast<std::size_t>(backups + 1);
}

int SharedAnswers::take_slot(int copy) {
  std::size_t size = copy_of_slot_.size();
  const int slot = take_number(free_slots_, size);
  copy_of_slot_.resize(size);
  copy_of_slot_[static_cast<std::size_t>(slot)] = copy;
  return first_slot_ + slot;
}

bool SharedAnswers::try_send(std::span<const Rank> to, BucketId id, int chunk, const std::byte* bucket_values,
                             WireForm form) {
  const Bucket& bucket = plan_[id];
  const WireChunk part = bucket.wire_chunk(chunk);
  const auto n_bytes = static_cast<std::size_t>(wire_bytes(bucket, Flow::values, form, part));
  const std::size_t taken = BufferPool::class_of(n_bytes);
  if (to.empty()) return true;
  if (in_use_ + taken > max_bytes_) return false;
  in_use_ += taken;
  most_in_use_ = std::max(most_in_use_, in_use_);
  std::size_t size = copies_.size();
  const int number = take_number(free_copies_, size);
  copies_.resize(size);
  Copy& copy = copies_[static_cast<std::size_t>(number)];
  copy = {pool_.take(n_bytes), n_bytes, static_cast<int>(to.size())};
  const std::byte* values = bucket_values + part.begin;
  const std::span<std::byte> bytes(copy.bytes.get(), n_bytes);
  if (form == WireForm::full) {
    std::memcpy(bytes.data(), values, n_bytes);
  } else {
    encode_chunk(bucket, part, {values, static_cast<std::size_t>(part.n_bytes)}, bytes);
  }
  for (const Rank rank : to) codec_.send_as_is(Flow::values, rank, bucket, chunk, take_slot(number), bytes);
  return true;
}

bool SharedAnswers::on_sent(const Completion& completion) {
  const int slot = completion.key.contribution - first_slot_;
  if (slot < 0) return false;
  free_slots_.push_back(slot);
  const int number = copy_of_slot_[static_cast<std::size_t>(slot)];
  Copy& copy = copies_[static_cast<std::size_t>(number)];
  if (--copy.n_sends > 0) return true;
  in_use_ -= BufferPool::class_of(copy.n_bytes);
  pool_.give(std::move(copy.bytes), copy.n_bytes);
  free_copies_.push_back(number);
  return true;
}

}  // namespace varscope
