// The two texts of a ConfigNode: the canonical one and YAML.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "common/config/config_node.h"

namespace varscope {

namespace {

// Would this text, without quotes, mean something other than a string?
bool looks_typed(std::string_view text) {
  double number = 0;
  return text.empty() || text == "true" || text == "false" || text == "~" || text == "null" ||
         text == "Null" || text == "NULL" || parse_number(text, number);
}

void append_quoted(const std::string& text, std::string& out) {
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02X}", byte);
    } else {
      out += c;
    }
  }
  out += '"';
}

// Plain in every context: no indicator, no space, nothing that begins a comment, a list or a document.
bool safe_plain(std::string_view text) {
  const auto alnum = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  };
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") return false;
  if (text == "..." || text == "<<") return false;
  const bool is_signed =
      text.size() > 1 && (text[0] == '-' || text[0] == '+') && (alnum(text[1]) || text[1] == '.');
  if (!alnum(text[0]) && text[0] != '_' && text[0] != '/' && text[0] != '.' && !is_signed) return false;
  return std::ranges::all_of(
      text, [&](char c) { return alnum(c) || std::string_view("_./+-").find(c) != std::string_view::npos; });
}

void append_scalar(const ConfigNode& node, std::string& out) {
  const bool needs_quotes = node.quoted && looks_typed(node.scalar);
  if (!needs_quotes && safe_plain(node.scalar)) {
    out += node.scalar;
  } else {
    append_quoted(node.scalar, out);
  }
}

void append_key(const std::string& key, std::string& out) {
  if (safe_plain(key)) {
    out += key;
  } else {
    append_quoted(key, out);
  }
}

bool is_inline(const ConfigNode& node) {
  if (node.is_map()) return node.entries.empty();
  if (node.is_list()) {
    return std::ranges::all_of(node.items, [](const ConfigNode& i) { return i.is_scalar() || i.is_null(); });
  }
  return true;
}

void append_inline(const ConfigNode& node, std::string& out) {
  if (node.is_null()) {
    out += "null";
  } else if (node.is_scalar()) {
    append_scalar(node, out);
  } else if (node.is_map()) {
    out += "{}";
  } else {
    out += '[';
    for (std::size_t i = 0; i < node.items.size(); ++i) {
      if (i > 0) out += ", ";
      append_inline(node.items[i], out);
    }
    out += ']';
  }
}

// Whole lines, indented by `indent`.
void append_block(const ConfigNode& node, std::size_t indent, std::string& out) {
  if (is_inline(node)) {
    out.append(indent, ' ');
    append_inline(node, out);
    out += '\n';
    return;
  }
  for (const ConfigNode& item : node.items) {
    const std::size_t dash = out.size() + indent;
    append_block(item, indent + 2, out);
    out[dash] = '-';  // into the first line's indentation
  }
  for (const ConfigEntry& entry : node.entries) {
    out.append(indent, ' ');
    append_key(entry.key, out);
    out += ':';
    if (is_inline(entry.value)) {
      out += ' ';
      append_inline(entry.value, out);
      out += '\n';
    } else {
      out += '\n';
      append_block(entry.value, indent + 2, out);
    }
  }
}

void append_canonical(const ConfigNode& node, std::string& out) {
  switch (node.kind) {
    case ConfigNode::Kind::null:
      out += "null";
      return;
    case ConfigNode::Kind::scalar:
      // `!` marks a string that would be a number or a bool without its quotes.
      if (node.quoted && looks_typed(node.scalar)) out += '!';
      append_quoted(node.scalar, out);
      return;
    case ConfigNode::Kind::list:
      out += '[';
      for (const ConfigNode& item : node.items) {
        append_canonical(item, out);
        out += ',';
      }
      out += ']';
      return;
    case ConfigNode::Kind::map:
      break;
  }
  std::vector<const ConfigEntry*> sorted;
  sorted.reserve(node.entries.size());
  for (const ConfigEntry& entry : node.entries) sorted.push_back(&entry);
  std::ranges::sort(sorted, {}, [](const ConfigEntry* e) -> const std::string& { return e->key; });
  out += '{';
  for (const ConfigEntry* entry : sorted) {
    append_quoted(entry->key, out);
    out += ':';
    append_canonical(entry->value, out);
    out += ',';
  }
  out += '}';
}

}  // namespace

std::string ConfigNode::to_canonical() const {
  std::string out;
  append_canonical(*this, out);
  return out;
}

std::string ConfigNode::to_yaml() const {
  std::string out;
  append_block(*this, 0, out);
  return out;
}

}  // namespace varscope
