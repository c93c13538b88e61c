#include "checkpoint/format/shard.h"

#include <algorithm>
#include <map>

#include <nlohmann/json.hpp>

#include "checkpoint/format/boxes.h"
#include "checkpoint/format/checksummed_file.h"
#include "checkpoint/format/safetensors_header.h"
#include "common/base/error.h"
#include "common/base/finite.h"

namespace varscope {
namespace {

using Json = nlohmann::json;

// What of a tensor's bytes is not finite, piece by piece.
class FiniteCheck {
 public:
  explicit FiniteCheck(const ShardTensor& tensor) : tensor_(tensor) {}
  void add(std::span<const std::byte> bytes) {
    const std::int64_t n = count_not_finite(tensor_.dtype, bytes);
    if (n > 0 && n_bad_ == 0) {
      first_ = *find_not_finite(tensor_.dtype, bytes);
      first_.element += n_seen_;
    }
    n_bad_ += n;
    n_seen_ += static_cast<std::int64_t>(bytes.size() / size_of(tensor_.dtype));
  }
  void finish(std::vector<NotFiniteTensor>& out) const {
    if (n_bad_ == 0) return;
    out.push_back(
        {tensor_.variable, tensor_.slot, n_bad_, element_in_whole(tensor_.box, first_.element), first_.what});
  }

 private:
  const ShardTensor& tensor_;
  std::int64_t n_seen_ = 0, n_bad_ = 0;
  NotFinite first_;
};

void check_tensor(const ShardTensor& t) {
  const auto due = static_cast<std::size_t>(t.box.n_elements()) * size_of(t.dtype);
  if (due == 0 || t.data.n_bytes != due) {
    fail(ErrorKind::argument,
         "slice {} of \"{}\" slot \"{}\" has {} bytes of memory for the {} bytes of its box \"{}\"", t.slice,
         t.variable, t.slot, t.data.n_bytes, due, t.box.spec());
  }
}

// Length and header of the file.
std::string make_header(int server, std::int64_t step, const std::string& id,
                        std::span<const ShardTensor> tensors) {
  std::map<std::string, std::string> metadata = {
      {"varscope.format", fmt::format("{}.{}", kCheckpointFormat.major, kCheckpointFormat.minor)},
      {"varscope.checkpoint", id},
      {"varscope.step", std::to_string(step)},
      {"varscope.server", std::to_string(server)},
  };
  std::vector<NamedTensor> named;
  for (const ShardTensor& t : tensors) {
    check_tensor(t);
    named.push_back({tensor_name(t.variable, t.slot, t.slice), t.dtype, t.box.extent});
    metadata["box:" + named.back().name] = t.box.spec();
  }
  return safetensors_header(named, metadata, kDataAlignment);
}

}  // namespace

std::string tensor_name(const std::string& variable, const std::string& slot, std::int64_t slice) {
  return slot.empty() ? fmt::format("{}@{}", variable, slice)
                      : fmt::format("{}/.slot-{}@{}", variable, slot, slice);
}

namespace {

// `write_tensor(writer, i, check)` writes all bytes of tensors[i], lets `check` see them, and returns their
// digest.
template <class WriteTensor>
ShardReport write_tensors(Fs& fs, const std::string& dir, int server, int n_servers, std::int64_t step,
                          const std::vector<std::int64_t>& worker_clocks, const std::string& checkpoint_id,
                          std::span<const ShardTensor> tensors, const WriteTensor& write_tensor) {
  const std::string header = make_header(server, step, checkpoint_id, tensors);

  ShardReport report;
  report.server = server;
  report.step = step;
  report.worker_clocks = worker_clocks;
  ChecksummedFile writer(fs, dir, shard_name(server, n_servers));
  writer.write(std::as_bytes(std::span(header)));
  std::uint64_t at = header.size();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const ShardTensor& t = tensors[i];
    const std::uint64_t end = at + t.data.n_bytes;
    FiniteCheck check(t);
    report.tensors.push_back(
        {t.variable, t.slot, t.slice, t.dtype, t.box.spec(), 0, at, end, write_tensor(writer, i, check)});
    check.finish(report.not_finite);
    at = end;
  }
  report.file = writer.finish();
  return report;
}

}  // namespace

ShardReport write_shard(Fs& fs, const std::string& dir, int server, int n_servers, std::int64_t step,
                        const std::vector<std::int64_t>& worker_clocks, const std::string& checkpoint_id,
                        std::span<const ShardTensor> tensors, const LoadTensor& load) {
  return write_tensors(fs, dir, server, n_servers, step, worker_clocks, checkpoint_id, tensors,
                       [&](ChecksummedFile& writer, std::size_t i, FiniteCheck& check) {
                         const ShardTensor& t = tensors[i];
                         const std::span<const std::byte> bytes = load(i);
                         if (bytes.size() != t.data.n_bytes)
                           fail(ErrorKind::argument, "{} bytes were loaded for the {} of slice {} of \"{}\"",
                                bytes.size(), t.data.n_bytes, t.slice, t.variable);
                         writer.write(bytes);
                         check.add(bytes);
                         return digest_of(bytes);
                       });
}

ShardReport write_shard(Fs& fs, const std::string& dir, int server, int n_servers, std::int64_t step,
                        const std::vector<std::int64_t>& worker_clocks, const std::string& checkpoint_id,
                        std::span<const ShardTensor> tensors) {
  return write_tensors(fs, dir, server, n_servers, step, worker_clocks, checkpoint_id, tensors,
                       [&](ChecksummedFile& writer, std::size_t i, FiniteCheck& check) {
                         const std::span bytes(tensors[i].data.data, tensors[i].data.n_bytes);
                         writer.write(bytes);
                         check.add(bytes);
                         return digest_of(bytes);
                       });
}

ShardReport write_shard(Fs& fs, const std::string& dir, int server, int n_servers, std::int64_t step,
                        const std::vector<std::int64_t>& worker_clocks, const std::string& checkpoint_id,
                        std::span<const ShardTensor> tensors, const ReadPiece& read) {
  return write_tensors(fs, dir, server, n_servers, step, worker_clocks, checkpoint_id, tensors,
                       [&](ChecksummedFile& writer, std::size_t i, FiniteCheck& check) {
                         Digester digester;
                         const std::size_t n_bytes = tensors[i].data.n_bytes;
                         for (std::size_t at = 0; at < n_bytes; at += kShardPieceBytes) {
                           const std::span<const std::byte> piece =
                               writer.write_filled(std::min(kShardPieceBytes, n_bytes - at),
                                                   [&](std::span<std::byte> out) { read(i, at, out); });
                           digester.update(piece);
                           check.add(piece);
                         }
                         return digester.finish();
                       });
}

FileRecord write_blob(Fs& fs, const std::string& dir, const std::string& name, std::string_view bytes) {
  ChecksummedFile writer(fs, dir, name);
  writer.write(std::as_bytes(std::span(bytes)));
  return writer.finish();
}

std::string checkpoint_id_of_shard(Fs& fs, const std::string& path) {
  try {
    const Json json = Json::parse(read_safetensors_header(*fs.open(path)), nullptr, false);
    const Json::json_pointer at("/__metadata__/varscope.checkpoint");
    return json.is_object() && json.contains(at) && json[at].is_string() ? json[at].get<std::string>() : "";
  } catch (const Error&) {
    return "";  // the caller already reports this file as damaged
  }
}

}  // namespace varscope
