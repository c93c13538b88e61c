#pragma once

namespace theirs {
inline constexpr int kBaseError = 10;
}  // namespace theirs
