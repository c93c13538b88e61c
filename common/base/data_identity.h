#pragma once

#include <cstdint>
#include <vector>

#include <boost/serialization/level.hpp>
#include <boost/serialization/tracking.hpp>

#include "common/base/hash.h"

namespace varscope {

// Which data a run learns from, or is tested on: what it takes to tell another data set, or the same file
// after somebody has edited it. A value.
struct DataIdentity {
  std::int64_t samples = 0;  // 0: nothing is known
  std::vector<std::int64_t> sample_shape;
  std::int64_t classes = 0;
  Digest vocabulary;  // of the words by their ids; zeros where the samples are no words
  Digest content;     // of all samples and labels, as they are loaded

  bool is_known() const { return samples > 0; }

  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& samples& sample_shape& classes& vocabulary& content;
  }
  friend bool operator==(const DataIdentity&, const DataIdentity&) = default;
};

}  // namespace varscope

BOOST_CLASS_IMPLEMENTATION(varscope::DataIdentity, boost::serialization::object_serializable)
BOOST_CLASS_TRACKING(varscope::DataIdentity, boost::serialization::track_never)
