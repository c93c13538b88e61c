#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/placement/row_plan.h"
#include "common/transport/transport.h"

namespace varscope {

// The three ways that data of rows go: ids and gradients from workers to servers, values back. As the `what`
// of a RequestKey they are told from a bucket's Flow.
enum class RowFlow : std::int32_t { ids = 3, gradients = 4, values = 5 };

// How the data of rows travel: one run of bytes, cut into messages of kWireChunkBytes, the last one shorter.
// No bytes: no message. Every run passes here twice, as a bucket's chunks do in WireCodec.
//
// Borrows the transport. Not thread-safe.
class RowCodec {
 public:
  // `n_buckets`: of the job's BucketPlan; the tags of rows come behind theirs.
  RowCodec(Transport& transport, int n_buckets) : transport_(transport), n_buckets_(n_buckets) {}

  // `peer`: what RequestKey::contribution shall be, the number of the worker or server at the other end. The
  // bytes must stay unchanged until the send has completed. Returns how many messages that are.
  int send(RowFlow flow, Rank to, TableId table, int peer, std::span<const std::byte> bytes);
  // Where the bytes go; they are there after as many arrived() as this returns.
  int receive(RowFlow flow, Rank from, TableId table, int peer, std::span<std::byte> bytes);
  // Throws Error(protocol) for a message that is not whole; `n_bytes`: of the run that it is part of.
  static void arrived(const Completion& received, std::size_t n_bytes);

  static bool is_of_rows(const Completion& completion) {
    return completion.key.what >= static_cast<std::int32_t>(RowFlow::ids);
  }
  static RowFlow flow_of(const Completion& completion) { return static_cast<RowFlow>(completion.key.what); }

 private:
  DataTag tag_of(RowFlow flow, TableId table) const;
  Transport& transport_;
  int n_buckets_;
};

// What a worker pushes for the rows of one table and server: for each of its contributions in order, u32
// positions in the ids that it asked for last, ascending; where the table counts its ids (TableSpec::entry
// above 1) then a u32 for each position, how often the id occurs; then a row of gradients for each position.
// All are followed by any bytes up to a multiple of 8. The message says how many rows each contribution has.
class RowsPushLayout {
 public:
  RowsPushLayout(std::span<const std::uint32_t> n_rows, std::size_t row_bytes, bool has_counts);
  std::size_t positions_at(std::size_t contribution) const { return at_[contribution]; }
  // REQUIRES has_counts.
  std::size_t counts_at(std::size_t contribution) const {
    return at_[contribution] + padded(n_rows_[contribution] * sizeof(std::uint32_t));
  }
  std::size_t gradients_at(std::size_t contribution) const {
    return at_[contribution] + numbers_bytes(n_rows_[contribution]);
  }
  std::size_t n_bytes() const { return at_.back(); }

 private:
  static std::size_t padded(std::size_t n) { return (n + 7) / 8 * 8; }
  std::size_t numbers_bytes(std::size_t n) const { return n_numbers_ * padded(n * sizeof(std::uint32_t)); }
  std::size_t n_numbers_;  // u32 of each row
  std::vector<std::size_t> n_rows_;
  std::vector<std::size_t> at_;  // one more than contributions
};

}  // namespace varscope
