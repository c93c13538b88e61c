#pragma once

namespace theirs {
inline constexpr int kError = 1;
}  // namespace theirs
