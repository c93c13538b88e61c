// Hundreds of versions one after the other: what `varscope serve` takes of memory stays that of two.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include <nlohmann/json.hpp>

#include "tests/support/jobs/job.h"
#include "tests/support/jobs/tiny_job.h"
#include "tests/support/serving/replica.h"

namespace varscope::testing {
namespace {

using Json = nlohmann::json;

#ifdef VARSCOPE_SANITIZED
constexpr int kSwaps = 40;  // memory is not what it is elsewhere
#else
constexpr int kSwaps = 400;
#endif

// "VmRSS", "VmHWM" of a process, in bytes.
std::int64_t memory_of(pid_t pid, const std::string& what) {
  std::ifstream in(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(what + ":")) return std::stoll(line.substr(what.size() + 1)) << 10;
  }
  return 0;
}

// Clients that ask as fast as they are answered, with the number of answers by status.
class Load {
 public:
  Load(int port, int n_clients, const std::string& request) {
    for (int c = 0; c < n_clients; ++c) {
      clients_.emplace_back([this, port, request] {
        HttpClient client(port);
        while (!is_over_) status_of(client.ask(request)) == 200 ? ++n_good : ++n_bad;
      });
    }
  }
  ~Load() { stop(); }
  void stop() {
    is_over_ = true;
    for (std::thread& t : clients_) t.join();
    clients_.clear();
  }
  std::atomic<int> n_good{0}, n_bad{0};

 private:
  std::atomic<bool> is_over_{false};
  std::vector<std::thread> clients_;
};

// The newest checkpoint goes and comes back, as with rollbacks: each time other values are served.
TEST(ServeSwaps, HundredsUnderLoadTakeTheMemoryOfTwoVersions) {
  const ScratchDir dir;
  train(tiny_alone(dir / "run", set({"train.max_steps=4", "checkpoint.every_steps=2",
                                     "checkpoint.when_busy=queue", "model.layers.0.units=4096"})));
  const std::string checkpoints = dir / "run/checkpoints";
  Replica replica(dir / "run", {"--poll-ms", "10", "--threads", "2"});
  ASSERT_TRUE(replica.wait_until_ready()) << replica.job.out() << replica.job.err();
  [[maybe_unused]] constexpr std::int64_t kWide = 4096,
                                          kValues = 4 * (257 * kWide + (kWide + 1) * 16 + 17 * 10);
  const Json zeros = Json::array({std::vector<std::vector<int>>(16, std::vector<int>(16, 0))});
  Load load(replica.port, 2, http_post("/v1/models/m:predict", Json{{"instances", zeros}}.dump()));
  // Sums of what is there after each swap: the old version may be gone by then, or not yet.
  std::int64_t of_first = 0, of_second = 0;
  for (int i = 0; i < kSwaps; ++i) {
    const bool goes = i % 2 == 0;
    const std::string newest = checkpoints + "/step-000000004", aside = dir / "aside";
    std::filesystem::rename(goes ? newest : aside, goes ? aside : newest);
    const int before = load.n_good;
    ASSERT_TRUE(replica.job.wait_until(
        [&] { return replica.step() == (goes ? 2 : 4) && load.n_good > before; }, 30 * kSlowness))
        << i << replica.job.err();
    (2 * i < kSwaps ? of_first : of_second) += memory_of(replica.job.pid(), "VmRSS");
  }
  load.stop();
  [[maybe_unused]] const std::int64_t peak = memory_of(replica.job.pid(), "VmHWM");
  EXPECT_EQ(load.n_bad, 0);
  EXPECT_GT(load.n_good, kSwaps);
#ifndef VARSCOPE_SANITIZED
  EXPECT_LT(of_second, of_first + of_first / 20) << "it grows";
  EXPECT_LE(peak, 2 * kValues + (64 << 20)) << "values " << kValues;
#endif
}

}  // namespace
}  // namespace varscope::testing
