#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/placement/cluster.h"
#include "common/placement/norm_plan.h"
#include "common/transport/transport.h"
#include "ps/update/finite_watch.h"

namespace varscope {

// Which norms of a step: kNormsOfGradients or kNormsOfValues (common/transport/wire.h).
using NormKind = std::uint32_t;

// Doubles that one rank sends another, as message bodies of up to 1 MiB: `sequence` of a message counts the
// doubles before it. Checks everything that it is given.
class NormStream {
 public:
  explicit NormStream(std::int64_t n) : values_(static_cast<std::size_t>(n)) {}
  static void send(Transport& transport, Rank to, MessageHeader header, std::span<const double> values);
  // Takes one message; true when it was the last. Throws Error(protocol).
  bool receive(const Message& message);
  const std::vector<double>& values() const { return values_; }
  void restart() { n_received_ = 0; }

 private:
  std::vector<double> values_;
  std::size_t n_received_ = 0;
};

// Server 0's part: collects all servers' sums of squares of one step, adds them in the plan's order, and
// answers every server that has a part with the factors of all groups. One kind of norm; driven by messages;
// not thread-safe.
class NormReducer {
 public:
  // `watch` is told of norms that are not finite. They scale nothing (NormPlan::factors()).
  NormReducer(Transport& transport, const ClusterMap& cluster, const VariableTable& variables,
              const NormPlan& plan, NormKind kind, FiniteWatch& watch);

  // Throws Error(protocol) on sums that are not due.
  void on_sums(const Message& message);

 private:
  void finish(Clock clock);

  Transport& transport_;
  const ClusterMap& cluster_;
  const VariableTable& variables_;
  const NormPlan& plan_;
  NormKind kind_;
  FiniteWatch& watch_;
  IdVector<ServerId, NormStream> streams_;
  IdVector<ServerId, bool> is_due_;  // the servers whose sums are not all here
  std::optional<Clock> clock_;       // of the step that is being collected
  std::int64_t last_ = 0;            // the step that was collected last
  bool has_told_ = false;            // of the first step with a norm that is not finite
};

// One server's part: its own sums, in the order of NormTerm::place, and the factors that come back.
class NormExchange {
 public:
  NormExchange(Transport& transport, const ClusterMap& cluster, const NormPlan& plan, ServerId server,
               NormKind kind);

  // Where a term's sums go; all must be filled before send().
  std::span<double> sums(const NormTerm& term);
  void send(Clock clock);
  // Takes a part of the answer; true when it is whole. Throws Error(protocol).
  bool on_scales(const Message& message);
  // The factors of the term's groups, after on_scales() has said that they are whole.
  std::span<const double> scales(const NormTerm& term) const;

 private:
  Transport& transport_;
  const ClusterMap& cluster_;
  const NormPlan& plan_;
  ServerId server_;
  NormKind kind_;
  std::vector<double> sums_;
  NormStream scales_;
  std::optional<Clock> waiting_;  // for the factors of this step
};

}  // namespace varscope
