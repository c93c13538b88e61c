#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/config/data_source.h"

namespace varscope {

// The keys of the built-in data sources. Plain value types; defaults are the member initialisers.

inline constexpr Choice<std::optional<DataSplit>> kDataSplits[] = {
    {std::nullopt, "auto"}, {DataSplit::train, "train"}, {DataSplit::test, "test"}};

// Of images, whatever they come from.
struct PairKeys {
  bool pairs = false;
  std::int64_t pair_seed = 1;
  void describe(Keys& keys);
  bool operator==(const PairKeys&) const = default;
};

struct IdxSource {
  std::string images;
  std::string labels;
  std::int64_t samples = 0;  // 0: all of them
  std::int64_t classes = 0;  // 0: as many as the labels show
  PairKeys pairs;
  void describe(Keys& keys);
  bool operator==(const IdxSource&) const = default;
};

struct FashionMnistSource {
  std::string folder = "fashion-mnist";
  std::optional<DataSplit> split;  // set after parse_job
  std::int64_t samples = 0;        // 0: all of them
  std::int64_t classes = 0;        // 0: as many as the labels show
  PairKeys pairs;
  void describe(Keys& keys);
  void resolve(DataSplit position) { split = split.value_or(position); }
  bool operator==(const FashionMnistSource&) const = default;
};

// Digits of equal seed differ by data.train or data.test.
struct DigitsSource {
  std::int64_t samples = 0;  // not 0 after parse_job
  double noise = 0.25;
  std::int64_t size = 16;  // pixels of a side
  std::int64_t seed = 7;
  PairKeys pairs;
  void describe(Keys& keys);
  void resolve(DataSplit position);
  bool operator==(const DigitsSource&) const = default;
};

struct TextSource {
  std::string file;
  std::optional<DataSplit> split;  // set after parse_job
  std::int64_t vocabulary = 10000;
  std::int64_t steps = 20;
  double test_fraction = 0.1;
  std::int64_t words = 0;  // 0: all of the part
  void describe(Keys& keys);
  void resolve(DataSplit position) { split = split.value_or(position); }
  bool operator==(const TextSource&) const = default;
};

std::vector<SourceKeyType> built_in_source_keys();

}  // namespace varscope
