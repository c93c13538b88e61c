#include <cctype>
#include <filesystem>

#include "common/base/error.h"
#include "common/config/config_override.h"
#include "launch/commands/serve.h"
#include "launch/job/load_config.h"

namespace varscope {
namespace {

bool is_yaml_name(const std::string& path) {
  const std::string extension = std::filesystem::path(path).extension();
  return extension == ".yaml" || extension == ".yml";
}

// The section of --set alone.
ServeConfig serve_of_overrides(const std::vector<std::string>& overrides) {
  ConfigNode root = ConfigNode::map();
  for (const std::string& o : overrides) {
    if (!o.starts_with("serve.") && !o.starts_with("serve="))
      fail(
          ErrorKind::config,
          "--set {}: without a config only keys of serve can be set; name the config: varscope serve DIR CONFIG",
          o);
    apply_override(root, o);
  }
  const ConfigNode* serve = root.find("serve");
  return serve == nullptr ? ServeConfig() : read_serve(*serve, "the command line");
}

template <class T>
void take(const std::optional<T>& option, T& value) {
  if (option) value = *option;
}

void check_name(const std::string& name, const std::string& key) {
  for (const unsigned char c : name) {
    if (std::isalnum(c) == 0 && c != '-' && c != '_' && c != '.')
      fail(ErrorKind::config, "{} {}: it is part of addresses: letters, digits, \".\", \"-\" and \"_\"", key,
           name);
  }
}

}  // namespace

ServeSettings serve_settings(const ServeOptions& options, Fs& fs) {
  ServeSettings s;
  s.model = options.model;
  s.config = options.config;
  const bool is_config =
      options.config.empty() && is_yaml_name(options.model) && !fs.is_directory(options.model);
  const std::string file = is_config ? options.model : options.config;
  if (file.empty()) {
    s.serve = serve_of_overrides(options.overrides);
  } else {
    const JobConfig job = load_config(file, options.overrides);
    s.serve = job.serve.value_or(ServeConfig());
    if (is_config) s.model = job.checkpoint_dir();
  }
  take(options.listen, s.serve.listen);
  take(options.name, s.serve.name);
  take(options.version, s.serve.version);
  take(options.threads, s.serve.threads);
  take(options.max_batch, s.serve.max_batch);
  take(options.max_delay_us, s.serve.max_delay_us);
  take(options.max_queue, s.serve.max_queue);
  take(options.exact, s.serve.exact);
  take(options.memory_mib, s.serve.memory_mib);
  take(options.poll_ms, s.serve.poll_ms);
  take(options.drain_ms, s.serve.drain_ms);
  if (options.replaces) s.serve.swap = Swap::replace;

  const auto key = [&](bool is_option, const char* option, const char* name) {
    return is_option ? std::string(option) : (file.empty() ? "--set" : file + ":") + " serve." + name;
  };
  s.http = parse_address(s.serve.listen, key(options.listen.has_value(), "--listen", "listen"));
  s.policy =
      VersionPolicy::parse(s.serve.version, key(options.version.has_value(), "--version-policy", "version"));
  check_name(s.serve.name, key(options.name.has_value(), "--name", "name"));
  if (options.require) {
    s.gate = VersionGate::parse(*options.require);
  } else if (s.serve.require) {
    s.gate = VersionGate{s.serve.require->metric, s.serve.require->least, s.serve.require->most};
  }
  return s;
}

}  // namespace varscope
