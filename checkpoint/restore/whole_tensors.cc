#include "checkpoint/restore/whole_tensors.h"

#include <set>

namespace varscope {

std::vector<WholeTensor> whole_tensors(const CheckpointReader& reader) {
  std::vector<WholeTensor> tensors;
  std::set<std::string> seen;
  for (const VariableSpec& v : reader.manifest().variables.variables()) {
    if (v.is_table() || !seen.insert(v.full_name()).second) continue;  // another part of it
    tensors.push_back({v.full_name(), "", v.dtype, v.full_shape()});
    for (const std::string& slot : reader.manifest().slots) {
      if (reader.has(v.full_name(), slot))
        tensors.push_back({v.full_name(), slot, reader.dtype(v.full_name(), slot), v.full_shape()});
    }
  }
  return tensors;
}

}  // namespace varscope
