#include "launch/commands/completion.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <sstream>

#include "common/base/error.h"
#include "common/base/text.h"

namespace varscope {
namespace {

// FUNCTION is the program's name as an identifier, FACTS a case per command (see facts_of), KEYS the config's
// keys.
//
// `=` breaks words in bash: --set train.epochs=3 arrives as four of them, and what is completed is what
// follows it. Where it does not break them (zsh), answers must begin with what stands before it.
constexpr const char* kScript = R"(
# Of a command: its subcommands, options, OPTION:KIND of options with a value, KIND of each positional.
FUNCTION_facts() {
  subs='' flags='' values='' places=''
  case $1 in
FACTS  esac
}

FUNCTION_answers() {
  local line
  while IFS= read -r line; do COMPREPLY+=("$prefix$line"); done
}

# KIND BEGINNING
FUNCTION_value() {
  local keys='KEYS'
  case $1 in
    yaml)
      compopt -o filenames 2>/dev/null
      FUNCTION_answers < <(compgen -f -X '!*.yaml' -- "$2"; compgen -f -X '!*.yml' -- "$2"; compgen -d -- "$2")
      ;;
    file)
      compopt -o filenames 2>/dev/null
      FUNCTION_answers < <(compgen -f -- "$2")
      ;;
    directory)
      compopt -o filenames 2>/dev/null
      FUNCTION_answers < <(compgen -d -- "$2")
      ;;
    setting)
      compopt -o nospace 2>/dev/null
      FUNCTION_answers < <(compgen -S = -W "$keys" -- "$2")
      ;;
    key) FUNCTION_answers < <(compgen -W "$keys" -- "$2") ;;
    *'|'*) FUNCTION_answers < <(compgen -W "${1//|/ }" -- "$2") ;;
  esac
}

# kind: of the value of option $1 of this command, or nothing.
FUNCTION_kind() {
  kind=''
  [[ " $values " != *" $1:"* ]] || kind=${values#*"$1:"} kind=${kind%% *}
}

FUNCTION() {
  local subs flags values places kind='' prefix='' command='' word i joined=() n=0 glued=no
  COMPREPLY=()
  for ((i = 1; i <= COMP_CWORD; ++i)); do
    word=${COMP_WORDS[i]}
    if ((n > 0)) && [[ $glued == yes || $word == '=' ]]; then
      joined[n - 1]+=$word
      [[ $word == '=' ]] && glued=yes || glued=no
    else
      joined[n]=$word
      n=$((n + 1))
    fi
  done
  word=${COMP_WORDS[COMP_CWORD]}
  [[ $word != *?=* ]] || prefix=${word%%=*}=

  FUNCTION_facts ''
  for ((i = 0; i < n - 1; ++i)); do
    word=${joined[i]}
    if [[ -n $kind ]]; then
      kind=''
    elif [[ $word == -* ]]; then
      FUNCTION_kind "$word"
      [[ $kind != '='* ]] || kind=''
    elif [[ " $subs " == *" $word "* ]]; then
      command="${command:+$command }$word"
      FUNCTION_facts "$command"
    else
      [[ $places == *' '* ]] && places=${places#* } || places=''
    fi
  done
  word=${joined[n - 1]}
  if [[ -n $kind ]]; then
    prefix=''
    FUNCTION_value "$kind" "$word"
  elif [[ $word == --*=* ]]; then
    FUNCTION_kind "${word%%=*}"
    FUNCTION_value "${kind#=}" "${word#*=}"
  elif [[ $word == -* ]]; then
    FUNCTION_answers < <(compgen -W "$flags" -- "$word")
  elif [[ -n $subs ]]; then
    FUNCTION_answers < <(compgen -W "$subs" -- "$word")
  else
    FUNCTION_value "${places%% *}" "$word"
  fi
  return 0
}

complete -F FUNCTION PROGRAM
)";

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size()))
    text.replace(at, what.size(), by);
}

// How the script completes a value of this type; `none` for numbers and free text.
std::string kind_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  if (type == "FILE") return option.get_single_name() == "config" ? "yaml" : "file";
  if (type == "PATH") return "file";
  if (type == "[=PATH]") return "=file";  // its value stands behind '=' or is left out
  if (type.starts_with("[=")) return "=none";
  if (type == "DIR") return "directory";
  if (type == "KEY=VALUE") return "setting";
  if (type == "KEY") return "key";
  return type.find('|') == std::string::npos ? "none" : type;
}

// "job.seed: an integer, default 1" gives job.seed; sections and keys of layers are left out.
std::vector<std::string> keys_in(const std::string& explained) {
  std::vector<std::string> keys;
  std::istringstream lines(explained);
  for (std::string line; std::getline(lines, line);) {
    const std::string key = line.substr(0, line.find(": "));
    if (key.size() < line.size() && !line.substr(key.size()).starts_with(": section") &&
        key.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789._") == std::string::npos) {
      keys.push_back(key);
    }
  }
  return keys;
}

bool is_shown(const CLI::App* app) { return !app->get_group().empty(); }

void facts_of(const CLI::App& app, const std::string& path, std::string& out) {
  std::vector<std::string> subs, flags, values, places;
  const auto shown = app.get_subcommands(is_shown);
  for (const CLI::App* sub : shown) subs.push_back(sub->get_name());
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) {
      places.push_back(kind_of(*option));
      continue;
    }
    for (const std::string& name : option->get_lnames()) {
      flags.push_back("--" + name);
      if (option->get_items_expected_max() != 0) values.push_back("--" + name + ":" + kind_of(*option));
    }
  }
  out += fmt::format("    '{}')\n", path);
  const auto line = [&](const char* name, const std::vector<std::string>& words) {
    if (!words.empty()) out += fmt::format("      {}='{}'\n", name, fmt::join(words, " "));
  };
  line("subs", subs);
  line("flags", flags);
  line("values", values);
  line("places", places);
  out += "      ;;\n";
  for (const CLI::App* sub : shown)
    facts_of(*sub, path.empty() ? sub->get_name() : path + " " + sub->get_name(), out);
}

}  // namespace

const std::vector<std::string>& completion_shells() {
  static const std::vector<std::string> kShells{"bash", "zsh"};
  return kShells;
}

std::string completion_script(const CLI::App& app, const std::string& program, const std::string& shell,
                              const std::string& explained_keys) {
  const auto& shells = completion_shells();
  if (std::find(shells.begin(), shells.end(), shell) == shells.end()) {
    fail(ErrorKind::config, "completion: \"{}\" is not a shell we complete in{}; there are {}", shell,
         did_you_mean(shell, shells), comma_list(shells));
  }
  std::string function = "_";
  for (const char c : program) function += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  std::string facts;
  facts_of(app, "", facts);
  std::string script = kScript;
  replace_all(script, "FACTS", facts);
  replace_all(script, "KEYS", fmt::format("{}", fmt::join(keys_in(explained_keys), " ")));
  replace_all(script, "FUNCTION", function);
  replace_all(script, "PROGRAM", program);
  const std::string from =
      fmt::format("# Completes the command line of {0}; printed by `{0} completion {1}`.\n", program, shell);
  if (shell == "bash") return from + script;
  // zsh runs the file for the first completion: that one must have its answers, too.
  return fmt::format(
      "#compdef {1}\n{2}autoload -U +X bashcompinit && bashcompinit\n{3}"
      "[[ ${{funcstack[1]}} != {0} ]] || _bash_complete -F {0}\n",
      function, program, from, script);
}

}  // namespace varscope
