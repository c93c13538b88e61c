#include "launch/process/go_on.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "common/transport/mpi/mpi_job.h"

namespace varscope {
namespace {

std::string text_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::vector<std::string> words_of(pid_t pid) {
  std::vector<std::string> words;
  std::istringstream text(text_of("/proc/" + std::to_string(pid) + "/cmdline"));
  for (std::string word; std::getline(text, word, '\0');) words.push_back(word);
  return words;
}

// 0 when it cannot be told. The name, in brackets, may hold brackets and blanks.
pid_t parent_of(pid_t pid) {
  const std::string stat = text_of("/proc/" + std::to_string(pid) + "/stat");
  const std::size_t end = stat.rfind(") ");
  if (end == std::string::npos) return 0;
  std::istringstream rest(stat.substr(end + 2));
  char state = ' ';
  pid_t parent = 0;
  rest >> state >> parent;
  return parent;
}

bool is_mpirun(const std::vector<std::string>& words) {
  if (words.empty()) return false;
  const std::string name = std::filesystem::path(words[0]).filename();
  for (const char* known : {"mpirun", "mpiexec", "orterun", "mpirun.openmpi", "mpiexec.openmpi"}) {
    if (name == known) return true;
  }
  return false;
}

// A wrapper (a shell, a debugger) may stand between a rank and mpirun.
std::vector<std::string> words_of_mpirun() {
  constexpr int kMostWrappers = 4;
  pid_t pid = getppid();
  for (int i = 0; i <= kMostWrappers && pid > 1; ++i, pid = parent_of(pid)) {
    std::vector<std::string> words = words_of(pid);
    if (is_mpirun(words)) return words;
  }
  return {};
}

bool names_an_application_file(const std::vector<std::string>& words) {
  return std::any_of(words.begin(), words.end(),
                     [](const std::string& w) { return w == "--app" || w == "-app" || w == "--appfile"; });
}

}  // namespace

std::string shell_word(const std::string& word) {
  constexpr const char* kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string go_on_command(const std::vector<std::string>& words, const std::string& resumed_from) {
  const bool is_mpi = is_mpirun(words);
  if (is_mpi && names_an_application_file(words)) return "";
  std::string command;
  bool after_resume = false;
  const auto add = [&](const std::string& text) { command += (command.empty() ? "" : " ") + text; };
  for (const std::string& word : words) {
    const bool was_its_value = after_resume && !resumed_from.empty() && word == resumed_from;
    after_resume = word == "--resume";
    if (word == "--fresh" || word == "--allow-other-data" || word == "--resume" ||
        word.starts_with("--resume=") || was_its_value)
      continue;
    if (is_mpi && word == ":") add("--resume");
    add(shell_word(word));
  }
  add("--resume");
  return command;
}

std::vector<std::string> words_of_start(const std::vector<std::string>& argv, int n_ranks) {
  if (!launched_by_mpi()) return argv;
  std::vector<std::string> words = words_of_mpirun();
  if (!words.empty()) return words;
  const bool by_srun =
      std::getenv("SLURM_STEP_ID") != nullptr && std::getenv("OMPI_UNIVERSE_SIZE") == nullptr;
  words = by_srun ? std::vector<std::string>{"srun", "-n", std::to_string(n_ranks)}
                  : std::vector<std::string>{"mpirun", "-n", std::to_string(n_ranks)};
  words.insert(words.end(), argv.begin(), argv.end());
  return words;
}

}  // namespace varscope
