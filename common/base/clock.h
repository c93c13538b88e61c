#pragma once

#include <cstdint>

namespace varscope {

// Monotonic clock.
std::int64_t now_ns();

}  // namespace varscope
