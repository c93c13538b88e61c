#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "common/config/config_node.h"

namespace varscope {

// One `describe` per struct says everything about its keys; it serves reading, explaining and dumping. A
// layer type:
//
//   enum class Activation { none, relu };
//   inline constexpr Choice<Activation> kActivations[] = {{Activation::none, "none"},
//                                                         {Activation::relu, "relu"}};
//
//   struct DenseKeys {
//     std::int64_t units = 0;
//     Activation activation = Activation::none;                 // defaults are the member initialisers
//     void describe(Keys& keys) {
//       keys.required_key("units", units, "outputs of the layer", {.unit = "neurons", .min = 1});
//       keys.choice("activation", activation, kActivations, "applied to the output");
//     }
//   };
//
//   const auto dense = bind_keys<DenseKeys>(layer_node, file, "model.layers.0", {"type", "name"});
//   if (dense.units % 8)
//     fail_at(*layer_node.find("units"), file, "model.layers.0.units", "must be a multiple of 8");
//   std::cout << explain_keys<DenseKeys>("model.layers[type=dense]");

// What holds for a value beyond its type. Bounds are for each number of a list.
struct Rule {
  const char* unit = "";             // "samples", "seconds"
  std::optional<double> min = {};    // smallest allowed
  std::optional<double> max = {};    // largest allowed
  std::optional<double> above = {};  // must be greater
  std::optional<double> below = {};  // must be smaller
  // The values of the section's selector, comma separated, that have this key ("adam, adamw"); empty: all.
  // Elsewhere the key is an error when it is there, is not required, and is not dumped.
  const char* only_for = "";
  const char* type_name = "";  // replaces the type's name in --explain; for free-form nodes
  // For numbers: 0 means never, and can be written as `off`, whatever the bounds.
  bool may_be_off = false;
  bool is_path = false;    // a text: a file or folder, see common/config/paths.h
  bool not_empty = false;  // of a text
};

// One row of the name table of an enum.
template <class E>
struct Choice {
  E value;
  const char* name;
};

template <class E, std::size_t N>
constexpr const char* choice_name(const Choice<E> (&table)[N], E value) {
  for (const auto& row : table) {
    if (row.value == value) return row.name;
  }
  return "?";
}

struct KeyInfo {
  std::string_view name;
  std::string_view doc;
  Rule rule = {};
  bool required = false;
  bool optional = false;  // a section that may be absent as a whole
};

using ValueRef = std::variant<bool*, std::int64_t*, double*, std::string*, std::vector<std::int64_t>*,
                              std::vector<double>*, std::vector<std::string>*, ConfigNode*>;

// An enum, or a text out of a list, without its type.
struct ChoiceRef {
  std::vector<std::string> names;
  std::string current;
  std::function<void(std::size_t)> set;  // by index into names
};

class Keys;
// A nested struct without its type; `describe` makes an optional one that is absent.
struct SectionRef {
  bool present = true;
  std::function<void(Keys&)> describe;
};

// A choice that decides which keys follow it in the section, each type's in a struct of its own.
struct VariantRef {
  std::vector<std::string> names = {};
  std::vector<std::string> summaries = {};  // of each type, for --explain
  std::string current;
  std::function<void(std::size_t)> set;                   // makes that type's keys, with defaults
  std::function<void(Keys&)> describe;                    // the keys of the current type
  std::function<void(std::size_t, Keys&)> describe_type;  // those of any type, with defaults

  ChoiceRef choice() const { return {names, current, set}; }
};

// What `describe` talks to; the reader, the explainer and the dumper implement it. One object per section.
class Keys {
 public:
  virtual ~Keys() = default;

  // T: bool, std::int64_t, double, std::string, a std::vector of the last three, or ConfigNode (free-form:
  // anything the user wrote, kept with its marks).
  template <class T>
  void key(std::string_view name, T& value, std::string_view doc, const Rule& rule = {}) {
    on_value({name, doc, rule, false}, ValueRef(&value));
  }
  template <class T>
  void required_key(std::string_view name, T& value, std::string_view doc, const Rule& rule = {}) {
    on_value({name, doc, rule, true}, ValueRef(&value));
  }

  template <class E, std::size_t N>
  void choice(std::string_view name, E& value, const Choice<E> (&table)[N], std::string_view doc,
              const Rule& rule = {}) {
    on_choice({name, doc, rule, false}, choice_ref(value, table));
  }
  template <class E, std::size_t N>
  void required_choice(std::string_view name, E& value, const Choice<E> (&table)[N], std::string_view doc,
                       const Rule& rule = {}) {
    on_choice({name, doc, rule, true}, choice_ref(value, table));
  }
  // A text out of names known only when the program runs.
  void choice(std::string_view name, std::string& value, const std::vector<std::string>& names,
              std::string_view doc, const Rule& rule = {});

  // A choice that decides which of the following keys exist (Rule::only_for). Must come before them, once per
  // section.
  template <class E, std::size_t N>
  void selector(std::string_view name, E& value, const Choice<E> (&table)[N], std::string_view doc) {
    select({name, doc, {}, false}, choice_ref(value, table));
    selected_ = choice_name(table, value);
  }
  template <class E, std::size_t N>
  void required_selector(std::string_view name, E& value, const Choice<E> (&table)[N], std::string_view doc) {
    select({name, doc, {}, true}, choice_ref(value, table));
    selected_ = choice_name(table, value);
  }

  void required_variant(std::string_view name, const VariantRef& variant, std::string_view doc) {
    on_variant({name, doc, {}, true}, variant);
  }

  template <class S>
  void section(std::string_view name, S& value, std::string_view doc) {
    on_section({name, doc, {}, false}, {true, [&value](Keys& keys) { value.describe(keys); }});
  }
  template <class S>
  void required_section(std::string_view name, S& value, std::string_view doc) {
    on_section({name, doc, {}, true}, {true, [&value](Keys& keys) { value.describe(keys); }});
  }
  // Absent also when the user wrote the key without a value.
  template <class S>
  void optional_section(std::string_view name, std::optional<S>& value, std::string_view doc) {
    on_section({name, doc, {}, false, true}, {value.has_value(), [&value](Keys& keys) {
                                                if (!value) value.emplace();
                                                value->describe(keys);
                                              }});
  }

 protected:
  virtual void on_value(const KeyInfo& info, const ValueRef& value) = 0;
  virtual void on_choice(const KeyInfo& info, const ChoiceRef& value) = 0;
  virtual void on_section(const KeyInfo& info, const SectionRef& section) = 0;
  // The choice, then the keys of the current type.
  virtual void on_variant(const KeyInfo& info, const VariantRef& variant);

  // Does the selector's value have this key?
  bool applies(const KeyInfo& info) const;
  const std::string& selector_name() const { return selector_name_; }
  const std::string& selected() const { return selected_; }

 private:
  template <class E, std::size_t N>
  static ChoiceRef choice_ref(E& value, const Choice<E> (&table)[N]) {
    ChoiceRef ref{.names = {}, .current = choice_name(table, value), .set = [&](std::size_t i) {
                    value = table[i].value;
                  }};
    for (const auto& row : table) ref.names.emplace_back(row.name);
    return ref;
  }
  void select(const KeyInfo& info, const ChoiceRef& ref);

  std::string selector_name_;
  std::string selected_;
};

using Describe = std::function<void(Keys&)>;

// Reads the keys of a map (a null node counts as an empty one) into what `describe` names. `path` is the
// section's dotted path, empty for the root; `also_allowed` names keys that the caller reads himself. Throws
// Error(config), one message for the first problem: an unknown key, a wrong type, a value out of range, a
// missing key.
void bind_node(const ConfigNode& node, std::string_view file, std::string_view path, const Describe& describe,
               const std::vector<std::string>& also_allowed = {});
// Every key with its type, unit, default, range and meaning; two lines each.
std::string explain_node(std::string_view path, const Describe& describe);
// What explanations say of keys that several sections or layers have: once, or at each of them.
enum class ExplainDetail : std::uint8_t { once, every_key };
// The parts of an explanation: what is said of one key or section, with its line ends. Headings of other
// forms ("type: dense") are parts too.
struct ExplainedKey {
  std::string path;  // up to ": "
  std::string text;
};
std::vector<ExplainedKey> explained_keys(std::string_view explanation);
// The keys and their present values as a tree, those that do not apply left out.
ConfigNode dump_node(const Describe& describe);
// Every dotted key; sections too.
std::vector<std::string> list_keys(const Describe& describe);

template <class S>
S bind_keys(const ConfigNode& node, std::string_view file, std::string_view path,
            const std::vector<std::string>& also_allowed = {}) {
  S section{};
  bind_node(
      node, file, path, [&](Keys& keys) { section.describe(keys); }, also_allowed);
  return section;
}

template <class S>
std::string explain_keys(std::string_view path) {
  S section{};
  return explain_node(path, [&](Keys& keys) { section.describe(keys); });
}

template <class S>
ConfigNode dump_keys(const S& value) {
  S section = value;
  return dump_node([&](Keys& keys) { section.describe(keys); });
}

// "1 to 8 samples", "more than 0", "1 or more (seconds), or off", ""; for messages and for --explain.
std::string range_text(const Rule& rule);
// "an integer", "a list of numbers", "a number or off"
std::string type_text(const ValueRef& value, const Rule& rule = {});

}  // namespace varscope
