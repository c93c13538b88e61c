#pragma once

#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/placement/bucket_plan.h"
#include "common/placement/row_plan.h"

namespace varscope {

// The units of a server whose order is recorded (ps/record/record_files.h), numbered from 0. A value type.
class RecordUnits {
 public:
  // `rows` may be null. Only the chunks of a plan of ChunkRule::whole_slices are units.
  RecordUnits(const BucketPlan& plan, const RowPlan* rows, ServerId server) : first_(plan.size(), -1) {
    for (const BucketId id : plan.of_server(server)) {
      if (!plan[id].is_pushed()) continue;
      first_[id] = count_;
      count_ += plan[id].n_wire_chunks();
    }
    if (rows == nullptr) return;
    first_table_ = count_;
    count_ += static_cast<int>(rows->size());
  }
  int count() const { return count_; }
  // REQUIRES: a bucket of the server that is pushed.
  int of(BucketId bucket, int chunk) const { return first_[bucket] + chunk; }
  int of(TableId table) const { return first_table_ + table.value; }

 private:
  IdVector<BucketId, int> first_;
  int first_table_ = 0, count_ = 0;
};

}  // namespace varscope
