#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace varscope {

// What a job prints on the standard error of its mpirun, told apart: lines of the ranks, which are shown as
// they come; the line of progress that rank 0 rewrites; and what Open MPI says in blocks between lines of
// dashes, which is kept, and told in one message when the job has failed and no rank has said why. Knows the
// words of Open MPI 4.1; what it does not know it shows as it is. Not thread-safe.
class MpirunReport {
 public:
  struct Shown {
    bool is_progress =
        false;  // replaces the progress before; "" takes it away. Else a whole line, without its end
    std::string text;
    bool operator==(const Shown&) const = default;
  };
  struct End {
    std::string message;      // "" when all has been said; may have several lines
    bool is_refusal = false;  // no rank of ours ran: a restart would not mend it
  };
  // What the launcher knows of the end.
  struct Facts {
    int code = 0;                 // of mpirun; 128 + n when signal n ended it
    bool is_mpirun_dead = false;  // by that signal
    bool was_asked = false;       // a signal had asked the launcher for the end
    bool was_ended = false;       // and the launcher had then ended the job
  };

  // What is to be shown of these bytes, and of those before that were not enough for a line.
  std::vector<Shown> take(std::string_view bytes);
  // After the last byte; first what is to be shown of the rest.
  std::vector<Shown> take_rest();
  End end(const Facts& facts) const;

 private:
  void take_line(const std::string& line, std::vector<Shown>& shown);
  bool keeps(const std::string& line);
  std::optional<std::string> death() const;
  std::optional<std::string> lost_host() const;
  std::optional<std::string> refusal() const;
  std::string open_mpis_words() const;
  std::string who(int rank, const std::string& host) const;
  std::string ranks_on(const std::string& host) const;

  std::string pending_;
  bool in_block_ = false;
  std::vector<std::string> blocks_;       // the text of each
  std::vector<std::string> other_words_;  // Open MPI's and ssh's, outside blocks
  std::vector<std::string> roles_;        // by rank; empty before training starts
  std::string sigterm_line_;              // of a survivor
  bool has_said_why_ = false;             // a rank printed an error
  bool has_started_ = false;              // a rank printed anything
};

}  // namespace varscope
