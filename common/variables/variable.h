#pragma once

#include <cstdint>
#include <source_location>
#include <string>
#include <utility>
#include <vector>

#include "common/variables/regularizer.h"
#include "common/variables/variable_table.h"

namespace varscope {

// The collections a variable is in by default, by TensorFlow's names.
namespace collections {
inline constexpr const char* kGlobal = "variables";
inline constexpr const char* kTrainable = "trainable_variables";
inline constexpr const char* kLocal = "local_variables";
}  // namespace collections

// Where a variable was first made, for messages: "model.cc:12" or "job.yaml:14".
std::string location_text(const std::source_location& where);

// How the parts of a variable give its value.
enum class Combine : std::uint8_t {
  whole,     // no parts: it has values of its own
  concat,    // joined along axis(): a partitioned variable
  add,       // summed: VariableStore::sum
  multiply,  // multiplied element by element: VariableStore::product
};

// One variable: a description, immutable once made, owned by its store. A whole variable's values live in the
// servers' shards and in the worker's VariableMemory. A variable with parts is a handle: it has a name, dtype
// and shape, but is in no collection and no VariableTable; its parts are (or, if they are handles themselves,
// their parts). Safe to read from any thread.
class Variable {
 public:
  const std::string& name() const { return spec_.name; }    // "layer1/weights"
  const std::string& scope() const { return spec_.scope; }  // "layer1"
  DType dtype() const { return spec_.dtype; }
  const Shape& shape() const { return spec_.shape; }
  bool trainable() const { return spec_.trainable; }    // of a handle: some part is
  bool is_pushed() const { return spec_.is_pushed(); }  // trainable, or a moving average
  // Lives on its worker and never on a server; its first extent may be unknown: a row per sample of the run.
  bool is_local() const { return is_local_; }
  const VariableSpec& spec() const { return spec_; }
  const std::string& made_at() const { return made_at_; }
  // Position in order of creation over the whole store, handles not counted; of a handle -1.
  int index() const { return index_; }

  Combine combine() const { return combine_; }
  const std::vector<const Variable*>& parts() const { return parts_; }  // of a whole variable: none
  std::size_t axis() const { return axis_; }                            // of Combine::concat

 private:
  friend class VariableStore;
  Variable(VariableSpec spec, std::string made_at) : spec_(std::move(spec)), made_at_(std::move(made_at)) {}
  VariableSpec spec_;
  std::string made_at_;
  int index_ = -1;
  bool is_local_ = false;
  bool is_bare_ = false;  // made by make_variable: get_variable does not share it
  Combine combine_ = Combine::whole;
  std::size_t axis_ = 0;
  std::vector<const Variable*> parts_;
};

// What a new variable adds to the training loss.
struct RegularizationLoss {
  const Variable* variable = nullptr;  // whole, or a part of a partitioned variable
  Regularizer regularizer;
  std::string name;  // "layer1/weights/Regularizer"
};

}  // namespace varscope
