#include "serve/http/service.h"

#include <charconv>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "serve/http/protocol.h"

namespace varscope {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }
HttpResponse json_response(const Json& json, int status = 200) {
  return {status, "application/json", dump(json), {}};
}

std::vector<std::string> segments_of(const std::string& path) {
  std::vector<std::string> all;
  for (std::size_t at = 1; at <= path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    all.push_back(path.substr(at, end - at));
    at = end + 1;
  }
  while (!all.empty() && all.back().empty()) all.pop_back();
  return all;
}

HttpResponse wrong_verb(const char* allowed) {
  HttpResponse r = error_response(405, std::string("this address takes ") + allowed);
  r.headers.emplace_back("Allow", allowed);
  return r;
}

Json tensors(const std::vector<TensorInfo>& all) {
  Json list = Json::array();
  for (const TensorInfo& t : all) {
    Json one{{"name", t.name}, {"datatype", to_string(t.type)}, {"shape", t.shape}};
    Json parameters = Json::object();
    if (!t.about.empty()) parameters["about"] = t.about;
    if (t.may_be_missing) parameters["optional"] = true;
    if (!t.words.empty() && t.words.size() <= 1000) parameters["names"] = t.words;
    if (!parameters.empty()) one["parameters"] = parameters;
    list.push_back(std::move(one));
  }
  return list;
}

std::optional<std::int64_t> header_length(const HttpRequest& request) {
  const std::string* text = request.header("inference-header-content-length");
  if (text == nullptr) return -1;
  std::int64_t n = -1;
  const auto [at, error] = std::from_chars(text->data(), text->data() + text->size(), n);
  if (error != std::errc() || at != text->data() + text->size() || n < 0) return std::nullopt;
  return n;
}

double seconds(std::int64_t ns) { return static_cast<double>(ns) * 1e-9; }

}  // namespace

// What follows /v1/models/ or /v2/models/.
struct Service::Target {
  std::string name, version, verb;  // verb: "", "infer", "ready", "metadata", "predict", ...
  // Nothing for an address that has another form.
  static std::optional<Target> of(const std::vector<std::string>& segments) {
    Target t;
    if (segments.size() < 3 || segments[1] != "models") return std::nullopt;
    std::vector<std::string> rest(segments.begin() + 2, segments.end());
    // v1 has the verb behind a colon.
    if (const std::size_t colon = rest.back().rfind(':'); colon != std::string::npos) {
      t.verb = rest.back().substr(colon + 1);
      rest.back().resize(colon);
    }
    t.name = rest[0];
    std::size_t at = 1;
    if (rest.size() >= 3 && rest[1] == "versions") {
      t.version = rest[2];
      at = 3;
    }
    if (at < rest.size() && t.verb.empty()) t.verb = rest[at++];
    return at == rest.size() ? std::optional(t) : std::nullopt;
  }
};

Service::Service(Inference& inference, ServeMetrics& metrics, Options options)
    : inference_(inference), metrics_(metrics), options_(std::move(options)) {}

void Service::handle(HttpRequest request, HttpServer::Reply reply) {
  try {
    route(request, reply);
  } catch (const BadRequest& bad) {
    metrics_.on_request(request.path.starts_with("/v1") ? "v1" : "v2", "", 400, 0, 0, 0, 0);
    reply(error_response(400, bad.what));
  } catch (const std::exception& e) {
    reply(error_response(500, std::string("internal error: ") + e.what()));
  }
}

void Service::route(HttpRequest& request, HttpServer::Reply& reply) {
  const bool is_get = request.method == "GET" || request.method == "HEAD", is_post = request.method == "POST";
  const std::vector<std::string> path = segments_of(request.path);
  const auto get = [&](HttpResponse response) { reply(is_get ? std::move(response) : wrong_verb("GET")); };
  if (path.empty())
    return get(
        {200,
         "text/html; charset=utf-8",
         page_html(options_.name, inference_, metrics_.summary()),
         {{"Content-Security-Policy",
           "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; form-action 'none'"}}});
  if (path == std::vector<std::string>{"metrics"})
    return get({200, "text/plain; version=0.0.4; charset=utf-8", metrics_.text(), {}});
  const bool is_v1 = path[0] == "v1", is_v2 = path[0] == "v2";
  if (is_v2 && path.size() == 1) return get(server_metadata());
  if (is_v2 && path.size() == 3 && path[1] == "health" && (path[2] == "live" || path[2] == "ready"))
    return get(health(path[2] == "ready"));
  const std::optional<Target> target = is_v1 || is_v2 ? Target::of(path) : std::nullopt;
  if (!target)
    return reply(error_response(
        404, "there is nothing at this address; see /v2, /v1/models/" + options_.name + ", /metrics"));
  if (target->name != options_.name)
    return reply(error_response(
        404, fmt::format("there is no model \"{}\"; there is {}", target->name, options_.name)));
  if (is_v2 && target->verb == "infer")
    return is_post ? infer_v2(request, target->version, reply) : reply(wrong_verb("POST"));
  if (is_v1 && target->verb == "predict")
    return is_post ? predict_v1(request, target->version, reply) : reply(wrong_verb("POST"));
  if (is_post) {
    const std::string base = fmt::format("/{}/models/{}", path[0], options_.name);
    return reply(
        error_response(400, is_v1 ? fmt::format("this address does not predict: POST to {}:predict", base)
                                  : fmt::format("this address does not infer: POST to {}/infer", base)));
  }
  if (is_v1 && target->verb.empty() && target->version.empty()) return get(v1_status());
  const std::optional<ServedModel> model = inference_.model(target->version);
  if (!model) return get(no_version(target->version));
  if (is_v2 && target->verb == "ready")
    return get(json_response({{"name", options_.name}, {"ready", !is_draining_}}, is_draining_ ? 503 : 200));
  if (is_v2 && target->verb.empty()) return get(model_metadata(*model));
  if (is_v1 && target->verb == "metadata") return get(v1_metadata(*model));
  if (is_v1 && target->verb.empty()) return get(v1_status());
  reply(error_response(404, fmt::format("there is no \"{}\" of a model", target->verb)));
}

// The text of the protocol has the field `live` in both.
HttpResponse Service::health(bool is_ready_asked) const {
  const bool is_live = inference_.longest_compute_ns() < options_.stuck_ns;
  std::string why;
  const bool is_ready = is_live && !is_draining_ && inference_.is_ready(&why);
  if (!is_ready_asked) return json_response({{"live", is_live}}, is_live ? 200 : 500);
  Json json{{"live", is_live}, {"ready", is_ready}};
  if (!is_ready)
    json["error"] = is_draining_ ? "the server ends" : !is_live ? "a computation does not end" : why;
  return json_response(json, is_ready ? 200 : 503);
}

HttpResponse Service::server_metadata() const {
  return json_response(
      {{"name", "varscope"}, {"version", options_.program}, {"extensions", {"binary_tensor_data"}}});
}

HttpResponse Service::model_metadata(const ServedModel& model) const {
  const VersionInfo& v = model.version;
  Json versions = Json::array();
  for (const VersionInfo& other : inference_.versions()) {
    if (other.state == VersionInfo::State::available) versions.push_back(other.id.name());
  }
  return json_response({{"name", options_.name},
                        {"versions", versions},
                        {"platform", "varscope"},
                        {"inputs", tensors(model.signature->inputs)},
                        {"outputs", tensors(model.signature->outputs)},
                        {"parameters",
                         {{"step", v.id.step},
                          {"manifest_id", v.id.manifest_id},
                          {"values_hash", v.id.values_hash.hex()},
                          {"exact", v.is_exact},
                          {"block", v.block}}}});
}

HttpResponse Service::v1_status() const {
  Json list = Json::array();
  for (const VersionInfo& v : inference_.versions()) {
    const bool is_there = v.state == VersionInfo::State::available;
    list.push_back({{"version", v.id.name()},
                    {"state", is_there ? "AVAILABLE" : "END"},
                    {"status", {{"error_code", is_there ? "OK" : "UNAVAILABLE"}, {"error_message", v.why}}}});
  }
  return json_response({{"model_version_status", list}});
}

HttpResponse Service::v1_metadata(const ServedModel& model) const {
  return json_response(
      {{"model_spec",
        {{"name", options_.name}, {"signature_name", ""}, {"version", model.version.id.name()}}},
       {"metadata",
        {{"inputs", tensors(model.signature->inputs)}, {"outputs", tensors(model.signature->outputs)}}}});
}

HttpResponse Service::no_version(const std::string& version) const {
  std::string why;
  if (!inference_.is_ready(&why)) return error_response(503, why);
  std::string there;
  for (const VersionInfo& v : inference_.versions()) {
    if (v.state == VersionInfo::State::available) there += (there.empty() ? "" : ", ") + v.id.name();
  }
  return error_response(404, fmt::format("there is no version {}; there is {}", version, there));
}

void Service::infer_v2(HttpRequest& request, const std::string& version, HttpServer::Reply& reply) {
  const std::int64_t started = now_ns();
  const auto length = header_length(request);
  if (!length) throw BadRequest{"Inference-Header-Content-Length is no number"};
  auto decoded = std::make_shared<ProtocolRequest>(decode_oip(std::move(request.body), *length));
  decoded->infer.version = version;
  decoded->infer.is_abandoned = std::move(request.is_abandoned);
  InferRequest asked = decoded->infer;
  inference_.infer(std::move(asked), [this, decoded, reply, started](InferAnswer answer) {
    finish("v2", started, answer, reply, [&] { return encode_oip(options_.name, *decoded, answer); });
  });
}

void Service::predict_v1(HttpRequest& request, const std::string& version, HttpServer::Reply& reply) {
  const std::int64_t started = now_ns();
  const std::optional<ServedModel> model = inference_.model(version);
  if (!model) return reply(no_version(version));
  auto decoded = std::make_shared<V1Request>(decode_v1(std::move(request.body), *model->signature));
  decoded->infer.version = version;
  decoded->infer.is_abandoned = std::move(request.is_abandoned);
  InferRequest asked = decoded->infer;
  inference_.infer(std::move(asked), [this, decoded, reply, started](InferAnswer answer) {
    finish("v1", started, answer, reply, [&] { return encode_v1(*decoded, answer); });
  });
}

// On a compute thread, where nothing may be thrown.
void Service::finish(const std::string& api, std::int64_t started, const InferAnswer& answer,
                     const HttpServer::Reply& reply, const std::function<HttpResponse()>& encode) {
  HttpResponse response;
  try {
    response = answer.refusal ? refusal_response(*answer.refusal) : encode();
  } catch (const std::exception& e) {  // no memory for it, say
    response = error_response(500, std::string("the answer cannot be written: ") + e.what());
  }
  metrics_.on_request(api, answer.refusal ? "" : answer.model.version.id.name(), response.status,
                      seconds(now_ns() - started), seconds(answer.queue_ns), seconds(answer.compute_ns),
                      answer.n_rows);
  reply(std::move(response));
}

}  // namespace varscope
