#pragma once

#include <cstdint>

#include "common/config/data_split.h"
#include "worker/data/dataset.h"

namespace varscope {

struct DigitsOptions {
  std::int64_t samples = 10000;
  std::int64_t size = 16;  // pixels of a side, 8 .. 64
  double noise = 0.25;     // 0 .. 1: amplitude of the pixel noise, of 1 = full ink
  std::uint64_t seed = 7;
};

// A data set without files: digits 0 .. 9 drawn with strokes, each turned, scaled, slanted, shifted, bent, of
// another thickness and ink, under pixel noise. A real task: a linear model stays about 10 points below a
// small network. Sample i is a pure function of (seed, split, size, noise, i), so that a shorter set is a
// prefix of a longer one; train and test are different streams. Pixels are rounded to bytes, which hides
// differences between math libraries.
class DigitsDataset final : public ByteImages {
 public:
  // Draws all samples: about 15 us each for 16 x 16. Throws Error(argument) on options out of range.
  DigitsDataset(const DigitsOptions& options, DataSplit split);
};

}  // namespace varscope
