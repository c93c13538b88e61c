#include "tests/support/references/counted_tickets.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

namespace varscope::testing {
namespace {

// The set that a value is; nothing where it is no sum of different powers of two.
std::optional<StepSet> set_of(double value) {
  if (!(value >= 0 && value < 0x1p52)) return std::nullopt;
  const auto set = static_cast<StepSet>(value);
  return static_cast<double>(set) == value ? std::optional(set) : std::nullopt;
}

}  // namespace

std::optional<CountedTickets> count_tickets(std::span<const double> values, std::int64_t first_element,
                                            int n_leaves, std::string& why) {
  const auto n = static_cast<std::size_t>(n_leaves);
  CountedTickets tickets(n);
  std::vector<double> first(n);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t leaf = (static_cast<std::size_t>(first_element) + i) % n;
    if (tickets[leaf] && values[i] == first[leaf]) continue;
    if (tickets[leaf]) {
      why = fmt::format("torn: element {} holds {} of leaf {}, an earlier one {}", i, values[i], leaf,
                        first[leaf]);
      return std::nullopt;
    }
    first[leaf] = values[i];
    tickets[leaf] = set_of(values[i]);
    if (!tickets[leaf]) {
      why = fmt::format("element {} is {}, which is no sum of pushes", i, values[i]);
      return std::nullopt;
    }
  }
  return tickets;
}

void ReadFindings::wrong(std::string what) {
  if (++n_wrong <= 10) first.push_back(std::move(what));
}

void ReadFindings::add(const ReadFindings& other) {
  for (const std::string& what : other.first) {
    if (first.size() < 10) first.push_back(what);
  }
  n_wrong += other.n_wrong;
  n_reads += other.n_reads;
  for (const auto& [lead, n] : other.leads) leads[lead] += n;
  for (const auto& [lead, n] : other.row_leads) row_leads[lead] += n;
}

std::string ReadFindings::text() const {
  std::string text = fmt::format("{} of {} reads are wrong", n_wrong, n_reads);
  for (const std::string& what : first) text += "\n  " + what;
  return text;
}

std::int64_t check_read(const CountedRead& read, const CountedTickets& holds, ReadFindings& findings) {
  std::int64_t lead = 0;
  ++findings.n_reads;
  for (std::size_t leaf = 0; leaf < holds.size(); ++leaf) {
    if (!holds[leaf]) continue;
    const StepSet has = *holds[leaf];
    const CountedRead::Leaf& must = read.leaves[leaf];
    const StepSet missing = must.needed & ~has;
    if (missing != 0)
      lead = std::max(lead, read.step - static_cast<std::int64_t>(std::countr_zero(missing)) - 1);
    if ((must.own & ~has) != 0)
      findings.wrong(fmt::format("{} of step {}: own pushes of leaf {} are missing: {:#x} of {:#x}",
                                 read.what, read.step, leaf, has, must.own));
    if ((has & ~must.pushed) != 0)
      findings.wrong(fmt::format("{} of step {}: holds steps of leaf {} that nobody pushed: {:#x} of {:#x}",
                                 read.what, read.step, leaf, has, must.pushed));
  }
  if (read.staleness && lead > *read.staleness)
    findings.wrong(fmt::format("{} of step {}: its lead is {}, at most {}", read.what, read.step, lead,
                               *read.staleness));
  return lead;
}

}  // namespace varscope::testing
