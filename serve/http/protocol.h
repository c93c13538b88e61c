#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "serve/engine/inference.h"
#include "serve/http/http_server.h"

namespace varscope {

// A request's body has a mistake; `what` is for the client.
struct BadRequest {
  std::string what;
};

// An inference request as a protocol has it: what the engine is asked, and how it is answered.
struct ProtocolRequest {
  InferRequest infer;
  std::string id;
  std::vector<bool> is_binary = {};  // of each output; of the default one where none is named
};

// The Open Inference Protocol v2 over HTTP: JSON, and the extension for binary tensor data [1].
// `header_length`: of the JSON at the body's beginning, from Inference-Header-Content-Length; -1: all of it.
// Parameters that are not known are passed over; `timeout`, in microseconds, is the request's deadline.
// Throws BadRequest, with the byte for what is no JSON.
//
// [1] KServe: Open Inference Protocol, V2: "inference REST API", "binary tensor data extension"
ProtocolRequest decode_oip(std::string body, std::int64_t header_length);
// `name`: the model's. JSON, or JSON with binary data behind it and a header that says where.
HttpResponse encode_oip(const std::string& name, const ProtocolRequest& request, const InferAnswer& answer);

// TensorFlow Serving's REST API v1 [2]: `instances`, rows, or `inputs`, columns; objects by input where
// there are several; {"b64": ...} for raw bytes. It has no types: they are the signature's. Throws
// BadRequest.
//
// [2] TensorFlow Serving: RESTful API, "Predict API"
struct V1Request {
  InferRequest infer;
  bool is_by_row = true;  // instances, and predictions
};
V1Request decode_v1(std::string body, const Signature& signature);
HttpResponse encode_v1(const V1Request& request, const InferAnswer& answer);

// The elements of an output as JSON numbers that read back to the same bits, separated by ",". Nested by the
// shape where `is_nested`.
std::string json_elements(const OutputTensor& output, bool is_nested);

// What a refusal is in HTTP.
HttpResponse refusal_response(const Refusal& refusal);

}  // namespace varscope
