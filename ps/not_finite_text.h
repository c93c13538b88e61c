#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/transport/reports.h"

namespace varscope {

// What is known of the first step in which something was not finite.
struct NotFiniteStep {
  std::int64_t step = 0;
  bool is_first = false;       // these are the values that the run starts from: no step has been made
  std::string loss = {};       // "nan": of the step; "": it is finite
  std::string test_loss = {};  // of an evaluation after the step
  std::vector<NotFiniteFinding> findings = {};
  std::int64_t n_more = 0;  // findings that are left out
};

// "step 3: the loss is nan; the update made nan in hidden/weights (element 0), output/biases (slot m,
// element 2) and 4 more"; of a table "in user/embeddings (row 17, element 3)". At most five of each kind are
// named.
std::string text_of(const NotFiniteStep& step);

}  // namespace varscope
