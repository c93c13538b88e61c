#include "launch/commands/help_format.h"

#include <string>

namespace varscope {
namespace {

constexpr std::size_t kColumn = 34;

std::string names_of(const std::set<CLI::Option*>& options) {
  std::string names;
  for (const CLI::Option* option : options) names += (names.empty() ? "" : ", ") + option->get_name();
  return names;
}

class GnuFormat final : public CLI::Formatter {
 public:
  GnuFormat() { column_width(kColumn); }

  std::string make_option_name(const CLI::Option* option, bool is_positional) const override {
    if (is_positional) return option->get_name(true);
    std::string names;
    for (const std::string& name : option->get_snames()) names += (names.empty() ? "-" : ", -") + name;
    for (const std::string& name : option->get_lnames()) names += (names.empty() ? "--" : ", --") + name;
    return names;
  }
  // Without the words of validators: they say it when a value is wrong.
  std::string make_option_opts(const CLI::Option* option) const override {
    if (option->get_positional() || option->get_items_expected_max() == 0) return "";
    const std::string type = option->get_type_name();
    return (type.starts_with("[") ? "" : " ") + type.substr(0, type.find(':'));
  }
  std::string make_option_desc(const CLI::Option* option) const override {
    std::string text = option->get_description();
    if (option->get_required() && option->nonpositional()) text += "; required";
    if (!option->get_needs().empty()) text += "; needs " + names_of(option->get_needs());
    if (!option->get_excludes().empty()) text += "; not with " + names_of(option->get_excludes());
    return text;
  }
};

}  // namespace

std::shared_ptr<CLI::Formatter> help_format() { return std::make_shared<GnuFormat>(); }

}  // namespace varscope
