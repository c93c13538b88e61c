#include <ctime>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/text.h"
#include "serve/http/service.h"

namespace varscope {
namespace {

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

constexpr const char* kStyle = R"(<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem 1.2rem .2rem 0; vertical-align: top; }
th { font-weight: 600; border-bottom: 1px solid #8888; } code, textarea, pre { font: 14px/1.4 ui-monospace, monospace; }
textarea { width: 100%; box-sizing: border-box; height: 9rem; } pre { white-space: pre-wrap; overflow-wrap: anywhere; }
button { font: inherit; padding: .3rem 1rem; } .quiet { color: #888; } .bad { color: #c33; }
</style>)";

// Sends what is in the form, and shows what comes.
constexpr const char* kScript = R"(<script>
document.getElementById('ask').addEventListener('click', async () => {
  const out = document.getElementById('answer'), started = performance.now();
  out.className = ''; out.textContent = '...';
  try {
    const r = await fetch(out.dataset.url, {method: 'POST', body: document.getElementById('body').value});
    const text = await r.text();
    out.className = r.ok ? '' : 'bad';
    out.textContent = r.status + ' in ' + (performance.now() - started).toFixed(1) + ' ms\n' + text;
  } catch (e) { out.className = 'bad'; out.textContent = String(e); }
});
if (location.hash === '#ask') document.getElementById('ask').click();
</script>)";

std::string table_of(const std::vector<TensorInfo>& all) {
  std::string out = "<table><tr><th>name</th><th>shape and type</th><th></th></tr>\n";
  for (const TensorInfo& t : all)
    out += fmt::format("<tr><td><code>{}</code></td><td><code>{}</code></td><td>{}{}</td></tr>\n",
                       escaped(t.name), escaped(tensor_text(t.shape, t.type)), escaped(t.about),
                       t.may_be_missing ? "; may be missing" : "");
  return out + "</table>\n";
}

nlohmann::json zeros(std::span<const std::int64_t> shape, const nlohmann::json& zero) {
  if (shape.empty()) return zero;
  nlohmann::json list = nlohmann::json::array();
  for (std::int64_t i = 0; i < shape.front(); ++i) list.push_back(zeros(shape.subspan(1), zero));
  return list;
}

// A row to begin with.
std::string example_of(const Signature& signature) {
  nlohmann::ordered_json row;
  for (const TensorInfo& t : signature.inputs) {
    const nlohmann::json zero = t.type == OipType::bytes ? nlohmann::json("") : nlohmann::json(0);
    row[t.name] = zeros(std::span(t.shape).subspan(1), zero);
  }
  if (signature.inputs.size() == 1) return fmt::format("{{\"instances\": [{}]}}", row.front().dump());
  return fmt::format("{{\"instances\": [{}]}}", row.dump());
}

std::string time_text(std::int64_t ns) {
  if (ns == 0) return "";
  const std::time_t seconds = ns / 1'000'000'000;
  std::tm tm{};
  ::gmtime_r(&seconds, &tm);
  std::array<char, 40> text{};
  const std::size_t n = std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &tm);
  return std::string(text.data(), n);
}

std::string ms(double seconds) { return fmt::format("{:.3g} ms", seconds * 1e3); }

std::string versions_table(const Inference& inference) {
  std::string out =
      "<h2>Versions</h2>\n<table><tr><th>step</th><th>state</th><th>committed</th><th>manifest</th><th>figures</th></tr>\n";
  for (const VersionInfo& v : inference.versions()) {
    const bool is_there = v.state == VersionInfo::State::available;
    std::string figures = v.why;
    for (const auto& [name, value] : v.metrics)
      figures += fmt::format("{}{} {:.4g}", figures.empty() ? "" : ", ", name, value);
    out += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td><code>{}</code></td><td>{}</td></tr>\n",
                       v.id.step, is_there ? "served" : "gone", time_text(v.committed_ns),
                       escaped(v.id.manifest_id), escaped(figures));
  }
  return out + "</table>\n";
}

}  // namespace

std::string page_html(const std::string& name, const Inference& inference, const ServeMetrics::Summary& s) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>\n{1}</head><body>\n<h1>{0}</h1>\n",
      escaped(name), kStyle);
  const std::optional<ServedModel> model = inference.model();
  if (!model) {
    std::string why;
    inference.is_ready(&why);
    return out + fmt::format("<p class=\"bad\">Nothing is served: {}.</p>\n</body></html>\n", escaped(why));
  }
  out += fmt::format("<p class=\"quiet\">step {}, {}, values {}</p>\n", model->version.id.step,
                     bytes_text(model->version.n_bytes), escaped(model->version.id.values_hash.hex()));
  out += fmt::format(
      "<h2>Since the start</h2>\n<table><tr><th>requests</th><th>failed</th><th>rows</th><th>requests/s</th><th>median</th><th>99 %</th></tr>\n"
      "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.3g}</td><td>{}</td><td>{}</td></tr></table>\n",
      with_commas(s.n_requests), with_commas(s.n_failed), with_commas(s.n_rows),
      s.seconds > 0 ? static_cast<double>(s.n_requests) / s.seconds : 0.0,
      s.median_s > 0 ? ms(s.median_s) : "", s.p99_s > 0 ? ms(s.p99_s) : "");
  out += "<h2>Inputs</h2>\n" + table_of(model->signature->inputs);
  out += "<h2>Outputs</h2>\n" + table_of(model->signature->outputs);
  out += versions_table(inference);
  out += fmt::format(
      "<h2>Try it</h2>\n<p>A row, as JSON:</p>\n<textarea id=\"body\" spellcheck=\"false\">{}</textarea>\n"
      "<p><button id=\"ask\">Predict</button></p>\n<pre id=\"answer\" data-url=\"/v1/models/{}:predict\"></pre>\n",
      escaped(example_of(*model->signature)), escaped(name));
  out +=
      "<p class=\"quiet\"><a href=\"/v2\">/v2</a> Open Inference Protocol, <a href=\"/metrics\">/metrics</a> Prometheus</p>\n";
  return out + kScript + "</body></html>\n";
}

}  // namespace varscope
