#include "launch/job/shared_verification.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <map>
#include <utility>

#include "checkpoint/directory/scan.h"
#include "common/base/error.h"
#include "common/base/serialize.h"
#include "common/placement/cluster.h"

namespace varscope {
namespace {

// What one rank has found.
struct Answer {
  std::string cannot;                                                        // why it has not looked
  std::vector<std::pair<std::uint32_t, std::vector<std::string>>> problems;  // by the index of the file
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& cannot& problems;
  }
};

}  // namespace

struct SharedVerification::Request {
  bool last = false;  // rank 0 has done its work
  std::string path;
  std::string id;            // of the checkpoint that rank 0 sees there
  std::vector<int> servers;  // ranks
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& last& path& id& servers;
  }
};

// This rank's part; does not throw, for the others wait for it. `manifest`: where it has been decoded.
std::string SharedVerification::answer(const Request& request, const Manifest* manifest) {
  const auto at = std::ranges::find(request.servers, mpi_.rank().value);
  if (at == request.servers.end()) return to_binary(Answer());
  Answer answer;
  try {
    if (manifest == nullptr) {
      decoded_ = load_manifest(fs_, request.path).manifest;
      decoded_path_ = request.path;
      manifest = &*decoded_;
    }
    if (manifest->id != request.id)
      fail(ErrorKind::checkpoint, "it is checkpoint {} there, and {} on rank 0", manifest->id, request.id);
    const auto first = static_cast<std::uint32_t>(at - request.servers.begin());
    const auto step = static_cast<std::uint32_t>(request.servers.size());
    for (std::uint32_t file = first; file < manifest->files.size(); file += step)
      answer.problems.emplace_back(file, verify_file(fs_, request.path, *manifest, file));
  } catch (const std::exception& e) {
    answer = {fmt::format("rank {} (on {}) does not see checkpoint {} as rank 0 does: {}", mpi_.rank().value,
                          mpi_.host(), request.path, e.what()),
              {}};
  }
  return to_binary(answer);
}

VerifyFiles SharedVerification::with_servers(const ClusterMap& cluster) {
  Request request;
  for (const Rank r : cluster.servers) request.servers.push_back(r.value);
  return [this, request](Fs&, const std::string& path, const Manifest& manifest) mutable {
    request.path = path;
    request.id = manifest.id;
    std::string bytes = to_binary(request);
    mpi_.broadcast(bytes);
    std::multimap<std::uint32_t, std::vector<std::string>> by_file;
    for (const std::string& part : mpi_.all_gather(answer(request, &manifest))) {
      auto found = from_binary<Answer>(part, "the problems of a checkpoint");
      if (!found.cannot.empty()) {
        fail(ErrorKind::checkpoint,
             "{}; nothing was changed. Put the checkpoints (job.run_dir, checkpoint.dir) where all hosts see "
             "the same files",
             found.cannot);
      }
      for (auto& [file, problems] : found.problems) by_file.emplace(file, std::move(problems));
    }
    std::vector<std::string> all;
    for (auto& [file, problems] : by_file) std::ranges::move(problems, std::back_inserter(all));
    return all;
  };
}

std::optional<Manifest> SharedVerification::take_manifest(const std::string& path) {
  return path == decoded_path_ ? std::exchange(decoded_, std::nullopt) : std::nullopt;
}

void SharedVerification::serve() {
  for (;;) {
    std::string bytes;
    mpi_.broadcast(bytes);
    const auto request = from_binary<Request>(bytes, "a request to verify a checkpoint");
    if (request.last) return;
    mpi_.all_gather(answer(request, nullptr));
  }
}

void SharedVerification::run(const std::function<void()>& work_of_rank_0) {
  if (mpi_.rank() != Rank(0)) return serve();
  std::exception_ptr error;
  try {
    work_of_rank_0();
  } catch (...) {
    error = std::current_exception();
  }
  Request last;
  last.last = true;
  std::string bytes = to_binary(last);
  mpi_.broadcast(bytes);
  if (error) std::rethrow_exception(error);
}

}  // namespace varscope
