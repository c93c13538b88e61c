// A request of the Open Inference Protocol. The first byte, mod 4, says where its JSON ends: nowhere (0),
// where two more bytes say (1), or at the first byte 0, which no JSON has and which is taken out, so that
// data are reached whatever becomes of the JSON's length.
#include "tests/fuzz/requests.h"

using namespace varscope;
using namespace varscope::testing;

namespace {

struct Input {
  std::string body;
  std::int64_t header_length = -1;
};

Input input_of(std::span<const std::uint8_t> bytes) {
  Input in;
  const unsigned how = bytes.empty() ? 0 : bytes.front() % 4;
  std::span<const std::uint8_t> rest = bytes.subspan(std::min<std::size_t>(1, bytes.size()));
  if (how == 1 && rest.size() >= 2) {
    in.header_length = static_cast<std::int16_t>(rest[0] | rest[1] << 8);  // below 0: all of it
    rest = rest.subspan(2);
  }
  in.body.assign(rest.begin(), rest.end());
  if (const std::size_t end = in.body.find('\0'); how >= 2 && end != std::string::npos) {
    in.header_length = static_cast<std::int64_t>(end);
    in.body.erase(end, 1);
  }
  return in;
}

// The first outputs are as large as the inputs; of others, of which there may be hundreds, one element.
InferAnswer answer_to(const ProtocolRequest& request, std::string_view bits) {
  InferAnswer answer;
  answer.model.version.id = {12, "id-12", {}};
  for (std::size_t i = 0; i < request.is_binary.size(); ++i) {
    const std::vector<InputTensor>& inputs = request.infer.inputs;
    std::vector<std::int64_t> shape{1};
    if (i < 4 && i < inputs.size()) shape = inputs[i].shape;
    answer.outputs.push_back(output_of(request.infer.outputs.empty() ? "y" : request.infer.outputs[i],
                                       i + bits.size(), std::move(shape), bits));
  }
  return answer;
}

void check_answer(const ProtocolRequest& request, const InferAnswer& answer) {
  const HttpResponse response = encode_oip("m", request, answer);
  std::size_t n = response.body.size();
  for (const auto& [name, value] : response.headers) {
    require(name == "Inference-Header-Content-Length");
    n = std::stoul(value);
  }
  const nlohmann::json json = parsed(std::string_view(response.body).substr(0, n));
  std::string_view binary = std::string_view(response.body).substr(n);
  require(request.id.empty() ? !json.contains("id") : json["id"] == request.id);
  require(json["outputs"].size() == answer.outputs.size());
  for (std::size_t i = 0; i < answer.outputs.size(); ++i) {
    OutputTensor out = answer.outputs[i];
    const nlohmann::json& told = json["outputs"][i];
    require(told["name"] == out.name && told["shape"] == nlohmann::json(out.shape));
    if (request.is_binary[i]) {
      require(told["parameters"]["binary_data_size"] == out.data.size());
      const std::string_view own(reinterpret_cast<const char*>(out.data.data()), out.data.size());
      require(binary.starts_with(own));
      binary.remove_prefix(own.size());
      continue;
    }
    out.shape = {static_cast<std::int64_t>(n_elements(out.shape))};  // data lie flat
    std::size_t at = 0;
    check_numbers(told["data"], out, 0, at);
    require(at == out.data.size());
  }
  require(binary.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const ServableSchema image = image_schema(), table = table_schema();
  const Input in = input_of({data, size});
  ProtocolRequest request;
  try {
    request = decode_oip(in.body, in.header_length);
  } catch (const BadRequest& bad) {
    check_refusal(bad.what);
    return 0;
  }
  const std::size_t n_outputs = request.infer.outputs.size();
  require(request.is_binary.size() == std::max<std::size_t>(1, n_outputs));
  for (const InputTensor& tensor : request.infer.inputs) check_tensor(tensor);
  take_rows(image, request.infer);
  take_rows(table, request.infer);
  check_answer(request, answer_to(request, in.body));
  return 0;
}
