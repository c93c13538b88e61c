#include "common/config/yaml_reader.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

#include "common/config/utf8.h"

namespace varscope {

namespace {

// The scanner keeps some 250 bytes for each byte of a file of brackets, and looks far ahead.
constexpr std::size_t kMaxFileBytes = std::size_t{1} << 20;

Mark mark_from(const YAML::Mark& mark) {
  return {.line = mark.line + 1, .column = mark.column + 1, .origin = {}};
}

struct Size {
  std::size_t n_nodes = 0;
  std::size_t n_bytes = 0;
  int depth = 0;
};

void measure(const ConfigNode& node, int depth, Size& size) {
  size.n_nodes += 1;
  size.n_bytes += node.scalar.size();
  size.depth = std::max(size.depth, depth);
  for (const ConfigNode& item : node.items) measure(item, depth + 1, size);
  for (const ConfigEntry& entry : node.entries) {
    size.n_bytes += entry.key.size();
    measure(entry.value, depth + 1, size);
  }
}

// Builds the tree from the parser's events; recursion-free, and every bound is checked before anything grows.
class TreeBuilder final : public YAML::EventHandler {
 public:
  explicit TreeBuilder(const std::string& origin) : origin_(origin) {}

  ConfigNode take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (n_documents_++ > 0)
      fail_here(mark_from(mark), "content after the end of the first document; one is allowed");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    ConfigNode node;
    node.mark = mark_from(mark);
    // The parser puts an absent value where the next token is; the key is the better place.
    if (!stack_.empty() && stack_.back().has_key && node.mark.line != stack_.back().key_mark.line) {
      node.mark = stack_.back().key_mark;
    }
    complete(std::move(node), anchor);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    ConfigNode node = ConfigNode::plain(value);
    node.quoted = tag == "!" || tag == "tag:yaml.org,2002:str";
    node.mark = mark_from(mark);
    check_tag(tag, node.mark);
    complete(std::move(node), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) fail_here(mark_from(mark), "an alias stands inside the value it names");
    Size size;
    measure(found->second, static_cast<int>(stack_.size()) + 1, size);
    charge(size, mark_from(mark));
    place(ConfigNode(found->second), mark_from(mark));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(ConfigNode::list(), mark_from(mark), tag, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(ConfigNode::map(), mark_from(mark), tag, anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  // A list or map that is not closed yet.
  struct Open {
    ConfigNode node;
    YAML::anchor_t anchor;
    std::set<std::string, std::less<>> keys;
    std::vector<std::pair<Mark, ConfigNode>> merges;  // values of `<<`
    bool has_key = false;                             // `key` waits for its value
    bool key_is_merge = false;
    std::string key;
    Mark key_mark;
  };

  [[noreturn]] void fail_here(const Mark& mark, std::string_view text) const {
    fail_at(mark, origin_, "", text);
  }

  void check_tag(const std::string& tag, const Mark& mark) const {
    if (tag.empty() || tag == "?" || tag == "!" || tag.starts_with("tag:yaml.org,2002:")) return;
    fail_here(mark,
              fmt::format("the tag {} means nothing here; remove it", ConfigNode::plain(tag).describe()));
  }

  void charge(const Size& size, const Mark& mark) {
    if (size.depth > ConfigNode::kMaxDepth) {
      fail_here(mark, fmt::format("nested deeper than {} levels", ConfigNode::kMaxDepth));
    }
    total_.n_nodes += size.n_nodes;
    total_.n_bytes += size.n_bytes;
    if (total_.n_nodes > ConfigNode::kMaxNodes || total_.n_bytes > ConfigNode::kMaxBytes) {
      fail_here(mark, fmt::format("more than {} values or {} MiB once aliases are expanded",
                                  ConfigNode::kMaxNodes, ConfigNode::kMaxBytes >> 20));
    }
  }

  void open(ConfigNode node, const Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    check_tag(tag, mark);
    node.mark = mark;
    charge({.n_nodes = 1, .n_bytes = 0, .depth = static_cast<int>(stack_.size()) + 1}, mark);
    stack_.push_back(
        {.node = std::move(node), .anchor = anchor, .keys = {}, .merges = {}, .key = {}, .key_mark = {}});
  }

  void close() {
    Open done = std::move(stack_.back());
    stack_.pop_back();
    for (auto& [mark, merged] : done.merges) merge(merged, mark, done);
    remember(done.node, done.anchor);
    const Mark mark = done.node.mark;
    place(std::move(done.node), mark);
  }

  void complete(ConfigNode node, YAML::anchor_t anchor) {
    const Mark mark = node.mark;
    charge({.n_nodes = 1, .n_bytes = node.scalar.size(), .depth = static_cast<int>(stack_.size()) + 1}, mark);
    remember(node, anchor);
    place(std::move(node), mark);
  }

  void remember(const ConfigNode& node, YAML::anchor_t anchor) {
    if (anchor == YAML::NullAnchor) return;
    // The copy counts too: anchors may be nested.
    Size size;
    measure(node, 1, size);
    charge(size, node.mark);
    anchors_[anchor] = node;
  }

  void place(ConfigNode node, const Mark& mark) {
    if (stack_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& parent = stack_.back();
    if (parent.node.is_list()) {
      parent.node.items.push_back(std::move(node));
    } else if (!parent.has_key) {
      take_key(std::move(node), mark, parent);
    } else if (parent.key_is_merge) {
      parent.merges.emplace_back(parent.key_mark, std::move(node));
      parent.has_key = false;
    } else {
      parent.node.add(std::move(parent.key), std::move(node), parent.key_mark);
      parent.has_key = false;
    }
  }

  void take_key(ConfigNode node, const Mark& mark, Open& parent) const {
    if (!node.is_scalar()) fail_here(mark, "a key must be a plain text");
    parent.has_key = true;
    parent.key_is_merge = node.scalar == "<<" && !node.quoted;
    parent.key_mark = mark;
    if (!parent.keys.insert(node.scalar).second) {
      const ConfigEntry* first = parent.node.find_entry(node.scalar);
      const std::string where = first ? fmt::format("; first at line {}", first->key_mark.line) : "";
      fail_here(mark, fmt::format("the key {} is there twice{}", node.describe(), where));
    }
    parent.key = std::move(node.scalar);
  }

  // `<<: *base` or `<<: [*a, *b]`: keys that are not there yet; the earlier one wins.
  void merge(ConfigNode& from, const Mark& mark, Open& into) const {
    if (from.is_list()) {
      for (ConfigNode& item : from.items) {
        if (!item.is_map()) fail_here(mark, "<< takes a section or a list of sections");
        merge(item, mark, into);
      }
      return;
    }
    if (!from.is_map()) fail_here(mark, "<< takes a section or a list of sections");
    for (ConfigEntry& entry : from.entries) {
      if (into.keys.insert(entry.key).second) into.node.entries.push_back(std::move(entry));
    }
  }

  const std::string& origin_;
  int n_documents_ = 0;
  Size total_;
  std::vector<Open> stack_;
  std::map<YAML::anchor_t, ConfigNode> anchors_;
  ConfigNode root_;
};

// Does the given line (1-based) or the one before begin with a tab? The parser's own message does not say so.
bool tab_indented(std::string_view text, int line) {
  std::size_t begin = 0;
  for (int n = 1; n <= line && begin <= text.size(); ++n) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view indent = text.substr(begin, end - begin);
    const std::size_t first = indent.find_first_not_of(" \t");
    if (n >= line - 1 && indent.substr(0, first).find('\t') != std::string_view::npos) return true;
    begin = end + 1;
  }
  return false;
}

}  // namespace

ConfigNode read_yaml_text(std::string_view text, const std::string& origin) {
  if (text.size() > kMaxFileBytes) {
    fail(ErrorKind::config, "{}: larger than {} MiB; this is not a job description", origin,
         kMaxFileBytes >> 20);
  }
  check_text(text, origin);
  std::istringstream in{std::string(text)};
  TreeBuilder builder(origin);
  try {
    YAML::Parser parser(in);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& e) {
    const Mark mark = mark_from(e.mark);
    const char* hint =
        tab_indented(text, mark.line) ? " (a tab stands in the indentation; YAML wants spaces)" : "";
    fail_at(mark, origin, "", fmt::format("not valid YAML: {}{}", e.msg, hint));
  }
  return builder.take();
}

ConfigNode read_yaml_file(const std::string& path) {
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(ErrorKind::config, "{}: cannot be opened: {}", path, std::strerror(errno ? errno : EIO));
  // One byte more than allowed, so that read_yaml_text notices.
  std::string text(kMaxFileBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad() || (in.gcount() == 0 && errno == EISDIR)) {
    fail(ErrorKind::config, "{}: cannot be read: {}", path, std::strerror(errno ? errno : EIO));
  }
  text.resize(static_cast<std::size_t>(in.gcount()));
  return read_yaml_text(text, path);
}

}  // namespace varscope
