#include <nlohmann/json.hpp>

#include "serve/http/http_server.h"

namespace varscope {

HttpResponse error_response(int status, const std::string& text) {
  using Json = nlohmann::json;
  return {status,
          "application/json",
          Json{{"error", text}}.dump(-1, ' ', false, Json::error_handler_t::replace),
          {}};
}

}  // namespace varscope
