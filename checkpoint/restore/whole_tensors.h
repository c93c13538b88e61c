#pragma once

#include <string>
#include <vector>

#include "checkpoint/restore/reader.h"
#include "common/base/tensor.h"
#include "common/variables/slice.h"

namespace varscope {

// The value of a whole variable (slot "") or one of its optimizer slots, however it was divided when it
// was saved.
struct WholeTensor {
  std::string variable;  // VariableSpec::full_name()
  std::string slot;
  DType dtype = DType::float32;
  Shape shape;

  // "hidden/weights", "hidden/weights/momentum": the name in exported files and in reports.
  std::string name() const { return slot.empty() ? variable : variable + "/" + slot; }
};

// Of all variables in the order of the manifest; the slots behind each value, in the manifest's order.
// Variables without elements are there, their slots are not; tables are not. Pieces to stream one by are
// slice_variable(tensor.shape, tensor.dtype): contiguous, in row-major order, about 1 MiB at most.
std::vector<WholeTensor> whole_tensors(const CheckpointReader& reader);

}  // namespace varscope
