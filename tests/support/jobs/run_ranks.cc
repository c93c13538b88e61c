#include "tests/support/jobs/run_ranks.h"

#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "common/base/error.h"

namespace varscope::testing {
namespace {

std::string error_of(const std::function<void(Rank)>& run, Rank rank) {
  try {
    run(rank);
  } catch (const Aborted&) {
    // The error of another rank is being reported.
  } catch (const Error& failure) {
    return std::string(to_string(failure.kind())) + ": " + failure.what();
  } catch (const std::exception& failure) {
    return failure.what();
  }
  return "";
}

}  // namespace

std::string run_ranks(LoopbackHub& hub, int n_ranks, const std::function<void(Rank)>& run, int limit_s) {
  std::mutex mutex;
  std::condition_variable wake;
  int n_running = n_ranks;
  std::string first_error;
  std::vector<std::thread> threads;
  threads.reserve(static_cast<std::size_t>(n_ranks));
  for (int r = 0; r < n_ranks; ++r) {
    threads.emplace_back([&, r] {
      const std::string error = error_of(run, Rank(r));
      const std::lock_guard lock(mutex);
      if (!error.empty() && first_error.empty()) first_error = error;
      if (!error.empty()) hub.abort();
      --n_running;
      wake.notify_all();
    });
  }
  {
    std::unique_lock lock(mutex);
    if (!wake.wait_for(lock, std::chrono::seconds(limit_s), [&] { return n_running == 0; })) {
      first_error = "stuck";
      hub.abort();
    }
  }
  for (std::thread& t : threads) t.join();
  return first_error;
}

}  // namespace varscope::testing
