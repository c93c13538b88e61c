#pragma once

#include <cstdint>
#include <string>

#include "common/base/types.h"

namespace varscope {

// What server 0 tells every server before a save with checkpoint.incremental: which committed save of this
// start it goes on from.
struct SaveBase {
  std::string checkpoint_id;  // of the save that is to come
  std::string base_id;        // "": of none, all rows are written
  std::int64_t base_step = 0;
  std::int64_t number = 0;  // of the save to come among those that were committed in this start, from 0

  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& checkpoint_id& base_id& base_step& number;
  }
};

}  // namespace varscope
