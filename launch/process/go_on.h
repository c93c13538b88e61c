#pragma once

#include <string>
#include <vector>

namespace varscope {

// A word as a shell reads it: quoted where it must be.
std::string shell_word(const std::string& word);

// The command that goes on with a job that was started by `words`, ready to be pasted into a shell: the same
// with --resume. What asked for another start is left out: --fresh, --allow-other-data, --resume, and
// `resumed_from` behind --resume. Each part of a command of mpirun, between ":", gets its --resume. "" where
// it cannot be told: an application file.
std::string go_on_command(const std::vector<std::string>& words, const std::string& resumed_from = "");

// The words with which this process was started. Under mpirun those of mpirun, where it runs on this host;
// else a command of mpirun (or srun) with `n_ranks`.
std::vector<std::string> words_of_start(const std::vector<std::string>& argv, int n_ranks);

}  // namespace varscope
