#include "common/base/backoff.h"

#include <sched.h>
#include <time.h>

#include "common/base/clock.h"

namespace varscope {

std::int64_t KernelPauses::now_ns() const { return varscope::now_ns(); }

void KernelPauses::yield() const { sched_yield(); }

void KernelPauses::sleep_us(std::int64_t us) const {
  const timespec t{us / 1'000'000, us % 1'000'000 * 1000};
  nanosleep(&t, nullptr);
}

}  // namespace varscope
