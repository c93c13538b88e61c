#pragma once

namespace theirs {
inline constexpr int kGraph = 100;
}  // namespace theirs
