#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "serve/engine/inference.h"
#include "serve/http/http_server.h"
#include "serve/http/metrics.h"

namespace varscope {

// What each address of the server answers:
//   GET  /                                       a page for people
//   GET  /metrics                                for Prometheus
//   GET  /v2, /v2/health/live, /v2/health/ready  the Open Inference Protocol v2
//   GET  /v2/models/N[/versions/V][/ready]
//   POST /v2/models/N[/versions/V]/infer
//   GET  /v1/models/N[/versions/V][/metadata]    TensorFlow Serving's v1
//   POST /v1/models/N[/versions/V]:predict
// A model's name and a version's number are all that is taken from an address. Safe from any thread.
class Service {
 public:
  struct Options {
    std::string name = "model";
    std::string program;                     // its version
    std::int64_t stuck_ns = 30'000'000'000;  // a computation that runs for so long: not live any more
  };
  // Borrows both.
  Service(Inference& inference, ServeMetrics& metrics, Options options);

  void handle(HttpRequest request, HttpServer::Reply reply);
  // From now on it is not ready, so that a balancer sends no more; what comes is answered all the same.
  void begin_drain() { is_draining_ = true; }

 private:
  struct Target;  // what an address names
  void route(HttpRequest& request, HttpServer::Reply& reply);
  HttpResponse health(bool is_ready_asked) const;
  HttpResponse server_metadata() const;
  HttpResponse model_metadata(const ServedModel& model) const;
  HttpResponse v1_status() const;
  HttpResponse v1_metadata(const ServedModel& model) const;
  HttpResponse no_version(const std::string& version) const;
  void infer_v2(HttpRequest& request, const std::string& version, HttpServer::Reply& reply);
  void predict_v1(HttpRequest& request, const std::string& version, HttpServer::Reply& reply);

  void finish(const std::string& api, std::int64_t started, const InferAnswer& answer,
              const HttpServer::Reply& reply, const std::function<HttpResponse()>& encode);

  Inference& inference_;
  ServeMetrics& metrics_;
  const Options options_;
  std::atomic<bool> is_draining_{false};
};

// The page at /: HTML of its own, without anything from elsewhere.
std::string page_html(const std::string& name, const Inference& inference,
                      const ServeMetrics::Summary& summary);

}  // namespace varscope
