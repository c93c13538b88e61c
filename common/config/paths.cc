#include "common/config/paths.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <optional>
#include <utility>

#include "common/config/job_config.h"

namespace varscope {
namespace {

// Calls `change` for each text of a tree that stands at a key for a path. What is of another form, the binder
// refuses.
class PathKeys final : public Keys {
 public:
  using Change = std::function<void(ConfigNode& value, const std::string& path)>;
  PathKeys(ConfigNode& node, std::string path, const Change& change)
      : node_(node), path_(std::move(path)), change_(change) {}

 private:
  void on_value(const KeyInfo& info, const ValueRef&) override {
    ConfigEntry* entry = node_.find_entry(info.name);
    if (!info.rule.is_path || entry == nullptr) return;
    const std::string path = join_keys(path_, info.name);
    if (entry->value.is_scalar()) change_(entry->value, path);
    for (std::size_t i = 0; i < entry->value.items.size(); ++i) {
      ConfigNode& item = entry->value.items[i];
      if (item.is_scalar()) change_(item, join_keys(path, std::to_string(i)));
    }
    for (ConfigEntry& e : entry->value.entries) {
      if (e.value.is_scalar()) change_(e.value, join_keys(path, e.key));
    }
  }
  void on_choice(const KeyInfo&, const ChoiceRef&) override {}
  void on_section(const KeyInfo& info, const SectionRef& section) override {
    ConfigEntry* entry = node_.find_entry(info.name);
    if (entry == nullptr || !entry->value.is_map()) return;
    PathKeys inner(entry->value, join_keys(path_, info.name), change_);
    section.describe(inner);
  }

  void on_variant(const KeyInfo& info, const VariantRef& variant) override {
    const ConfigNode* type = node_.find(info.name);
    const auto found = type != nullptr && type->is_scalar() ? std::ranges::find(variant.names, type->scalar)
                                                            : variant.names.end();
    if (found != variant.names.end())
      variant.describe_type(static_cast<std::size_t>(found - variant.names.begin()), *this);
  }

  ConfigNode& node_;
  std::string path_;
  const Change& change_;
};

void for_each_path(ConfigNode& root, const PathKeys::Change& change) {
  JobConfig any;
  PathKeys keys(root, "", change);
  any.describe(keys);
}

// A user's home folder, by name or, where that is empty, of whoever runs this.
std::optional<std::string> home_of(const std::string& user) {
  const char* home = std::getenv("HOME");
  if (user.empty() && home != nullptr && *home != '\0') return home;
  passwd entry{};
  passwd* found = nullptr;
  std::array<char, 1 << 14> buffer{};
  if (user.empty()) {
    getpwuid_r(getuid(), &entry, buffer.data(), buffer.size(), &found);
  } else {
    getpwnam_r(user.c_str(), &entry, buffer.data(), buffer.size(), &found);
  }
  if (found == nullptr || found->pw_dir == nullptr) return std::nullopt;
  return found->pw_dir;
}

bool is_name(std::string_view text) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  return !text.empty() && letter(text[0]) &&
         std::ranges::all_of(text, [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
}

class Expander {
 public:
  Expander(const ConfigNode& value, const std::string& file, const std::string& path)
      : value_(value), file_(file), path_(path), rest_(value.scalar) {}

  std::string expanded() {
    std::string out = home();
    while (!rest_.empty()) {
      const std::size_t dollar = std::min(rest_.find('$'), rest_.size());
      out += rest_.substr(0, dollar);
      rest_.remove_prefix(dollar);
      if (!rest_.empty()) out += variable();
    }
    return out;
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    fail_at(value_, file_, path_, fmt::format("{}: {}", value_.describe(), why));
  }

  // Takes "~" or "~user" off the beginning.
  std::string home() {
    if (!rest_.starts_with('~')) return "";
    const std::string_view whole = rest_.substr(0, std::min(rest_.find('/'), rest_.size()));
    const std::string user(whole.substr(1));
    const auto folder = home_of(user);
    if (!folder && user.empty()) refuse("no home folder is known for ~; set HOME");
    if (!folder) refuse(fmt::format("there is no user \"{}\" whose home folder ~{} could be", user, user));
    rest_.remove_prefix(whole.size());
    return *folder;
  }

  // Takes "$$", "$NAME" or "${NAME}" off the beginning.
  std::string variable() {
    rest_.remove_prefix(1);
    if (rest_.starts_with('$')) {
      rest_.remove_prefix(1);
      return "$";
    }
    const bool braces = rest_.starts_with('{');
    if (braces) rest_.remove_prefix(1);
    const std::size_t end = braces ? rest_.find('}') : end_of_name();
    if (end == std::string_view::npos) refuse("${ without a }");
    const std::string name(rest_.substr(0, end));
    if (!is_name(name))
      refuse(braces ? fmt::format("\"{}\" is no name of a variable; write $$ for a dollar sign", name)
                    : std::string("no name of a variable comes after $; write $$ for a dollar sign"));
    rest_.remove_prefix(end + (braces ? 1 : 0));
    const char* found = std::getenv(name.c_str());
    if (found == nullptr)
      refuse(fmt::format("the environment has no variable {}; set it, or write $$ for a dollar sign", name));
    return found;
  }
  std::size_t end_of_name() const {
    std::size_t n = 0;
    while (n < rest_.size() && is_name(rest_.substr(0, n + 1))) ++n;
    return n;
  }

  const ConfigNode& value_;
  const std::string& file_;
  const std::string& path_;
  std::string_view rest_;
};

}  // namespace

void expand_paths(ConfigNode& root, const std::string& file) {
  for_each_path(root, [&](ConfigNode& value, const std::string& path) {
    value.scalar = Expander(value, file, path).expanded();
  });
}

void escape_paths(ConfigNode& root) {
  for_each_path(root, [](ConfigNode& value, const std::string&) {
    std::string& text = value.scalar;
    for (std::size_t at = text.find('$'); at != std::string::npos; at = text.find('$', at + 2))
      text.insert(at, 1, '$');
  });
}

}  // namespace varscope
