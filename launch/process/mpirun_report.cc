#include "launch/process/mpirun_report.h"

#include <fmt/format.h>

#include <array>
#include <regex>

#include "launch/process/launcher.h"

namespace varscope {
namespace {

constexpr std::string_view kClear =
    "\x1b[K";  // to the end of the line; rank 0 writes it behind a carriage return
constexpr std::string_view kOurs = "varscope: ";

bool is_frame(const std::string& line) {
  constexpr std::size_t kFrame = 74;
  return line.size() == kFrame && line.find_first_not_of('-') == std::string::npos;
}

bool contains(const std::string& text, std::string_view words) {
  return text.find(words) != std::string::npos;
}

// Lines of Open MPI, of its libraries and of ssh that stand alone.
bool is_noise(const std::string& line) {
  static const std::regex noise(R"(\[[^\]]+:\d+\] \d+ more process(es)? ha(s|ve) sent help message .*)"
                                R"(|\[[^\]]+:\d+\] Set MCA parameter "orte_base_help_aggregate".*)"
                                R"(|\[[^\]]+:\d+\] Read -1, expected \d+, errno = \d+)"
                                R"(|\d+ total process(es)? failed to start)"
                                R"(|Type '.*--help' for usage\.)"
                                R"(|mpirun: (killing job|abort is already in progress|Forwarding signal).*)");
  return std::regex_match(line, noise);
}
bool is_word_of_others(const std::string& line) {
  static const std::regex words(
      R"((\[[^\]]+\] )?\*\*\* (An error occurred|reported by|on a NULL|on communicator|Unknown error).*)"
      R"(|(\[[^\]]+\] )?\*\*\* (MPI_ERR|   ?and potentially).*)"
      R"(|\[[^\]]+:\d+\] (Local abort before MPI_INIT|(\[\[\d+,\d+\],\d+\] )?ORTE_ERROR_LOG).*)"
      R"(|(mpirun|mpiexec|orterun)(\.openmpi)?: .*)"
      R"(|ssh: .*|ssh_exchange_identification: .*|kex_exchange_identification: .*)"
      R"(|Host key verification failed\.)"
      R"(|[^ ]+: Permission denied \(.*|Connection (closed|reset|timed out).*)"
      R"(|Warning: Permanently added .*)");
  return std::regex_match(line, words);
}

// The line that a rank prints when mpirun sends it SIGTERM, and its kin (launch/process/failure.cc).
bool is_sigterm_line(const std::string& line) {
  return line.starts_with(kOurs) &&
         (contains(line, ": got SIGTERM: ") || contains(line, ": ended by SIGTERM: ") ||
          contains(line, " has died (killed, ") || contains(line, " have died (killed, ") ||
          line.starts_with("varscope: ended by SIGTERM: "));
}

// The lines of a block as one.
std::string joined(const std::string& block) {
  std::string text;
  for (const char c : block) {
    const bool is_blank = c == '\n' || c == ' ' || c == '\t';
    if (!is_blank) {
      text += c;
    } else if (!text.empty() && text.back() != ' ') {
      text += ' ';
    }
  }
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

std::string indented(const std::string& block) {
  std::string text;
  std::size_t at = 0;
  while (at < block.size()) {
    const std::size_t end = std::min(block.find('\n', at), block.size());
    if (end > at) text += "\n  " + block.substr(at, end - at);
    at = end + 1;
  }
  return text;
}

// Blocks that only say that something else has failed.
bool says_nothing(const std::string& block) {
  return contains(block, "FORCE-TERMINATE") || contains(block, "Primary job  terminated normally") ||
         contains(block, "MPI_ABORT was invoked") || contains(block, "exited with non-zero status");
}

// Refusals of mpirun whose words need a translation: a word of the block, and what to do.
struct KnownRefusal {
  const char* words;
  const char* advice;
};
constexpr std::array kKnownRefusals{
    KnownRefusal{"not enough slots available",
                 "give the hosts more slots= in the hostfile, or lower the number of ranks; "
                 "VARSCOPE_MPIRUN_ARGS=--oversubscribe lets ranks share slots"},
    KnownRefusal{"All nodes which are allocated for this job are already filled",
                 "give the hosts more slots= in the hostfile, or lower the number of ranks"},
    KnownRefusal{"multiple definitions", "name each host once in the hostfile, with all of its slots="},
    KnownRefusal{"parse error in the hostfile", "a line of it is HOST slots=N"},
    KnownRefusal{"could not access or execute an executable",
                 "install varscope at the same path on every host (a shared file system), or set VARSCOPE"},
    KnownRefusal{"was unable to find the specified executable file",
                 "install varscope at the same path on every host (a shared file system), or set VARSCOPE"},
    KnownRefusal{"was unable to launch the specified application",
                 "the program, the config and the working directory must have the same path on every host"},
    KnownRefusal{"chdir", "the working directory must have the same path on every host"},
};

}  // namespace

std::vector<MpirunReport::Shown> MpirunReport::take(std::string_view bytes) {
  std::vector<Shown> shown;
  for (const char c : bytes) {
    if (c == '\n') {
      if (!pending_.empty() && pending_.back() == '\r') pending_.pop_back();  // ssh ends its lines so
      take_line(pending_, shown);
      pending_.clear();
    } else if (c == '\r' && pending_.starts_with(kClear)) {
      shown.push_back({true, pending_.substr(kClear.size())});
      pending_.clear();
    } else {
      if (pending_ == "\r") pending_.clear();
      pending_ += c;
    }
  }
  if (pending_ == kClear) {
    shown.push_back({true, ""});
    pending_.clear();
  }
  return shown;
}

std::vector<MpirunReport::Shown> MpirunReport::take_rest() {
  std::vector<Shown> shown;
  if (!pending_.empty() && pending_ != "\r") take_line(pending_, shown);
  pending_.clear();
  return shown;
}

void MpirunReport::take_line(const std::string& line, std::vector<Shown>& shown) {
  if (line.starts_with(kClear)) {
    shown.push_back({true, ""});
    return take_line(line.substr(kClear.size()), shown);
  }
  if (keeps(line)) return;
  if (line.starts_with(kOurs) && !line.starts_with("varscope: warning: ")) has_said_why_ = true;
  shown.push_back({false, line});
}

bool MpirunReport::keeps(const std::string& line) {
  if (is_frame(line)) {
    in_block_ = !in_block_;
    if (in_block_) blocks_.emplace_back();
    return true;
  }
  if (std::vector<std::string> roles = roles_of(line); !roles.empty()) {
    roles_ = std::move(roles);
    return true;
  }
  const bool is_ours = line.starts_with(kOurs) || line.starts_with("step ");
  if (in_block_ && !is_ours) {
    blocks_.back() += line + "\n";
    return true;
  }
  constexpr std::size_t kLongest = 1000;  // of a line that std::regex is to look at: it recurses
  if (!is_ours && line.size() < kLongest) {
    if (is_noise(line)) return true;
    if (is_word_of_others(line)) {
      other_words_.push_back(line);
      return true;
    }
  }
  has_started_ = true;
  if (!is_sigterm_line(line)) return false;
  if (sigterm_line_.empty()) sigterm_line_ = line;
  return true;
}

std::string MpirunReport::who(int rank, const std::string& host) const {
  const auto r = static_cast<std::size_t>(rank);
  return fmt::format("rank {} ({})", rank, r < roles_.size() ? roles_[r] : "on " + host);
}

std::string MpirunReport::ranks_on(const std::string& host) const {
  std::string text;
  for (std::size_t r = 0; r < roles_.size(); ++r) {
    const std::string& role = roles_[r];
    if (role.ends_with(" on " + host))
      text += fmt::format("{}rank {} ({})", text.empty() ? "" : ", ", r, role);
  }
  return text;
}

std::optional<std::string> MpirunReport::death() const {
  static const std::regex noticed(
      R"(process rank (\d+) with PID \d+ on node (\S+) exited on signal (\d+)( \(([^)]*)\))?)");
  for (const std::string& block : blocks_) {
    std::smatch m;
    const std::string text = joined(block);
    if (!std::regex_search(text, m, noticed)) continue;
    const int signal = std::stoi(m[3]);
    const std::string name = m[5].matched ? " (" + m[5].str() + ")" : "";
    return fmt::format("{} was killed by signal {}{}{}", who(std::stoi(m[1]), m[2]), signal, name,
                       signal == 9
                           ? "; if nobody has done that, the host may have been out of memory: look at dmesg "
                             "there, and at varscope plan"
                           : "");
  }
  return std::nullopt;
}

std::optional<std::string> MpirunReport::lost_host() const {
  static const std::regex lost(R"(Remote daemon: \S+ on node (\S+))");
  for (const std::string& block : blocks_) {
    std::smatch m;
    const std::string text = joined(block);
    if (!contains(text, "lost communication with a remote daemon") || !std::regex_search(text, m, lost))
      continue;
    const std::string ranks = ranks_on(m[1]);
    return fmt::format("lost the host {}: it is off or cut off, or Open MPI's daemon there has died{}{}",
                       m[1].str(), ranks.empty() ? "" : "; with it ", ranks);
  }
  return std::nullopt;
}

std::string MpirunReport::open_mpis_words() const {
  std::string text;
  for (const std::string& block : blocks_) {
    if (!says_nothing(block)) text += indented(block);
  }
  for (const std::string& line : other_words_) text += "\n  " + line;
  return text;
}

std::optional<std::string> MpirunReport::refusal() const {
  std::string others;
  for (const std::string& line : other_words_) others += (others.empty() ? "" : "; ") + line;
  for (const std::string& block : blocks_) {
    if (contains(block, "unable to reliably start one or more daemons")) {
      return fmt::format(
          "mpirun could not start its daemon on a host{}{}; every host must let in `ssh HOST true` without "
          "asking, and have Open MPI at the same path",
          others.empty() ? "" : ": ", others);
    }
    for (const KnownRefusal& known : kKnownRefusals) {
      if (!contains(joined(block), known.words)) continue;
      const std::string first = block.substr(0, block.find("\n\nEither"));  // then comes a lecture on slots
      return fmt::format("mpirun refuses the job: {}; {}", joined(first), known.advice);
    }
  }
  const std::string words = open_mpis_words();
  if (words.empty()) return std::nullopt;
  const bool is_init = contains(words, "MPI_INIT") || contains(words, "MPI_Init");
  return fmt::format("{} (look at VARSCOPE_MPIRUN_ARGS and at OMPI_MCA_... in the environment):{}",
                     is_init ? "MPI could not be initialised" : "mpirun refuses the job", words);
}

MpirunReport::End MpirunReport::end(const Facts& facts) const {
  constexpr int kStopped = 75;
  const std::string sigterm = sigterm_line_.empty() ? "" : sigterm_line_.substr(kOurs.size());
  if (facts.code == 0 || facts.code == kStopped) return {sigterm, false};  // a rank alone was sent SIGTERM
  if (has_said_why_) return {};
  if (facts.is_mpirun_dead) {
    return {fmt::format("mpirun was killed by signal {}; its ranks have ended with it", facts.code - 128),
            false};
  }
  if (const auto text = lost_host()) return {*text, false};
  if (facts.was_ended) return {};
  if (const auto text = death()) {
    const bool too_early = facts.was_asked && roles_.empty();
    return {too_early ? "the job was asked to end before training had started" : *text, false};
  }
  if (!sigterm.empty()) return {sigterm, false};
  if (has_started_ && roles_.empty() && open_mpis_words().empty()) return {};  // what was printed has to do
  if (const auto text = refusal()) return {*text, roles_.empty()};
  if (has_started_) {
    return {fmt::format(
                "a rank ended with code {} and had no message; look for a failure file in the run's folder",
                facts.code),
            false};
  }
  return {
      fmt::format(
          "mpirun ended with code {} and said nothing; look at what VARSCOPE_MPIRUN_ARGS and OMPI_MCA_... in "
          "the environment ask for",
          facts.code),
      true};
}

}  // namespace varscope
