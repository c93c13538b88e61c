// Two visitors over `describe`: --explain, and the dump of the effective values.
#include <algorithm>
#include <utility>

#include "common/base/text.h"
#include "common/config/binder.h"

namespace varscope {

namespace {

ConfigNode node_of(bool value) { return ConfigNode::plain(value ? "true" : "false"); }
ConfigNode node_of(std::int64_t value) { return ConfigNode::plain(fmt::format("{}", value)); }
ConfigNode node_of(double value) {
  return ConfigNode::plain(fmt::format("{}", value));
}  // shortest that reads back
ConfigNode node_of(const std::string& value) { return ConfigNode::text(value); }
ConfigNode node_of(const ConfigNode& value) { return value; }
template <class T>
ConfigNode node_of(const std::vector<T>& values) {
  ConfigNode node = ConfigNode::list();
  for (const T& value : values) node.items.push_back(node_of(value));
  return node;
}

ConfigNode node_of(const ValueRef& value) {
  return std::visit([](const auto* v) { return node_of(*v); }, value);
}

class Explainer final : public Keys {
 public:
  Explainer(std::string path, std::string& out) : path_(std::move(path)), out_(out) {}

 private:
  void on_value(const KeyInfo& info, const ValueRef& value) override {
    const bool free_form = std::holds_alternative<ConfigNode*>(value);
    const ConfigNode now = node_of(value);
    const std::string type = *info.rule.type_name ? info.rule.type_name : type_text(value, info.rule);
    std::string initial = now.is_null() ? "nothing" : now.to_yaml();
    if (initial.ends_with('\n')) initial.pop_back();
    if (now.is_scalar() && now.scalar.empty()) initial = "\"\"";
    line(info, type, free_form && now.is_null() ? "none" : initial);
  }

  void on_choice(const KeyInfo& info, const ChoiceRef& choice) override {
    line(info, fmt::format("one of {}", comma_list(choice.names)),
         choice.current.empty() ? "\"\"" : choice.current);
  }

  void on_section(const KeyInfo& info, const SectionRef& section) override {
    const std::string path = join_keys(path_, info.name);
    const char* need = info.required ? " (required)" : info.optional ? " (optional)" : "";
    out_ += fmt::format("\n{}: section{}\n    {}\n", path, need, info.doc);
    Explainer inner(path, out_);
    section.describe(inner);
  }

  // data.train[type=text]: the words of a text
  // data.train[type=text].file: a text, required
  void on_variant(const KeyInfo& info, const VariantRef& variant) override {
    on_choice(info, variant.choice());
    for (std::size_t i = 0; i < variant.names.size(); ++i) {
      const std::string path = fmt::format("{}[{}={}]", path_, info.name, variant.names[i]);
      out_ += fmt::format("{}: {}\n", path, variant.summaries[i]);
      Explainer inner(path, out_);
      variant.describe_type(i, inner);
    }
  }

  // train.batch: an integer, default 128; allowed: 1 or more (samples)
  //     samples in the global batch
  void line(const KeyInfo& info, const std::string& type, const std::string& initial) {
    out_ += fmt::format("{}: {}", join_keys(path_, info.name), type);
    out_ += info.required ? ", required" : fmt::format(", default {}", initial);
    const std::string range = range_text(info.rule);
    if (!range.empty()) {
      out_ += fmt::format("; allowed: {}", range);
    } else if (*info.rule.unit) {
      out_ += fmt::format(" ({})", info.rule.unit);
    }
    if (*info.rule.only_for) out_ += fmt::format("; only for {} {}", selector_name(), info.rule.only_for);
    out_ += fmt::format("\n    {}\n", info.doc);
  }

  std::string path_;
  std::string& out_;
};

class Dumper final : public Keys {
 public:
  explicit Dumper(ConfigNode& out) : out_(out) {}

 private:
  void on_value(const KeyInfo& info, const ValueRef& value) override {
    if (!applies(info)) return;
    ConfigNode node = node_of(value);
    if (!node.is_null()) out_.add(std::string(info.name), std::move(node));
  }

  void on_choice(const KeyInfo& info, const ChoiceRef& choice) override {
    if (applies(info)) out_.add(std::string(info.name), ConfigNode::plain(choice.current));
  }

  void on_section(const KeyInfo& info, const SectionRef& section) override {
    if (!section.present) return;
    Dumper inner(out_.add(std::string(info.name), ConfigNode::map()));
    section.describe(inner);
  }

  ConfigNode& out_;
};

}  // namespace

std::string explain_node(std::string_view path, const Describe& describe) {
  std::string out;
  Explainer explainer{std::string(path), out};
  describe(explainer);
  if (out.starts_with('\n')) out.erase(0, 1);
  return out;
}

std::vector<ExplainedKey> explained_keys(std::string_view explanation) {
  std::vector<ExplainedKey> keys;
  std::string between;  // blank lines belong to what follows
  for (std::size_t begin = 0; begin < explanation.size();) {
    const std::size_t end = std::min(explanation.find('\n', begin), explanation.size() - 1) + 1;
    const std::string line(explanation.substr(begin, end - begin));
    begin = end;
    if (line == "\n") {
      between += line;
    } else if (!line.starts_with(' ') || keys.empty()) {
      keys.push_back({line.substr(0, line.find(": ")), between + line});
      between.clear();
    } else {
      keys.back().text += line;
    }
  }
  return keys;
}

ConfigNode dump_node(const Describe& describe) {
  ConfigNode root = ConfigNode::map();
  Dumper dumper(root);
  describe(dumper);
  return root;
}

}  // namespace varscope
