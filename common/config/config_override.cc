#include "common/config/config_override.h"

#include <algorithm>
#include <string>
#include <vector>

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
  if (!node.is_map()) malformed(mark.origin, fmt::format("{} is {} and has no keys", path, node.describe()));
  if (ConfigEntry* entry = node.find_entry(part)) return entry->value;
  return node.add(part, ConfigNode{}, mark);
}

ConfigNode parse_value(std::string_view text, const std::string& origin) {
  if (text.empty()) return ConfigNode::text("");
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
