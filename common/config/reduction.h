#pragma once

#include <cstdint>

namespace varscope {

// What a loss makes of the elements that one sample (or one label) is compared in: their mean, or their sum.
enum class Reduction : std::uint8_t { mean = 0, sum = 1 };

}  // namespace varscope
