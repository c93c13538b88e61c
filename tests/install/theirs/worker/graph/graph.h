#pragma once

namespace theirs {
inline constexpr int kGraphGraph = 1000;
}  // namespace theirs
