// A request of TensorFlow Serving's REST API. The first byte says of which model: even of images, odd of a
// table's columns.
#include "tests/fuzz/requests.h"

using namespace varscope;
using namespace varscope::testing;

namespace {

Signature signature_of(const ServableSchema& schema) { return {RequestRows(schema).inputs(), {}}; }

void check_answer(const V1Request& request, std::vector<std::int64_t> shape, std::string_view bits) {
  InferAnswer answer;
  answer.outputs.push_back(output_of("y", bits.size(), std::move(shape), bits));
  const nlohmann::json json = parsed(encode_v1(request, answer).body);
  require(json.size() == 1);
  std::size_t at = 0;
  check_numbers(json[request.is_by_row ? "predictions" : "outputs"], answer.outputs.front(), 0, at);
  require(at == answer.outputs.front().data.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const ServableSchema schemas[] = {image_schema(), table_schema()};
  static const Signature signatures[] = {signature_of(schemas[0]), signature_of(schemas[1])};
  if (size == 0) return 0;
  const std::size_t which = data[0] % 2;
  const std::string body(data + 1, data + size);
  V1Request request;
  try {
    request = decode_v1(body, signatures[which]);
  } catch (const BadRequest& bad) {
    check_refusal(bad.what);
    return 0;
  }
  for (const InputTensor& tensor : request.infer.inputs) check_tensor(tensor);
  require(request.infer.refuses_not_finite);
  // By the model that it was decoded for, and by another one, which may have come meanwhile.
  for (const ServableSchema& schema : schemas) take_rows(schema, request.infer);
  if (!request.infer.inputs.empty()) check_answer(request, request.infer.inputs.front().shape, body);
  return 0;
}
