#include "common/config/binder.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <type_traits>

#include "common/base/synonyms.h"
#include "common/base/text.h"

namespace varscope {

namespace {

bool is_in_list(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    std::string_view item = list.substr(0, comma);
    item.remove_prefix(std::min(item.find_first_not_of(' '), item.size()));
    if (item == word) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

std::string lower_case(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

std::string shown_number(const std::string& text) {
  constexpr std::size_t kMost = 40;
  return text.size() <= kMost ? text : text.substr(0, kMost) + "...";
}

// Digits, and perhaps a sign.
bool is_whole_number(std::string_view text) {
  if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

// The names of one section's keys, or with `deep` the dotted names of all.
class KeyLister final : public Keys {
 public:
  enum class Reach { one_section, all };
  KeyLister(Reach reach, std::string prefix, std::vector<std::string>& names)
      : reach_(reach), prefix_(std::move(prefix)), names_(names) {}

 private:
  void on_value(const KeyInfo& info, const ValueRef&) override {
    names_.push_back(join_keys(prefix_, info.name));
  }
  void on_choice(const KeyInfo& info, const ChoiceRef&) override {
    names_.push_back(join_keys(prefix_, info.name));
  }
  void on_section(const KeyInfo& info, const SectionRef& section) override {
    names_.push_back(join_keys(prefix_, info.name));
    // Describing an absent optional section would make it.
    if (reach_ == Reach::one_section || !section.present) return;
    KeyLister inner(reach_, names_.back(), names_);
    section.describe(inner);
  }
  void on_variant(const KeyInfo& info, const VariantRef& variant) override {
    if (reach_ == Reach::one_section) return Keys::on_variant(info, variant);
    on_choice(info, variant.choice());
    for (std::size_t i = 0; i < variant.names.size(); ++i) variant.describe_type(i, *this);
  }

  Reach reach_;
  std::string prefix_;
  std::vector<std::string>& names_;
};

// Reads one section.
class Reader final : public Keys {
 public:
  // `where` is what a missing key is reported at: the section's own key.
  Reader(const ConfigNode& node, const Mark& where, std::string_view file, std::string path,
         const std::vector<std::string>& everywhere)
      : node_(node), where_(where), file_(file), path_(std::move(path)), everywhere_(everywhere) {}

  // Unknown keys first: a misspelt key is the reason why another one is missing.
  void read(const Describe& describe, const std::vector<std::string>& also_allowed) {
    if (!node_.is_map() && !node_.is_null()) {
      fail_at(node_, file_, path_, fmt::format("expected a section (key: value), got {}", node_.describe()));
    }
    Selector selector(*this);  // its keys are not known before
    describe(selector);
    std::vector<std::string> known = also_allowed;
    KeyLister lister(KeyLister::Reach::one_section, "", known);
    describe(lister);
    for (const ConfigEntry& entry : node_.entries) {
      if (std::ranges::find(known, entry.key) == known.end()) fail_unknown(entry, known);
    }
    describe(*this);
  }

 private:
  // Reads the types of variants.
  class Selector final : public Keys {
   public:
    explicit Selector(Reader& reader) : reader_(reader) {}

   private:
    void on_value(const KeyInfo&, const ValueRef&) override {}
    void on_choice(const KeyInfo&, const ChoiceRef&) override {}
    void on_section(const KeyInfo&, const SectionRef&) override {}
    void on_variant(const KeyInfo& info, const VariantRef& variant) override {
      reader_.on_choice(info, variant.choice());
      reader_.variant_ = variant;
      reader_.variant_name_ = info.name;
    }
    Reader& reader_;
  };

  void on_variant(const KeyInfo&, const VariantRef& variant) override { variant.describe(*this); }

  void on_value(const KeyInfo& info, const ValueRef& value) override {
    const ConfigNode* given =
        find(info, *info.rule.type_name ? info.rule.type_name : type_text(value, info.rule));
    if (!given) return;
    const std::string path = join_keys(path_, info.name);
    std::visit([&](auto* target) { read_value(*given, path, info.rule, *target); }, value);
  }

  void on_choice(const KeyInfo& info, const ChoiceRef& choice) override {
    const ConfigNode* given = find(info, fmt::format("one of {}", comma_list(choice.names)));
    if (!given) return;
    const auto found =
        given->is_scalar() ? std::ranges::find(choice.names, given->scalar) : choice.names.end();
    if (found != choice.names.end())
      return choice.set(static_cast<std::size_t>(found - choice.names.begin()));
    const std::string hint = given->is_scalar() ? did_you_mean(given->scalar, choice.names) : "";
    fail_at(*given, file_, join_keys(path_, info.name),
            fmt::format("expected one of {}, got {}{}", comma_list(choice.names), given->describe(), hint));
  }

  void on_section(const KeyInfo& info, const SectionRef& section) override {
    static const ConfigNode kEmpty = ConfigNode::map();
    const ConfigEntry* entry = node_.find_entry(info.name);
    if (!entry && info.required) fail_missing(info, "a section");
    const bool absent = !entry || entry->value.is_null();
    if (absent && info.optional) return;
    // An absent section is read as an empty one: its defaults may not satisfy its own required keys.
    Reader inner(entry ? entry->value : kEmpty, entry ? entry->key_mark : where_, file_,
                 join_keys(path_, info.name), everywhere_);
    inner.read(section.describe, {});
  }

  // The value of a key, or null when it is not there and need not be.
  const ConfigNode* find(const KeyInfo& info, std::string_view type) {
    const ConfigEntry* entry = node_.find_entry(info.name);
    if (!applies(info)) {
      if (entry) fail_not_used(*entry, info);
      return nullptr;
    }
    used_.emplace_back(info.name);
    if (!entry && info.required) fail_missing(info, type);
    return entry ? &entry->value : nullptr;
  }

  // The types of the section's variant that have such a key.
  std::vector<std::string> types_with(const std::string& key) const {
    std::vector<std::string> types;
    for (std::size_t i = 0; variant_ && i < variant_->names.size(); ++i) {
      std::vector<std::string> keys;
      KeyLister lister(KeyLister::Reach::one_section, "", keys);
      variant_->describe_type(i, lister);
      if (std::ranges::find(keys, key) != keys.end()) types.push_back(variant_->names[i]);
    }
    return types;
  }

  [[noreturn]] void fail_unknown(const ConfigEntry& entry, std::vector<std::string> known) const {
    if (const std::vector<std::string> types = types_with(entry.key); !types.empty()) {
      fail_at(
          entry.key_mark, file_, join_keys(path_, entry.key),
          fmt::format("not used by {} {} (only by {}); remove it or change {}", variant_name_,
                      node_.find(variant_name_)->scalar, comma_list(types), join_keys(path_, variant_name_)));
    }
    std::ranges::sort(known);
    // A key in the wrong section is likelier than one that is badly misspelt.
    std::string meant = nearest(entry.key, known);
    if (synonym_of(entry.key, known).empty() && edit_distance(entry.key, meant) > 1) {
      if (std::string other = elsewhere(entry.key, Names::this_one); !other.empty()) meant = std::move(other);
    }
    if (meant.empty()) meant = elsewhere(entry.key, Names::synonym);
    const std::string hint = meant.empty() ? "" : fmt::format("; did you mean \"{}\"?", meant);
    fail_at(entry.key_mark, file_, "",
            fmt::format("{}: unknown key{}{} Allowed here: {}", join_keys(path_, shown_key(entry.key)), hint,
                        hint.empty() ? "." : "", known.empty() ? "nothing" : comma_list(known)));
  }

  enum class Names : std::uint8_t { this_one, synonym };
  // The path of a key of another section, by this name or another one for it; "" where there is none.
  std::string elsewhere(const std::string& key, Names names) const {
    std::vector<std::string> last_parts;
    last_parts.reserve(everywhere_.size());
    for (const std::string& full : everywhere_) last_parts.push_back(full.substr(full.rfind('.') + 1));
    const bool is_vague = key == "mode" || key == "bound" || key == "backup";  // of many things
    const std::string name = names == Names::this_one ? key : is_vague ? "" : synonym_of(key, last_parts);
    const auto found = std::ranges::find(last_parts, name);
    if (name.empty() || found == last_parts.end()) return "";
    return everywhere_[static_cast<std::size_t>(found - last_parts.begin())];
  }

  static std::string shown_key(const std::string& key) {
    const std::string quoted = ConfigNode::plain(key).describe();  // short, on one line
    return key.empty() ? quoted : quoted.substr(1, quoted.size() - 2);
  }

  [[noreturn]] void fail_missing(const KeyInfo& info, std::string_view type) const {
    std::string owner = path_.empty() ? "the file" : fmt::format("section {}", path_);
    if (*info.rule.only_for) owner = fmt::format("{} {}", selector_name(), selected());
    if (variant_ && info.name != variant_name_)
      owner = fmt::format("{} {}", variant_name_, node_.find(variant_name_)->scalar);
    fail_at(where_, file_, join_keys(path_, info.name),
            fmt::format("missing; {} needs this key ({}: {})", owner, type, info.doc));
  }

  // Another type's key may be what other programs call one of this type: l2 of ftrl, the weight_decay of sgd.
  [[noreturn]] void fail_not_used(const ConfigEntry& entry, const KeyInfo& info) const {
    const std::string meant = synonym_of(entry.key, used_);
    fail_at(entry.key_mark, file_, join_keys(path_, entry.key),
            fmt::format("not used by {} {} (only by {}); remove it or change {}{}", selector_name(),
                        selected(), info.rule.only_for, join_keys(path_, selector_name()),
                        meant.empty() ? "" : fmt::format("; did you mean \"{}\"?", meant)));
  }

  // `meant`: the value that was probably meant, as YAML writes it; may be empty.
  [[noreturn]] void fail_type(const ConfigNode& given, const std::string& path, std::string_view expected,
                              const std::string& meant = "") const {
    std::string hint;
    if (given.is_scalar() && given.quoted && !given.scalar.empty()) hint = " in quotes";
    if (given.is_null()) hint = " (the value is empty)";
    if (!meant.empty()) hint += fmt::format("; did you mean {}?", meant);
    fail_at(given, file_, path, fmt::format("expected {}, got {}{}", expected, given.describe(), hint));
  }

  [[noreturn]] void fail_range(const ConfigNode& given, const std::string& path, const Rule& rule) const {
    fail_at(given, file_, path,
            fmt::format("{} is out of range; allowed: {}", shown_number(given.scalar), range_text(rule)));
  }

  // Bounds of integers are far below 2^53, or absent: comparing doubles is exact.
  void check_range(const ConfigNode& given, const std::string& path, const Rule& rule, double value) const {
    if (rule.may_be_off && value == 0) return;
    const bool ok = !(rule.min && value < *rule.min) && !(rule.max && value > *rule.max) &&
                    !(rule.above && value <= *rule.above) && !(rule.below && value >= *rule.below);
    if (!ok) fail_range(given, path, rule);
  }

  // A whole number that 64 bits do not hold.
  [[noreturn]] void fail_size(const ConfigNode& given, const std::string& path, Rule rule) const {
    if (rule.max) fail_range(given, path, rule);
    using Limits = std::numeric_limits<std::int64_t>;
    fail_at(given, file_, path,
            fmt::format("{} is out of range; allowed: {} to {}", shown_number(given.scalar),
                        rule.min ? static_cast<std::int64_t>(*rule.min) : Limits::min(), Limits::max()));
  }

  // What a value of another form was probably meant to be; may be empty.
  static std::string meant_bool(const ConfigNode& given) {
    const std::string word = given.is_scalar() ? lower_case(given.scalar) : "";
    for (const char* yes : {"true", "yes", "on", "y", "1"}) {
      if (word == yes) return "true";
    }
    for (const char* no : {"false", "no", "off", "n", "0"}) {
      if (word == no) return "false";
    }
    return "";
  }
  template <class Number>
  static std::string meant_number(const ConfigNode& given, const Rule& rule) {
    if (given.is_list() && given.items.size() == 1) return meant_number<Number>(given.items[0], rule);
    if (!given.is_scalar()) return "";
    Number value{};
    if (parse_number(given.scalar, value)) return fmt::format("{}", value);
    double real = 0;
    if (std::is_same_v<Number, std::int64_t> && parse_number(given.scalar, real) && std::rint(real) == real &&
        std::abs(real) <= 1e15)
      return fmt::format("{}", static_cast<std::int64_t>(real));
    const std::string word = lower_case(given.scalar);
    const bool never = word == "never" || word == "none" || word == "no" || word == "false" ||
                       word == "inf" || word == ".inf" || word == "infinity" || word == "off";
    return rule.may_be_off && never ? "off" : "";
  }
  // 3, and "3, 3" or 3x3 without brackets.
  template <class T>
  static std::string meant_list(const ConfigNode& given) {
    if (!given.is_scalar() || given.scalar.empty()) return "";
    std::string items;
    for (std::string_view rest = given.scalar; !rest.empty();) {
      const std::size_t end =
          std::min(rest.find_first_of(std::is_same_v<T, std::string> ? ", " : ",x "), rest.size());
      const std::string word(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
      if (word.empty()) continue;
      if constexpr (!std::is_same_v<T, std::string>) {
        T number{};
        if (!parse_number(word, number)) return "";
      }
      items += (items.empty() ? "" : ", ") + word;
    }
    return items.empty() ? "" : fmt::format("[{}]", items);
  }

  void read_value(const ConfigNode& given, const std::string& path, const Rule&, bool& target) const {
    const bool valid =
        given.is_scalar() && !given.quoted && (given.scalar == "true" || given.scalar == "false");
    if (!valid) fail_type(given, path, "true or false", meant_bool(given));
    target = given.scalar == "true";
  }

  template <class Number>
  requires(std::is_same_v<Number, std::int64_t> ||
           std::is_same_v<Number, double>) void read_value(const ConfigNode& given, const std::string& path,
                                                           const Rule& rule, Number& target) const {
    Number value{};
    const bool off = rule.may_be_off && given.is_scalar() && !given.quoted && given.scalar == "off";
    if (!off && (!given.is_scalar() || given.quoted || !parse_number(given.scalar, value))) {
      if (std::is_same_v<Number, std::int64_t> && !given.quoted && is_whole_number(given.scalar))
        fail_size(given, path, rule);
      fail_type(given, path, type_text(ValueRef(&target), rule), meant_number<Number>(given, rule));
    }
    check_range(given, path, rule, static_cast<double>(value));
    target = value;
  }

  void read_value(const ConfigNode& given, const std::string& path, const Rule& rule,
                  std::string& target) const {
    if (given.is_null() && rule.is_path) {
      fail_at(given, file_, path,
              "expected a text, got nothing (the value is empty, or a bare ~, which YAML reads as nothing; "
              "the home folder is \"~\")");
    }
    if (!given.is_scalar()) fail_type(given, path, "a text");
    if (rule.not_empty && given.scalar.empty()) fail_at(given, file_, path, "must not be empty");
    target = given.scalar;
  }

  template <class T>
  void read_value(const ConfigNode& given, const std::string& path, const Rule& rule,
                  std::vector<T>& target) const {
    if (!given.is_list()) fail_type(given, path, type_text(ValueRef(&target)), meant_list<T>(given));
    std::vector<T> values(given.items.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      read_value(given.items[i], join_keys(path, std::to_string(i)), rule, values[i]);
    }
    target = std::move(values);
  }

  void read_value(const ConfigNode& given, const std::string&, const Rule&, ConfigNode& target) const {
    target = given;
  }

  const ConfigNode& node_;
  const Mark& where_;
  std::string_view file_;
  std::string path_;
  const std::vector<std::string>& everywhere_;
  std::vector<std::string> used_;  // the keys so far that the section's type has
  std::optional<VariantRef> variant_;
  std::string variant_name_;
};

}  // namespace

void Keys::choice(std::string_view name, std::string& value, const std::vector<std::string>& names,
                  std::string_view doc, const Rule& rule) {
  on_choice({name, doc, rule, false},
            {.names = names, .current = value, .set = [&](std::size_t i) { value = names[i]; }});
}

void Keys::on_variant(const KeyInfo& info, const VariantRef& variant) {
  on_choice(info, variant.choice());
  variant.describe(*this);
}

void Keys::select(const KeyInfo& info, const ChoiceRef& ref) {
  selector_name_ = info.name;
  on_choice(info, ref);
}

bool Keys::applies(const KeyInfo& info) const {
  return !*info.rule.only_for || is_in_list(info.rule.only_for, selected_);
}

void bind_node(const ConfigNode& node, std::string_view file, std::string_view path, const Describe& describe,
               const std::vector<std::string>& also_allowed) {
  const std::vector<std::string> everywhere = list_keys(describe);
  Reader reader(node, node.mark, file, std::string(path), everywhere);
  reader.read(describe, also_allowed);
}

std::vector<std::string> list_keys(const Describe& describe) {
  std::vector<std::string> names;
  KeyLister lister(KeyLister::Reach::all, "", names);
  describe(lister);
  return names;
}

std::string range_text(const Rule& rule) {
  std::string text;
  if (rule.min && rule.max) {
    text = fmt::format("{} to {}", *rule.min, *rule.max);
  } else {
    const auto add = [&](const char* before, const std::optional<double>& bound, const char* after) {
      if (bound) text += fmt::format("{}{}{}{}", text.empty() ? "" : ", ", before, *bound, after);
    };
    add("", rule.min, " or more");
    add("more than ", rule.above, "");
    add("at most ", rule.max, "");
    add("less than ", rule.below, "");
  }
  if (!text.empty() && *rule.unit) text += fmt::format(" ({})", rule.unit);
  return rule.may_be_off ? text + ", or off" : text;
}

std::string type_text(const ValueRef& value, const Rule& rule) {
  static constexpr std::array<const char*, std::variant_size_v<ValueRef>> kNames = {
      "true or false",      "an integer",        "a number",        "a text",
      "a list of integers", "a list of numbers", "a list of texts", "free-form YAML"};
  return fmt::format("{}{}", kNames[value.index()], rule.may_be_off ? " or off" : "");
}

}  // namespace varscope
