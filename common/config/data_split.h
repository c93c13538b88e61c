#pragma once

#include <cstdint>

namespace varscope {

// A part of a data set: the one to learn from, or the one to evaluate on.
enum class DataSplit : std::uint8_t { train = 0, test = 1 };

}  // namespace varscope
