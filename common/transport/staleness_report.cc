#include "common/transport/staleness_report.h"

namespace varscope {

Tally& Tally::operator+=(const Tally& o) {
  if (cells.empty()) in_powers = o.in_powers;
  if (cells.size() < o.cells.size()) cells.resize(o.cells.size());
  for (std::size_t i = 0; i < o.cells.size(); ++i) cells[i] += o.cells[i];
  sum += o.sum;
  most = std::max(most, o.most);
  return *this;
}

Tally Tally::since(const Tally& before) const {
  Tally all = *this;
  all.cells.resize(std::max(cells.size(), before.cells.size()));
  for (std::size_t i = 0; i < before.cells.size(); ++i) all.cells[i] -= before.cells[i];
  all.sum -= before.sum;
  while (!all.cells.empty() && all.cells.back() == 0) all.cells.pop_back();
  if (most > before.most) return all;
  const auto n = static_cast<std::int64_t>(all.cells.size());
  const std::int64_t last = std::max<std::int64_t>(0, n - 1);
  all.most = std::min(most, !in_powers || last < 2 ? last : (std::int64_t{1} << last) - 1);
  return all;
}

StalenessReport& StalenessReport::operator+=(const StalenessReport& o) {
  leads += o.leads;
  delays += o.delays;
  n_answers += o.n_answers;
  gate_ns += o.gate_ns;
  service_ns += o.service_ns;
  n_holds += o.n_holds;
  held_ns += o.held_ns;
  bytes_up += o.bytes_up;
  bytes_down += o.bytes_down;
  return *this;
}

StalenessReport StalenessReport::since(const StalenessReport& before) const {
  StalenessReport r = *this;
  r.leads = leads.since(before.leads);
  r.delays = delays.since(before.delays);
  r.n_answers -= before.n_answers;
  r.gate_ns -= before.gate_ns;
  r.service_ns -= before.service_ns;
  r.n_holds -= before.n_holds;
  r.held_ns -= before.held_ns;
  r.bytes_up -= before.bytes_up;
  r.bytes_down -= before.bytes_down;
  return r;
}

}  // namespace varscope
