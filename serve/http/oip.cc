#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <unordered_set>
#include <utility>

#include <nlohmann/json.hpp>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "serve/http/json_tensor.h"
#include "serve/http/protocol.h"

namespace varscope {
namespace {

using simdjson::dom::element;
using simdjson::dom::object;
constexpr std::int64_t kMostElements = std::int64_t{1} << 32;

std::optional<element> member(const object& of, std::string_view key) {
  element e;
  if (of[key].get(e) != simdjson::SUCCESS) return std::nullopt;
  return e;
}
std::optional<object> object_in(const object& of, std::string_view key) {
  const auto e = member(of, key);
  object o;
  if (!e || e->get_object().get(o) != simdjson::SUCCESS) return std::nullopt;
  return o;
}
std::string text_in(const object& of, std::string_view key, const std::string& what) {
  const auto e = member(of, key);
  std::string_view text;
  if (!e || e->get_string().get(text) != simdjson::SUCCESS)
    throw BadRequest{fmt::format("{}: \"{}\" is missing, a text", what, key)};
  return std::string(text);
}
std::optional<std::int64_t> integer_in(const std::optional<object>& of, std::string_view key) {
  std::int64_t n = 0;
  if (!of) return std::nullopt;
  const auto e = member(*of, key);
  if (!e || e->get_int64().get(n) != simdjson::SUCCESS) return std::nullopt;
  return n;
}
bool is_true(const std::optional<object>& of, std::string_view key, bool otherwise) {
  bool is = otherwise;
  if (!of) return is;
  const auto e = member(*of, key);
  if (e && e->get_bool().get(is) != simdjson::SUCCESS) return otherwise;
  return is;
}

std::vector<std::int64_t> shape_in(const object& input, const std::string& what) {
  const auto e = member(input, "shape");
  simdjson::dom::array array;
  if (!e || e->get_array().get(array) != simdjson::SUCCESS)
    throw BadRequest{what + ": \"shape\" is missing, an array of extents"};
  std::vector<std::int64_t> shape;
  std::int64_t n_elements = 1;
  for (const element extent : array) {
    std::int64_t n = -1;
    if (extent.get_int64().get(n) != simdjson::SUCCESS || n < 0 || n > kMostElements)
      throw BadRequest{what + ": an extent of its shape is no number of 0 or more"};
    shape.push_back(n);
    const std::int64_t more = std::max<std::int64_t>(1, n);
    if (more > kMostElements / n_elements) throw BadRequest{what + ": its shape has too many elements"};
    n_elements *= more;
  }
  if (shape.empty()) throw BadRequest{what + ": its shape has no extents; the first one is the rows'"};
  return shape;
}

std::int64_t n_elements(const InputTensor& tensor) {
  return std::accumulate(tensor.shape.begin(), tensor.shape.end(), std::int64_t{1}, std::multiplies<>());
}

// Each text is preceded by its length.
void take_binary_texts(std::string_view bytes, const std::string& what, InputTensor& tensor) {
  for (std::size_t at = 0; at < bytes.size();) {
    std::uint32_t n = 0;
    if (bytes.size() - at < sizeof(n))
      throw BadRequest{what + ": its binary data end in the length of an element"};
    std::memcpy(&n, bytes.data() + at, sizeof(n));
    at += sizeof(n);
    if (bytes.size() - at < n) throw BadRequest{what + ": its binary data end in an element"};
    tensor.texts.push_back(bytes.substr(at, n));
    at += n;
  }
}

class Decoder {
 public:
  Decoder(std::string body, std::int64_t header_length) : memory_(std::make_shared<RequestMemory>()) {
    memory_->body = std::move(body);
    const std::string_view all = memory_->body;
    if (header_length > std::ssize(all))
      throw BadRequest{fmt::format("Inference-Header-Content-Length is {}, but the body has {} bytes",
                                   header_length, all.size())};
    const std::size_t n = header_length < 0 ? all.size() : static_cast<std::size_t>(header_length);
    json_ = all.substr(0, n);
    binary_ = all.substr(n);
  }
  ProtocolRequest run() {
    object root;
    if (memory_->parser.parse(json_).get_object().get(root) != simdjson::SUCCESS)
      throw BadRequest{"the body is no JSON object"};
    const std::optional<object> parameters = object_in(root, "parameters");
    if (member(root, "id")) request_.id = text_in(root, "id", "the request");
    if (const auto us = integer_in(parameters, "timeout"); us && *us > 0)
      request_.infer.deadline_ns = now_ns() + std::min<std::int64_t>(*us, std::int64_t{1} << 40) * 1000;
    take_inputs(root);
    take_outputs(root, is_true(parameters, "binary_data_output", false));
    if (!binary_.empty())
      throw BadRequest{fmt::format("{} bytes of binary data are of no input", binary_.size())};
    request_.infer.n_memory_bytes = memory_->keep_only_for(request_.infer.inputs);
    request_.infer.memory = memory_;
    return std::move(request_);
  }

 private:
  void take_inputs(const object& root) {
    const auto inputs = member(root, "inputs");
    simdjson::dom::array array;
    if (!inputs || inputs->get_array().get(array) != simdjson::SUCCESS)
      throw BadRequest{"\"inputs\" is missing, an array of tensors"};
    for (const element e : array) {
      object input;
      if (e.get_object().get(input) != simdjson::SUCCESS) throw BadRequest{"an input is no object"};
      take_input(input);
    }
  }
  void take_input(const object& input) {
    InputTensor tensor;
    tensor.name = text_in(input, "name", "an input");
    const std::string what = fmt::format("input \"{}\"", tensor.name);
    const std::string datatype = text_in(input, "datatype", what);
    const std::optional<OipType> type = oip_type_from(datatype);
    if (!type) throw BadRequest{fmt::format("{}: there is no datatype {}", what, datatype)};
    tensor.type = *type;
    tensor.shape = shape_in(input, what);
    const std::optional<std::int64_t> size = integer_in(object_in(input, "parameters"), "binary_data_size");
    const auto data = member(input, "data");
    if (size && data) throw BadRequest{what + ": it has both \"data\" and binary data"};
    if (!size && !data) throw BadRequest{what + ": it has neither \"data\" nor binary data"};
    std::size_t n = 0;
    if (size) {
      if (*size < 0 || *size > std::ssize(binary_))
        throw BadRequest{
            fmt::format("{}: binary_data_size is {}, but {} bytes are left", what, *size, binary_.size())};
      const std::string_view bytes = binary_.substr(0, static_cast<std::size_t>(*size));
      binary_.remove_prefix(bytes.size());
      if (*type == OipType::bytes) {
        take_binary_texts(bytes, what, tensor);
        n = tensor.texts.size();
      } else {
        if (bytes.size() % n_bytes_of(*type) != 0)
          throw BadRequest{
              fmt::format("{}: {} bytes are no whole number of {}", what, bytes.size(), datatype)};
        tensor.data = std::as_bytes(std::span(bytes));
        n = bytes.size() / n_bytes_of(*type);
      }
    } else {
      const JsonElements elements = elements_of(*data, what, true);
      take_elements(elements.values, *type, what, *memory_, tensor);
      n = elements.values.size();
    }
    if (static_cast<std::int64_t>(n) != n_elements(tensor))
      throw BadRequest{
          fmt::format("{}: its shape has {} elements, its data {}", what, n_elements(tensor), n)};
    request_.infer.inputs.push_back(std::move(tensor));
  }
  void take_outputs(const object& root, bool is_binary) {
    const auto outputs = member(root, "outputs");
    simdjson::dom::array array;
    if (outputs && outputs->get_array().get(array) != simdjson::SUCCESS)
      throw BadRequest{"\"outputs\" is no array"};
    if (outputs) {
      std::unordered_set<std::string> names;  // there may be millions in a body
      for (const element e : array) {
        object output;
        if (e.get_object().get(output) != simdjson::SUCCESS) throw BadRequest{"an output is no object"};
        std::string name = text_in(output, "name", "an output");
        if (!names.insert(name).second)
          throw BadRequest{fmt::format("output \"{}\" is asked for twice", name)};
        request_.infer.outputs.push_back(std::move(name));
        request_.is_binary.push_back(is_true(object_in(output, "parameters"), "binary_data", is_binary));
      }
    }
    if (request_.is_binary.empty()) request_.is_binary.push_back(is_binary);
    request_.infer.refuses_not_finite =
        std::ranges::find(request_.is_binary, false) != request_.is_binary.end();
  }

  std::shared_ptr<RequestMemory> memory_;
  std::string_view json_, binary_;
  ProtocolRequest request_;
};

template <class T>
void append_elements(const OutputTensor& output, std::vector<std::string>& out) {
  for (std::size_t at = 0; at + sizeof(T) <= output.data.size(); at += sizeof(T)) {
    T value;
    std::memcpy(&value, output.data.data() + at, sizeof(T));
    out.push_back(fmt::format("{}", value));
    if (out.back() == "-0") out.back() = "-0.0";  // "-0" would be a whole number, which has no sign
  }
}

std::vector<std::string> element_texts(const OutputTensor& output) {
  std::vector<std::string> texts;
  switch (output.type) {
    case OipType::fp32:
      append_elements<float>(output, texts);
      break;
    case OipType::fp64:
      append_elements<double>(output, texts);
      break;
    case OipType::int32:
      append_elements<std::int32_t>(output, texts);
      break;
    default:
      append_elements<std::int64_t>(output, texts);
  }
  return texts;
}

void nest(const std::vector<std::string>& texts, std::span<const std::int64_t> shape, std::size_t& at,
          std::string& out) {
  for (std::int64_t i = 0; i < shape.front(); ++i) {
    if (i > 0) out += ',';
    if (shape.size() == 1) {
      out += texts[at++];
    } else {
      out += '[';
      nest(texts, shape.subspan(1), at, out);
      out += ']';
    }
  }
}

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::string json_elements(const OutputTensor& output, bool is_nested) {
  const std::vector<std::string> texts = element_texts(output);
  std::string out;
  std::size_t at = 0;
  const std::vector<std::int64_t> flat{static_cast<std::int64_t>(texts.size())};
  nest(texts, is_nested ? std::span<const std::int64_t>(output.shape) : flat, at, out);
  return out;
}

ProtocolRequest decode_oip(std::string body, std::int64_t header_length) {
  return Decoder(std::move(body), header_length).run();
}

HttpResponse encode_oip(const std::string& name, const ProtocolRequest& request, const InferAnswer& answer) {
  const VersionId& id = answer.model.version.id;
  std::string json =
      fmt::format("{{\"model_name\":{},\"model_version\":{},", quoted(name), quoted(id.name()));
  if (!request.id.empty()) json += fmt::format("\"id\":{},", quoted(request.id));
  json += fmt::format("\"parameters\":{{\"manifest_id\":{},\"values_hash\":\"{}\"}},\"outputs\":[",
                      quoted(id.manifest_id), id.values_hash.hex());
  std::string binary;
  for (std::size_t i = 0; i < answer.outputs.size(); ++i) {
    const OutputTensor& out = answer.outputs[i];
    json += fmt::format("{}{{\"name\":{},\"datatype\":\"{}\",\"shape\":[{}],", i == 0 ? "" : ",",
                        quoted(out.name), to_string(out.type), fmt::join(out.shape, ","));
    if (request.is_binary[i]) {
      json += fmt::format("\"parameters\":{{\"binary_data_size\":{}}}}}", out.data.size());
      binary.append(reinterpret_cast<const char*>(out.data.data()), out.data.size());
    } else {
      json += fmt::format("\"data\":[{}]}}", json_elements(out, false));
    }
  }
  json += "]}";
  HttpResponse response;
  const bool has_binary = std::ranges::find(request.is_binary, true) != request.is_binary.end();
  if (has_binary) {
    response.type = "application/octet-stream";
    response.headers.emplace_back("Inference-Header-Content-Length", std::to_string(json.size()));
  }
  response.body = std::move(json) + binary;
  return response;
}

HttpResponse refusal_response(const Refusal& refusal) {
  int status = 500;
  switch (refusal.kind) {
    case Refusal::Kind::invalid:
      status = 400;
      break;
    case Refusal::Kind::not_found:
      status = 404;
      break;
    case Refusal::Kind::not_ready:
    case Refusal::Kind::busy:
    case Refusal::Kind::stopped:
      status = 503;
      break;
    case Refusal::Kind::expired:
      status = 504;
      break;
    case Refusal::Kind::not_finite:
    case Refusal::Kind::internal:
      break;
  }
  // An Error's text begins with its kind, which says nothing to a client.
  const std::string text = refusal.text.starts_with("data: ") ? refusal.text.substr(6) : refusal.text;
  HttpResponse response = error_response(status, text);
  if (refusal.kind == Refusal::Kind::busy) response.headers.emplace_back("Retry-After", "1");
  return response;
}

}  // namespace varscope
