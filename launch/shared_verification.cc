#include "launch/shared_verification.h"

#include <algorithm>
#include <map>
#include <utility>

#include "checkpoint/scan.h"
#include "common/error.h"
#include "common/serialize.h"

namespace varscope {
namespace {

// What one rank has found, by the index of the file.
using Problems = std::vector<std::pair<std::uint32_t, std::vector<std::string>>>;

}  // namespace

struct SharedVerification::Request {
  std::string path;          // empty: no more
  std::string id;            // of the checkpoint that rank 0 sees there
  std::vector<int> servers;  // ranks
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& path& id& servers;
  }
};

// This rank's part.
std::string SharedVerification::answer(const Request& request) {
  const auto at = std::ranges::find(request.servers, mpi_.rank().value);
  if (at == request.servers.end()) return to_binary(Problems());
  Problems problems;
  try {
    const Manifest manifest = load_manifest(fs_, request.path).manifest;
    if (manifest.id != request.id) {
      fail(ErrorKind::checkpoint,
           "it is checkpoint {} there, and {} on rank 0; all hosts must share that directory", manifest.id,
           request.id);
    }
    const auto first = static_cast<std::uint32_t>(at - request.servers.begin());
    const auto step = static_cast<std::uint32_t>(request.servers.size());
    for (std::uint32_t file = first; file < manifest.files.size(); file += step)
      problems.emplace_back(file, verify_file(fs_, request.path, manifest, file));
  } catch (const std::exception& e) {
    problems = {
        {0, {fmt::format("rank {} (on {}) cannot verify it: {}", mpi_.rank().value, mpi_.host(), e.what())}}};
  }
  return to_binary(problems);
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
    for (const std::string& part : mpi_.all_gather(answer(request))) {
      for (auto& [file, problems] : from_binary<Problems>(part, "the problems of a checkpoint"))
        by_file.emplace(file, std::move(problems));
    }
    std::vector<std::string> all;
    for (auto& [file, problems] : by_file) std::ranges::move(problems, std::back_inserter(all));
    return all;
  };
}

void SharedVerification::serve() {
  for (;;) {
    std::string bytes;
    mpi_.broadcast(bytes);
    const auto request = from_binary<Request>(bytes, "a request to verify a checkpoint");
    if (request.path.empty()) return;
    mpi_.all_gather(answer(request));
  }
}

void SharedVerification::run(const std::function<void()>& work_of_rank_0) {
  if (mpi_.rank() != Rank(0)) return serve();
  std::string no_more = to_binary(Request());
  try {
    work_of_rank_0();
  } catch (...) {
    mpi_.broadcast(no_more);
    throw;
  }
  mpi_.broadcast(no_more);
}

}  // namespace varscope
