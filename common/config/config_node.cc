#include "common/config/config_node.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <system_error>
#include <utility>

namespace varscope {

namespace {

// A scalar longer than this is shortened in messages.
constexpr std::size_t kShownBytes = 60;

std::string shown(const std::string& text) {
  std::string out = "\"";
  std::size_t n = 0;
  for (const char c : text) {
    const bool continues = (static_cast<unsigned char>(c) & 0xC0) == 0x80;
    if (n >= kShownBytes && !continues) return out + "...\"";
    // One message is one line.
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    ++n;
  }
  return out + "\"";
}

template <class Number>
bool parse_all(std::string_view text, Number& value) {
  if (text.starts_with('+')) {
    text.remove_prefix(1);
    if (text.starts_with('-') || text.starts_with('+')) return false;
  }
  Number parsed{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), parsed);
  if (error != std::errc{} || end != text.data() + text.size()) return false;
  value = parsed;
  return true;
}

}  // namespace

std::string position_of(const Mark& mark, std::string_view file) {
  if (!mark.origin.empty()) return fmt::format("{}: ", mark.origin);
  if (mark.line <= 0) return file.empty() ? std::string() : fmt::format("{}: ", file);
  return fmt::format("{}:{}:{}: ", file, mark.line, mark.column);
}

std::string join_keys(std::string_view prefix, std::string_view name) {
  return prefix.empty() ? std::string(name) : fmt::format("{}.{}", prefix, name);
}

void fail_at(const Mark& mark, std::string_view file, std::string_view path, std::string_view text,
             std::source_location where) {
  std::string message = position_of(mark, file);
  if (!path.empty()) message += fmt::format("{}: ", path);
  throw Error(ErrorKind::config, message.append(text), where);
}

void fail_at(const ConfigNode& node, std::string_view file, std::string_view path, std::string_view text,
             std::source_location where) {
  fail_at(node.mark, file, path, text, where);
}

ConfigNode ConfigNode::text(std::string value) {
  ConfigNode node = plain(std::move(value));
  node.quoted = true;
  return node;
}

ConfigNode ConfigNode::plain(std::string value) {
  ConfigNode node;
  node.kind = Kind::scalar;
  node.scalar = std::move(value);
  return node;
}

ConfigNode ConfigNode::list() { return list(std::vector<ConfigNode>{}); }

ConfigNode ConfigNode::list(std::vector<ConfigNode> items) {
  ConfigNode node;
  node.kind = Kind::list;
  node.items = std::move(items);
  return node;
}

ConfigNode ConfigNode::map() {
  ConfigNode node;
  node.kind = Kind::map;
  return node;
}

const ConfigEntry* ConfigNode::find_entry(std::string_view key) const {
  for (const ConfigEntry& entry : entries) {
    if (entry.key == key) return &entry;
  }
  return nullptr;
}

ConfigEntry* ConfigNode::find_entry(std::string_view key) {
  return const_cast<ConfigEntry*>(std::as_const(*this).find_entry(key));
}

const ConfigNode* ConfigNode::find(std::string_view key) const {
  const ConfigEntry* entry = find_entry(key);
  return entry ? &entry->value : nullptr;
}

const ConfigNode* ConfigNode::find_path(std::string_view dotted) const {
  const ConfigNode* node = this;
  while (node && !dotted.empty()) {
    const std::size_t dot = std::min(dotted.find('.'), dotted.size());
    const std::string_view part = dotted.substr(0, dot);
    dotted.remove_prefix(std::min(dot + 1, dotted.size()));
    if (node->is_list()) {
      std::int64_t index = -1;
      const bool valid = parse_number(part, index) && index >= 0 && index < std::ssize(node->items);
      node = valid ? &node->items[static_cast<std::size_t>(index)] : nullptr;
    } else {
      node = node->find(part);
    }
  }
  return node;
}

ConfigNode& ConfigNode::add(std::string key, ConfigNode value, Mark key_mark) {
  entries.push_back({std::move(key), std::move(key_mark), std::move(value)});
  return entries.back().value;
}

std::string ConfigNode::describe() const {
  switch (kind) {
    case Kind::null:
      return "nothing";
    case Kind::scalar:
      return shown(scalar);
    case Kind::list:
      return "a list";
    case Kind::map:
      return "a section";
  }
  return "?";
}

Digest config_hash(const ConfigNode& root) { return digest_of(std::string_view(root.to_canonical())); }

bool parse_number(std::string_view text, std::int64_t& value) { return parse_all(text, value); }

bool parse_number(std::string_view text, double& value) {
  double parsed = 0;
  if (!parse_all(text, parsed) || !std::isfinite(parsed)) return false;
  value = parsed;
  return true;
}

}  // namespace varscope
