#include "common/transport/mpi/mpi_transport.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/transport/mpi/mpi_error.h"
#include "common/transport/mpi/mpi_wait.h"
#include "common/transport/wire.h"

namespace varscope {
namespace {

// A datatype for scattered memory, relative to MPI_BOTTOM; freed as soon as the request is posted (MPI keeps
// it alive).
class PiecesType {
 public:
  template <class P>
  explicit PiecesType(std::span<const P> pieces) {
    std::vector<int> lengths;
    std::vector<MPI_Aint> addresses;
    for (const P& p : pieces) {
      MPI_Aint address = 0;
      check_mpi(MPI_Get_address(p.data, &address), "MPI_Get_address");
      if (!addresses.empty() && addresses.back() + lengths.back() == address) {
        lengths.back() += static_cast<int>(p.n_bytes);
        continue;
      }
      addresses.push_back(address);
      lengths.push_back(static_cast<int>(p.n_bytes));
    }
    check_mpi(MPI_Type_create_hindexed(static_cast<int>(lengths.size()), lengths.data(), addresses.data(),
                                       MPI_BYTE, &type_),
              "MPI_Type_create_hindexed");
    check_mpi(MPI_Type_commit(&type_), "MPI_Type_commit");
  }
  ~PiecesType() { MPI_Type_free(&type_); }
  PiecesType(const PiecesType&) = delete;
  PiecesType& operator=(const PiecesType&) = delete;
  MPI_Datatype get() const { return type_; }

 private:
  MPI_Datatype type_ = MPI_DATATYPE_NULL;
};

template <class P>
std::size_t total_bytes(std::span<const P> pieces) {
  std::size_t n = 0;
  for (const P& p : pieces) n += p.n_bytes;
  if (n > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    fail(ErrorKind::protocol, "a request of {} bytes is more than one MPI message carries", n);
  }
  return n;
}

// As check_mpi, naming the peer; the text is made only when there is an error to tell.
void check_peer(int code, const char* call, int peer,
                std::source_location where = std::source_location::current()) {
  if (code != MPI_SUCCESS) check_mpi(code, call, fmt::format("with rank {}", peer), where);
}

}  // namespace

MpiTransport::MpiTransport(MPI_Comm comm) {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Comm_idup(comm, &comm_, &request), "MPI_Comm_idup");
  wait_for(request, "MPI_Comm_idup");
  check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
  int* max_tag = nullptr;
  int found = 0;
  check_mpi(MPI_Comm_get_attr(comm_, MPI_TAG_UB, static_cast<void*>(&max_tag), &found), "MPI_Comm_get_attr");
  max_tag_ = found != 0 ? *max_tag : 32767;
}

MpiTransport::~MpiTransport() {
  // Not while unwinding with requests in flight: the job is about to abort, and MPI could wait for ever.
  if (requests_.empty() && comm_ != MPI_COMM_NULL) MPI_Comm_free(&comm_);
}

void MpiTransport::add(MPI_Request request, Pending pending) {
  requests_.push_back(request);
  pending_.push_back(std::move(pending));
}

void MpiTransport::send_message(Rank to, MessageHeader header, std::string_view body) {
  if (body.size() > kMaxBodyBytes) {
    fail(ErrorKind::protocol, "a message of {} bytes to rank {} is over the limit of {}", body.size(),
         to.value, kMaxBodyBytes);
  }
  header.n_body = static_cast<std::uint32_t>(body.size());
  const std::size_t n = sizeof header + body.size();
  auto buffer = std::make_unique<std::byte[]>(n);
  std::memcpy(buffer.get(), &header, sizeof header);
  if (!body.empty()) std::memcpy(buffer.get() + sizeof header, body.data(), body.size());
  MPI_Request request = MPI_REQUEST_NULL;
  check_peer(MPI_Isend(buffer.get(), static_cast<int>(n), MPI_BYTE, to.value, kTagMessage, comm_, &request),
             "MPI_Isend", to.value);
  ++stats_.messages_sent;
  add(request, {{}, n, to.value, Pending::Kind::message, std::move(buffer)});
}

void MpiTransport::post_send(Rank to, DataTag tag, std::span<const ConstPiece> pieces, RequestKey key) {
  const std::size_t n = total_bytes(pieces);
  if (tag.value > max_tag_)
    fail(ErrorKind::mpi, "tag {} is over this MPI's limit of {}", tag.value, max_tag_);
  MPI_Request request = MPI_REQUEST_NULL;
  if (pieces.size() == 1) {
    check_peer(MPI_Isend(pieces[0].data, static_cast<int>(n), MPI_BYTE, to.value, tag.value, comm_, &request),
               "MPI_Isend", to.value);
  } else {
    const PiecesType type(pieces);
    check_peer(MPI_Isend(MPI_BOTTOM, 1, type.get(), to.value, tag.value, comm_, &request), "MPI_Isend",
               to.value);
  }
  ++stats_.data_sends;
  stats_.bytes_sent += n;
  add(request, {key, n, to.value, Pending::Kind::send, nullptr});
}

void MpiTransport::post_receive(Rank from, DataTag tag, std::span<const Piece> pieces, RequestKey key) {
  const std::size_t n = total_bytes(pieces);
  MPI_Request request = MPI_REQUEST_NULL;
  if (pieces.size() == 1) {
    check_peer(
        MPI_Irecv(pieces[0].data, static_cast<int>(n), MPI_BYTE, from.value, tag.value, comm_, &request),
        "MPI_Irecv", from.value);
  } else {
    const PiecesType type(pieces);
    check_peer(MPI_Irecv(MPI_BOTTOM, 1, type.get(), from.value, tag.value, comm_, &request), "MPI_Irecv",
               from.value);
  }
  ++stats_.data_receives;
  add(request, {key, n, from.value, Pending::Kind::receive, nullptr});
}

bool MpiTransport::poll_message(Message& out) {
  int found = 0;
  MPI_Status status;
  check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, kTagMessage, comm_, &found, &status), "MPI_Iprobe");
  if (found == 0) return false;
  int n = 0;
  check_mpi(MPI_Get_count(&status, MPI_BYTE, &n), "MPI_Get_count");
  if (n < static_cast<int>(sizeof(MessageHeader)) ||
      static_cast<std::size_t>(n) > kMaxBodyBytes + sizeof(MessageHeader)) {
    fail(ErrorKind::protocol, "rank {} sent a message of {} bytes", status.MPI_SOURCE, n);
  }
  out.from = Rank(status.MPI_SOURCE);
  out.body.clear();
  if (n == static_cast<int>(sizeof(MessageHeader))) {
    check_peer(MPI_Recv(&out.header, n, MPI_BYTE, status.MPI_SOURCE, kTagMessage, comm_, MPI_STATUS_IGNORE),
               "MPI_Recv", status.MPI_SOURCE);
  } else {
    std::string buffer(static_cast<std::size_t>(n), '\0');
    MPI_Request request = MPI_REQUEST_NULL;  // large ones need the sender's help: it may want this core
    check_peer(MPI_Irecv(buffer.data(), n, MPI_BYTE, status.MPI_SOURCE, kTagMessage, comm_, &request),
               "MPI_Irecv", status.MPI_SOURCE);
    wait_for(request, "MPI_Irecv");
    std::memcpy(&out.header, buffer.data(), sizeof(MessageHeader));
    out.body = buffer.substr(sizeof(MessageHeader));
  }
  ++stats_.messages_received;
  check_header(out.header, out.body.size(), out.from);
  return true;
}

void MpiTransport::complete(std::size_t i, const MPI_Status& status, std::vector<Completion>& out) {
  const Pending& p = pending_[i];
  if (p.kind == Pending::Kind::message) return;
  std::size_t n = p.n_bytes;
  if (p.kind == Pending::Kind::receive) {
    int got = 0;
    check_mpi(MPI_Get_elements(&status, MPI_BYTE, &got), "MPI_Get_elements");
    n = static_cast<std::size_t>(got);
    stats_.bytes_received += n;
  }
  out.push_back({p.key, n});
}

void MpiTransport::poll_completions(std::vector<Completion>& out) {
  out.insert(out.end(), flushed_.begin(), flushed_.end());
  flushed_.clear();
  if (requests_.empty()) return;
  done_indices_.resize(requests_.size());
  done_statuses_.resize(requests_.size());
  int n_done = 0;
  const int code = MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &n_done,
                                done_indices_.data(), done_statuses_.data());
  if (code == MPI_ERR_IN_STATUS) {
    for (int k = 0; k < n_done; ++k) {
      const auto i = static_cast<std::size_t>(done_indices_[static_cast<std::size_t>(k)]);
      check_peer(done_statuses_[static_cast<std::size_t>(k)].MPI_ERROR, "MPI_Testsome", pending_[i].peer);
    }
  }
  check_mpi(code, "MPI_Testsome");
  if (n_done <= 0) return;
  for (int k = 0; k < n_done; ++k) {
    const auto i = static_cast<std::size_t>(done_indices_[static_cast<std::size_t>(k)]);
    complete(i, done_statuses_[static_cast<std::size_t>(k)], out);
  }
  // MPI_Testsome has set the completed requests to null: squeeze them out, keeping the order of posting.
  std::size_t kept = 0;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] == MPI_REQUEST_NULL) continue;
    if (kept != i) {
      requests_[kept] = requests_[i];
      pending_[kept] = std::move(pending_[i]);
    }
    ++kept;
  }
  requests_.resize(kept);
  pending_.resize(kept);
}

void MpiTransport::flush(double timeout_s) {
  const std::int64_t deadline = now_ns() + ns_of(timeout_s);
  const auto is_send = [](const Pending& p) { return p.kind != Pending::Kind::receive; };
  while (std::any_of(pending_.begin(), pending_.end(), is_send) && now_ns() < deadline) {
    const std::size_t open = requests_.size();
    std::vector<Completion> done;
    poll_completions(done);
    flushed_.insert(flushed_.end(), done.begin(), done.end());
    requests_.size() < open ? busy() : idle();
  }
}

}  // namespace varscope
