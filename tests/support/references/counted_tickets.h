#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace varscope::testing {

// Values that tell which tickets they hold. Each element speaks for one logical worker: element e of a
// variable, or column e of a row, for leaf e mod V. The push of that leaf's ticket of step t adds 2^(t-1) to
// it. So a value that holds nothing but whole pushes, each once, is a set of steps in binary: exact in
// float64 up to step 52.
inline constexpr int kMostCountedSteps = 52;
using StepSet = std::uint64_t;  // bit t - 1: step t
constexpr StepSet steps_up_to(std::int64_t step) { return (StepSet{1} << step) - 1; }

// By leaf; nothing where no element speaks for it.
using CountedTickets = std::vector<std::optional<StepSet>>;

// `values`: the elements from `first_element` on. Where they are no such sums, or differ for one leaf (torn),
// nothing, and `why` says what.
std::optional<CountedTickets> count_tickets(std::span<const double> values, std::int64_t first_element,
                                            int n_leaves, std::string& why);

// Which tickets exist in a job of V leaves: in its last step half of them may have no samples.
struct TicketSpace {
  int n_leaves = 1;
  std::int64_t last = 0;
  bool last_is_short = false;
  bool has_samples(std::int64_t step, int leaf) const {
    return !last_is_short || step != last || leaf < (n_leaves + 1) / 2;
  }
  int n_with_samples(std::int64_t step) const {
    return last_is_short && step == last ? (n_leaves + 1) / 2 : n_leaves;
  }
  // Those of one leaf with samples, up to `step`.
  StepSet up_to(std::int64_t step, int leaf) const {
    return steps_up_to(step) & ~(step >= last && !has_samples(last, leaf) ? StepSet{1} << (last - 1) : 0);
  }
};

// What all workers together have begun to push. Thread-safe.
class PushedTickets {
 public:
  explicit PushedTickets(int n_leaves, StepSet before) : steps_(static_cast<std::size_t>(n_leaves)) {
    for (auto& s : steps_) s = before;
  }
  void add(std::int64_t step, int leaf) {
    steps_[static_cast<std::size_t>(leaf)].fetch_or(StepSet{1} << (step - 1));
  }
  StepSet of(int leaf) const { return steps_[static_cast<std::size_t>(leaf)]; }
  bool has_after(std::int64_t step) const {
    return std::ranges::any_of(steps_, [&](const auto& s) { return (s.load() >> step) != 0; });
  }

 private:
  std::vector<std::atomic<StepSet>> steps_;
};

// What reads have shown. A value type; add() sums up.
struct ReadFindings {
  std::vector<std::string> first;  // of what was wrong
  std::int64_t n_wrong = 0;
  std::int64_t n_reads = 0;                        // slices and rows
  std::map<std::int64_t, std::int64_t> leads;      // slices by lead
  std::map<std::int64_t, std::int64_t> row_leads;  // rows, by what can be seen of it
  void wrong(std::string what);
  void add(const ReadFindings& other);
  std::int64_t most_lead() const { return leads.empty() ? -1 : leads.rbegin()->first; }
  std::string text() const;  // for a failed test
};

// One thing that has been read for a ticket of step `step`, and what it must and may hold. Lead: how many
// steps lie between it and the last one of which, and of all before, everything is in.
struct CountedRead {
  std::string what;
  std::int64_t step = 0;
  std::optional<std::int64_t> staleness;  // the most lead; nothing: any
  struct Leaf {
    StepSet needed = 0;  // by a reader without staleness: all earlier tickets
    StepSet own = 0;     // the reader's own pushes
    StepSet pushed = 0;  // by anybody, looked at after the read
  };
  std::vector<Leaf> leaves;
};
// Returns the lead.
std::int64_t check_read(const CountedRead& read, const CountedTickets& holds, ReadFindings& findings);

}  // namespace varscope::testing
