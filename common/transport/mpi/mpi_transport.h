#pragma once

#include <mpi.h>

#include <memory>
#include <vector>

#include "common/base/backoff.h"
#include "common/transport/transport.h"

namespace varscope {

// Transport over MPI point-to-point: messages by Iprobe and Recv, data by Isend and Irecv between the
// callers' own memory (several pieces become one derived datatype, so MPI gathers and scatters them without
// our staging). Works on a duplicate of the communicator. Main thread only (MPI_THREAD_FUNNELED).
// Construction is collective.
class MpiTransport final : public Transport {
 public:
  // Collective over `comm`.
  explicit MpiTransport(MPI_Comm comm);
  ~MpiTransport() override;
  MpiTransport(const MpiTransport&) = delete;
  MpiTransport& operator=(const MpiTransport&) = delete;

  Rank rank() const override { return Rank(rank_); }
  int size() const override { return size_; }
  void send_message(Rank to, MessageHeader header, std::string_view body) override;
  void post_send(Rank to, DataTag tag, std::span<const ConstPiece> pieces, RequestKey key) override;
  void post_receive(Rank from, DataTag tag, std::span<const Piece> pieces, RequestKey key) override;
  bool poll_message(Message& out) override;
  void poll_completions(std::vector<Completion>& out) override;
  void idle() override { backoff_.pause(); }
  void busy() override { backoff_.reset(); }
  void flush(double timeout_s) override;

 private:
  // A buffer stays with its request until the request completes.
  struct Pending {
    RequestKey key;
    std::size_t n_bytes;
    int peer;
    enum class Kind : std::uint8_t { message, send, receive } kind;
    std::unique_ptr<std::byte[]> message;
  };
  void add(MPI_Request request, Pending pending);
  void complete(std::size_t i, const MPI_Status& status, std::vector<Completion>& out);

  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  int max_tag_ = 0;
  Backoff backoff_;
  std::vector<MPI_Request> requests_;
  std::vector<Pending> pending_;
  std::vector<int> done_indices_;
  std::vector<MPI_Status> done_statuses_;
  std::vector<Completion> flushed_;  // completed inside flush(), not yet polled
};

}  // namespace varscope
