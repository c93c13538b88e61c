#include "launch/process/launcher.h"

#include <cstdlib>

namespace varscope {
namespace {

// A control character first: nobody else's line begins so.
constexpr std::string_view kRoles =
    "\x1e"
    "varscope roles:";
constexpr char kBetween = '\x1f';

std::string_view launcher_value() {
  const char* value = std::getenv(kLauncherVariable);
  return value == nullptr ? "" : value;
}

}  // namespace

bool has_launcher() { return !launcher_value().empty(); }
bool launcher_has_terminal() { return launcher_value() == kLauncherOnTerminal; }

std::string roles_line(const std::vector<std::string>& roles) {
  std::string line(kRoles);
  for (const std::string& role : roles) line += role + kBetween;
  return line + '\n';
}

std::vector<std::string> roles_of(std::string_view line) {
  std::vector<std::string> roles;
  if (!line.starts_with(kRoles)) return roles;
  line.remove_prefix(kRoles.size());
  for (std::size_t end = 0; (end = line.find(kBetween)) != std::string_view::npos;
       line.remove_prefix(end + 1))
    roles.emplace_back(line.substr(0, end));
  return roles;
}

}  // namespace varscope
