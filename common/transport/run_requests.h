#pragma once

#include <atomic>
#include <cstdint>

namespace varscope {

// What somebody outside asks of a running job: a checkpoint at the next step, or that and then the end.
// Written by a signal handler or any thread, taken by the rank's loop, which hands it to the coordinator
// (docs/failures.md, "Signals"). Asking twice is asking once.
inline constexpr std::uint32_t kRequestSave = 1;
inline constexpr std::uint32_t kRequestStop = 2;

class RunRequests {
 public:
  void ask(std::uint32_t what) noexcept { asked_.fetch_or(what, std::memory_order_relaxed); }
  // What has been asked since the last call.
  std::uint32_t take() noexcept {
    return asked_.load(std::memory_order_relaxed) == 0 ? 0 : asked_.exchange(0, std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint32_t> asked_ = 0;
  static_assert(std::atomic<std::uint32_t>::is_always_lock_free, "a signal handler writes it");
};

// How training ended.
enum class RunEnd : std::uint8_t { finished, stopped };  // stopped: by kRequestStop, before its last step

}  // namespace varscope
