#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace varscope {

// `varscope launch`, with which the launch scripts start mpirun, reads all that the ranks print: it shows it,
// and tells in the end which rank has died and how to go on. Ranks learn of it by this variable of the
// environment.
inline constexpr const char* kLauncherVariable = "VARSCOPE_LAUNCHER";
inline constexpr const char* kLauncherOnTerminal = "terminal";  // what it shows goes to a terminal
inline constexpr const char* kLauncherOnFile = "file";          // to a file or a pipe

bool has_launcher();
bool launcher_has_terminal();

// One line of standard error, which the launcher takes for itself: what each rank is, such as "worker 0 on
// n1".
std::string roles_line(const std::vector<std::string>& roles);
// The other way; nothing when the line, without its end, is not one of those.
std::vector<std::string> roles_of(std::string_view line);

}  // namespace varscope
