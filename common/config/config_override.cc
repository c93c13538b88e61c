#include "common/config/config_override.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "common/base/text.h"
#include "common/config/job_config.h"
#include "common/config/yaml_reader.h"

namespace varscope {

namespace {

constexpr std::size_t kShownBytes = 80;

// What messages call the override; long values are shortened, and it stays one line.
std::string origin_of(std::string_view assignment) {
  std::string origin = fmt::format("--set {}", assignment.substr(0, kShownBytes));
  while (assignment.size() > kShownBytes && !origin.empty() &&
         (static_cast<unsigned char>(origin.back()) & 0x80)) {
    origin.pop_back();  // do not end inside a character
  }
  if (assignment.size() > kShownBytes) origin += "...";
  std::ranges::replace_if(
      origin, [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
  return origin;
}

[[noreturn]] void malformed(const std::string& origin, std::string_view why) {
  fail(ErrorKind::config, "{}: {}; expected --set KEY=VALUE, for example --set train.epochs=3", origin, why);
}

std::vector<std::string> parts_of(std::string_view key, const std::string& origin) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= key.size();) {
    const std::size_t end = std::min(key.find('.', begin), key.size());
    const std::string_view part = key.substr(begin, end - begin);
    const bool valid = !part.empty() && std::ranges::all_of(part, [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
             c == '-';
    });
    if (!valid) malformed(origin, fmt::format("\"{}\" is not a key", key));
    parts.emplace_back(part);
    begin = end + 1;
  }
  if (std::ssize(parts) > ConfigNode::kMaxDepth / 2) malformed(origin, "the key has too many parts");
  return parts;
}

void stamp(ConfigNode& node, const Mark& mark) {
  node.mark = mark;
  for (ConfigNode& item : node.items) stamp(item, mark);
  for (ConfigEntry& entry : node.entries) {
    entry.key_mark = mark;
    stamp(entry.value, mark);
  }
}

// Where a bare name stands for a section with that type: `compression: topk`.
bool may_be_a_name(std::string_view path) {
  constexpr std::array kSections{"compression", "initializer", "bias_initializer",
                                 "regularizer", "constraint",  "partitioner"};
  return path == "model.loss" ||
         std::ranges::find(kSections, path.substr(path.rfind('.') + 1)) != kSections.end();
}

// The child called `part`, made when missing.
ConfigNode& step_into(ConfigNode& node, const std::string& part, const std::string& path, const Mark& mark) {
  if (node.is_null()) {
    node = ConfigNode::map();
    node.mark = mark;
  }
  if (node.is_list()) {
    std::int64_t index = -1;
    if (!parse_number(part, index) || index < 0 || index >= std::ssize(node.items)) {
      malformed(mark.origin,
                fmt::format("{} is a list of {}, \"{}\" is not one of its positions (they begin at 0)", path,
                            node.items.size(), part));
    }
    return node.items[static_cast<std::size_t>(index)];
  }
  if (double number = 0; node.is_scalar() && may_be_a_name(path) && !parse_number(node.scalar, number)) {
    ConfigNode section = ConfigNode::map();
    section.mark = node.mark;
    section.add("type", node, node.mark);
    node = std::move(section);
  }
  if (!node.is_map()) malformed(mark.origin, fmt::format("{} is {} and has no keys", path, node.describe()));
  if (ConfigEntry* entry = node.find_entry(part)) return entry->value;
  return node.add(part, ConfigNode{}, mark);
}

// Every key of a job, whatever the values of others are.
std::vector<std::string> keys_of_a_job() {
  JobConfig any;
  any.data.test.emplace();
  any.checkpoint.keep_best.emplace();
  any.warm_start.emplace();
  return list_keys([&](Keys& keys) { any.describe(keys); });
}

// `node` has no `part`.
[[noreturn]] void fail_not_there(const ConfigNode& node, const std::string& key, const std::string& part,
                                 const Mark& mark) {
  std::vector<std::string> there;
  there.reserve(node.entries.size());
  for (const ConfigEntry& entry : node.entries) there.push_back(entry.key);
  std::string hint = did_you_mean(part, there);
  if (hint.empty()) hint = did_you_mean(key, keys_of_a_job());
  fail(ErrorKind::config, "{}: there is no {} to remove{}", mark.origin, key, hint);
}

void remove_key(ConfigNode& root, const std::vector<std::string>& parts, const std::string& key,
                const Mark& mark) {
  const std::vector<std::string> known = keys_of_a_job();
  const bool may_be_there = std::ranges::find(known, key) != known.end();
  ConfigNode* node = &root;
  std::string path;
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
    const bool missing = node->is_null() || (node->is_map() && node->find_entry(parts[i]) == nullptr);
    if (missing && may_be_there) return;
    if (missing) fail_not_there(*node, key, parts[i], mark);
    node = &step_into(*node, parts[i], path.empty() ? "the configuration" : path, mark);
    path = join_keys(path, parts[i]);
  }
  const std::string& last = parts.back();
  if (node->is_list()) {
    const ConfigNode& item = step_into(*node, last, path, mark);  // throws for a wrong position
    node->items.erase(node->items.begin() + (&item - node->items.data()));
    return;
  }
  if (std::erase_if(node->entries, [&](const ConfigEntry& e) { return e.key == last; }) > 0) return;
  if (!may_be_there) fail_not_there(*node, key, last, mark);
}

ConfigNode parse_value(std::string_view text, const std::string& origin) {
  try {
    return read_yaml_text(text, "the value");
  } catch (const Error& e) {
    malformed(origin, e.what());
  }
}

}  // namespace

void apply_override(ConfigNode& root, std::string_view assignment) {
  const Mark mark{.line = 0, .column = 0, .origin = origin_of(assignment)};
  const std::size_t equals = assignment.find('=');
  if (equals == std::string_view::npos) malformed(mark.origin, "there is no =");
  const std::vector<std::string> parts = parts_of(assignment.substr(0, equals), mark.origin);
  const std::string_view value_text = assignment.substr(equals + 1);

  if (value_text.empty()) return remove_key(root, parts, std::string(assignment.substr(0, equals)), mark);

  ConfigNode value = parse_value(value_text, mark.origin);
  stamp(value, mark);

  ConfigNode* node = &root;
  std::string path;
  for (const std::string& part : parts) {
    node = &step_into(*node, part, path.empty() ? "the configuration" : path, mark);
    path = join_keys(path, part);
  }
  *node = std::move(value);
}

}  // namespace varscope
