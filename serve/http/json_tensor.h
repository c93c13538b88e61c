#pragma once

#include <simdjson.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "serve/engine/tensors.h"

namespace varscope {

// Parses JSON that no limit of depth but ours is for. Throws BadRequest with the byte where it breaks off.
class JsonParser {
 public:
  // Valid until the next call, and as long as this.
  simdjson::dom::element parse(std::string_view text);
  // Gives its memory back; what was parsed is not valid any more.
  void release();

 private:
  static constexpr std::size_t kMostDepth = 64;
  simdjson::dom::parser parser_;
};

// Elements of a nested array in order, and its extents.
struct JsonElements {
  std::vector<simdjson::dom::element> values;
  std::vector<std::int64_t> shape;
};
// `what` for messages: input "x". `is_flat`: extents of inner arrays do not matter. Throws BadRequest for
// arrays of which one has another length than its neighbours, or that stand beside elements.
JsonElements elements_of(simdjson::dom::element json, const std::string& what, bool is_flat);

// What tensors of a request borrow from.
struct RequestMemory {
  std::string body;
  JsonParser parser;  // texts of JSON lie in it
  std::vector<std::unique_ptr<std::vector<std::byte>>> numbers;
  std::vector<std::unique_ptr<std::string>> texts;
  // Gives back all that these do not need, which is most of the memory of a long request that waits: texts
  // are copied, so that the parser's memory, many times that of the body, can go. Returns the bytes that are
  // left, besides `numbers`.
  std::int64_t keep_only_for(std::vector<InputTensor>& inputs);
};

// Converts elements to a type; null is noted as missing. Throws BadRequest for an element that is not of the
// type, or outside its range.
void take_elements(const std::vector<simdjson::dom::element>& values, OipType type, const std::string& what,
                   RequestMemory& memory, InputTensor& tensor);

}  // namespace varscope
