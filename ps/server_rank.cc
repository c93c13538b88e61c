#include "ps/server_rank.h"

#include <algorithm>
#include <utility>

#include "ps/record/record_units.h"

namespace varscope {
namespace {

// Late enough for data that come from a busy disk.
constexpr double kLateTicket_s = 10;

template <class T>
T* pointer(std::optional<T>& part) {
  return part ? &*part : nullptr;
}

}  // namespace

ServerRank::ServerRank(const Parts& parts)
    : optimizer_(parts.optimizer), shard_(parts.variables, parts.plan, parts.id, optimizer_.slots()) {
  if (parts.rows != nullptr)
    tables_ = make_table_shards(parts.variables, *parts.rows, parts.id, optimizer_, parts.seed);
  parts.fill(shard_, tables_);
  if (parts.saves) make_saves(parts);
  if (parts.record) make_record(parts);
  if (parts.replay) {
    const RecordedRun& run = parts.replay->run;
    if (!parts.rule.is_bsp()) make_replay(parts, run);
    if (parts.control) ticket_replay_.emplace(parts.replay->fs, run.dir, run.from);
  }
  if (parts.control) {
    const Control& control = *parts.control;
    std::optional<StreamControl> stream;
    if (control.stream)
      stream.emplace(*control.stream, control.state.stream.value_or(StreamPosition{}), control.train.first);
    coordinator_.emplace(
        Coordinator::Parts{parts.transport, parts.cluster, parts.plan, parts.variables, control.train,
                           parts.saves ? parts.saves->config : CheckpointConfig{}, pointer(checkpoints_),
                           control.observer, control.state, control.evaluation, control.on_nan, control.stop,
                           stream, parts.rule, std::min(kLateTicket_s, parts.stall_timeout_s / 4),
                           pointer(ticket_record_), pointer(ticket_replay_), control.samples});
  }
  server_.emplace(Server::Parts{parts.transport,
                                parts.cluster,
                                parts.plan,
                                optimizer_,
                                shard_,
                                pointer(checkpointer_),
                                pointer(coordinator_),
                                parts.start_id,
                                parts.stall_timeout_s,
                                parts.hosts,
                                parts.limits,
                                parts.requests,
                                parts.histogram_every_steps,
                                parts.rows,
                                &tables_,
                                parts.rule,
                                parts.first,
                                parts.staleness_every_steps,
                                pointer(record_),
                                pointer(replay_),
                                parts.flush});
}

// All that events are looked up by is compared first: the header is a file's.
void ServerRank::make_replay(const Parts& parts, const RecordedRun& run) {
  replay_.emplace(parts.replay->fs, run.dir, RecordedOrder::Options{run.from, run.compared, parts.id});
  const RecordHeader& header = replay_->header();
  const int n_units = RecordUnits(parts.plan, parts.rows, parts.id).count();
  if (header.server == parts.id.value && header.servers == parts.cluster.n_servers() &&
      header.workers == parts.cluster.n_workers() && header.n_units == n_units)
    return;
  fail(ErrorKind::data,
       "{} is not of this server's part of the run: server {} of {}, {} workers, {} units in its header, and "
       "server {} of {}, {} workers, {} units here",
       segment_path(events_dir(run.dir, parts.id), run.from), header.server, header.servers, header.workers,
       header.n_units, parts.id.value, parts.cluster.n_servers(), parts.cluster.n_workers(), n_units);
}

void ServerRank::make_record(const Parts& parts) {
  const Record& record = *parts.record;
  SegmentWriter::Parts writer{record.fs, events_dir(record.run_dir, parts.id),
                              parts.saves ? parts.saves->dir : "", record.header, record.tell};
  writer.header.server = parts.id.value;
  writer.header.n_units = RecordUnits(parts.plan, parts.rows, parts.id).count();
  if (!parts.rule.is_bsp()) record_.emplace(writer, parts.first);
  if (!parts.control) return;
  writer.dir = tickets_dir(record.run_dir);
  writer.header.server = -1;
  writer.header.n_units = 0;
  ticket_record_.emplace(std::move(writer), parts.first);
}

void ServerRank::make_saves(const Parts& parts) {
  const Saves& saves = *parts.saves;
  checkpointer_.emplace(shard_, tables_, saves.fs, saves.dir, parts.cluster.n_servers(),
                        parts.cluster.n_workers(), saves.options);
  if (!parts.control) return;
  std::vector<ServerId> writers;
  for (ServerId s : parts.cluster.servers.ids()) writers.push_back(s);
  checkpoints_.emplace(saves.fs, saves.dir, saves.config, manifest_of(parts), parts.start_id,
                       std::move(writers), parts.control->train.first, parts.control->observer,
                       saves.resumed_from, saves.lineage);
}

Manifest ServerRank::manifest_of(const Parts& parts) const {
  Manifest m = parts.saves->manifest;
  m.servers = parts.cluster.n_servers();
  m.workers = parts.cluster.n_workers();
  m.logical_workers = parts.cluster.logical_workers;
  m.variables = parts.saves->options.names.held(parts.variables);
  m.optimizer = to_string(optimizer_.config().type);
  m.slots = optimizer_.slot_names();
  return m;
}

}  // namespace varscope
