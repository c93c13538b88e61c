#include <algorithm>
#include <array>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/text.h"
#include "serve/http/json_tensor.h"
#include "serve/http/protocol.h"

namespace varscope {
namespace {

using simdjson::dom::element;
using simdjson::dom::object;

std::optional<std::vector<std::byte>> decode_base64(std::string_view text) {
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  std::vector<std::byte> out;
  out.reserve(text.size() * 3 / 4);
  std::uint32_t bits = 0;
  int n_bits = 0;
  for (const char c : text) {
    const int value = c >= 'A' && c <= 'Z'   ? c - 'A'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 26
                      : c >= '0' && c <= '9' ? c - '0' + 52
                      : c == '+' || c == '-' ? 62
                      : c == '/' || c == '_' ? 63
                                             : -1;
    if (value < 0) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    n_bits += 6;
    if (n_bits < 8) continue;
    n_bits -= 8;
    out.push_back(static_cast<std::byte>(bits >> n_bits & 0xff));
  }
  return out;
}

std::optional<std::string_view> base64_in(element e) {
  object o;
  std::string_view text;
  if (e.get_object().get(o) != simdjson::SUCCESS || o.size() != 1) return std::nullopt;
  if (o["b64"].get_string().get(text) != simdjson::SUCCESS) return std::nullopt;
  return text;
}

class V1Decoder {
 public:
  V1Decoder(std::string body, const Signature& signature)
      : signature_(signature), memory_(std::make_shared<RequestMemory>()) {
    memory_->body = std::move(body);
  }
  V1Request run() {
    object root;
    if (memory_->parser.parse(memory_->body).get_object().get(root) != simdjson::SUCCESS)
      throw BadRequest{"the body is no JSON object"};
    std::string_view name;
    if (root["signature_name"].get_string().get(name) == simdjson::SUCCESS && name != "serving_default")
      throw BadRequest{fmt::format("there is no signature {}; there is serving_default", name)};
    element instances, inputs;
    const bool has_instances = root["instances"].get(instances) == simdjson::SUCCESS;
    const bool has_inputs = root["inputs"].get(inputs) == simdjson::SUCCESS;
    if (has_instances == has_inputs)
      throw BadRequest{has_inputs ? "the body has both \"instances\" and \"inputs\": one of them"
                                  : "the body has neither \"instances\" (rows) nor \"inputs\" (columns)"};
    request_.is_by_row = has_instances;
    has_instances ? take_rows(instances) : take_columns(inputs);
    request_.infer.refuses_not_finite = true;
    request_.infer.n_memory_bytes = memory_->keep_only_for(request_.infer.inputs);
    request_.infer.memory = memory_;
    return std::move(request_);
  }

 private:
  const TensorInfo& only_input() const {
    if (signature_.inputs.size() == 1) return signature_.inputs.front();
    std::string names;
    for (const TensorInfo& i : signature_.inputs) names += (names.empty() ? "" : ", ") + i.name;
    throw BadRequest{fmt::format("the model has several inputs: {}; name them: {{\"{}\": ...}}", names,
                                 signature_.inputs.front().name)};
  }

  // What the model has under a name that the request has not had. So there are no more inputs than the
  // model's, however many names a body has.
  const TensorInfo& info_of(const std::string& name) const {
    const TensorInfo* info = signature_.input(name);
    if (info == nullptr) {
      std::vector<std::string> names;
      names.reserve(signature_.inputs.size());
      for (const TensorInfo& i : signature_.inputs) names.push_back(i.name);
      throw BadRequest{fmt::format("the model has no input \"{}\", it has {}{}", name, comma_list(names),
                                   did_you_mean(name, names))};
    }
    if (std::ranges::find(request_.infer.inputs, name, &InputTensor::name) != request_.infer.inputs.end())
      throw BadRequest{fmt::format("input \"{}\" is there twice", name)};
    return *info;
  }

  void take_rows(element instances) {
    simdjson::dom::array array;
    if (instances.get_array().get(array) != simdjson::SUCCESS) throw BadRequest{"\"instances\" is no array"};
    if (array.size() == 0) throw BadRequest{"\"instances\" is empty"};
    const element first = array.at(0);
    if (!first.is_object() || base64_in(first)) return add(only_input(), elements_by_row(array, {}));
    for (const auto& field : object(first)) {
      const TensorInfo& info = info_of(std::string(field.key));
      add(info, elements_by_row(array, info.name));
    }
  }
  // The elements of one input of all rows; `name` is empty where rows are no objects.
  JsonElements elements_by_row(const simdjson::dom::array& rows, const std::string& name) const {
    JsonElements all;
    std::int64_t n = 0;
    for (const element row : rows) {
      element value = row;
      const std::string what =
          name.empty() ? fmt::format("instance {}", n) : fmt::format("input \"{}\" of instance {}", name, n);
      if (!name.empty()) {
        object o;
        if (row.get_object().get(o) != simdjson::SUCCESS || o[name].get(value) != simdjson::SUCCESS)
          throw BadRequest{what + " is missing"};
      }
      const JsonElements one = elements_of(value, what, false);
      if (n == 0) all.shape = one.shape;
      if (one.shape != all.shape) throw BadRequest{what + " has another shape than the first one"};
      all.values.insert(all.values.end(), one.values.begin(), one.values.end());
      ++n;
    }
    all.shape.insert(all.shape.begin(), n);
    return all;
  }
  void take_columns(element inputs) {
    object named;
    if (inputs.get_object().get(named) != simdjson::SUCCESS || base64_in(inputs))
      return add(only_input(), elements_of(inputs, "\"inputs\"", false));
    for (const auto& field : named) {
      const TensorInfo& info = info_of(std::string(field.key));
      add(info, elements_of(field.value, fmt::format("input \"{}\"", info.name), false));
    }
  }

  void add(const TensorInfo& info, const JsonElements& elements) {
    InputTensor tensor;
    tensor.name = info.name;
    const std::string what = fmt::format("input \"{}\"", info.name);
    tensor.shape = elements.shape;
    if (tensor.shape.empty()) throw BadRequest{what + ": it is no array; its first extent is the rows'"};
    if (!elements.values.empty() && base64_in(elements.values.front())) {
      take_base64(elements, what, info, tensor);
    } else {
      take_elements(elements.values, type_of(elements, info), what, *memory_, tensor);
    }
    request_.infer.inputs.push_back(std::move(tensor));
  }
  // The signature's, or texts where texts are sent and taken.
  static OipType type_of(const JsonElements& elements, const TensorInfo& info) {
    const bool has_text = std::ranges::any_of(elements.values, [](element e) { return e.is_string(); });
    const bool takes_text = std::ranges::find(info.also, OipType::bytes) != info.also.end();
    return has_text && takes_text ? OipType::bytes : info.type;
  }
  // Raw bytes: of an image its pixels, else a text.
  void take_base64(const JsonElements& elements, const std::string& what, const TensorInfo& info,
                   InputTensor& tensor) {
    const bool is_text = info.type == OipType::bytes;
    tensor.type = is_text ? OipType::bytes : OipType::uint8;
    auto all = std::make_unique<std::vector<std::byte>>();
    for (std::size_t i = 0; i < elements.values.size(); ++i) {
      const auto text = base64_in(elements.values[i]);
      const auto bytes = text ? decode_base64(*text) : std::nullopt;
      if (!bytes) throw BadRequest{fmt::format("{}: element {} is no base64", what, i)};
      if (is_text) {
        memory_->texts.push_back(
            std::make_unique<std::string>(reinterpret_cast<const char*>(bytes->data()), bytes->size()));
        tensor.texts.push_back(*memory_->texts.back());
      } else {
        all->insert(all->end(), bytes->begin(), bytes->end());
        // Else bytes of one row would be taken for those of its neighbour.
        if (all->size() != (i + 1) * bytes->size())
          throw BadRequest{fmt::format("{}: element {} has {} bytes, another number than those before it",
                                       what, i, bytes->size())};
      }
    }
    if (is_text) return;
    const std::int64_t n_rows = tensor.shape.front();
    tensor.shape = info.shape;
    tensor.shape.front() = n_rows;
    const auto due =
        std::accumulate(tensor.shape.begin(), tensor.shape.end(), std::int64_t{1}, std::multiplies<>());
    if (due != std::ssize(*all))
      throw BadRequest{fmt::format("{}: {} bytes of {} rows; the model takes {}", what, all->size(), n_rows,
                                   tensor_text(info.shape, OipType::uint8))};
    memory_->numbers.push_back(std::move(all));
    tensor.data = *memory_->numbers.back();
  }

  const Signature& signature_;
  std::shared_ptr<RequestMemory> memory_;
  V1Request request_;
};

}  // namespace

V1Request decode_v1(std::string body, const Signature& signature) {
  return V1Decoder(std::move(body), signature).run();
}

HttpResponse encode_v1(const V1Request& request, const InferAnswer& answer) {
  HttpResponse response;
  response.body = fmt::format("{{\"{}\":[{}]}}", request.is_by_row ? "predictions" : "outputs",
                              json_elements(answer.outputs.front(), true));
  return response;
}

}  // namespace varscope
