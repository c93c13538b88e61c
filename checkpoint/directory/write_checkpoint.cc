#include "checkpoint/directory/write_checkpoint.h"

#include <map>
#include <random>
#include <string_view>

#include "common/base/error.h"

namespace varscope {
namespace {

std::string new_id(std::int64_t step) {
  std::random_device device;
  return fmt::format("{:09d}-{:08x}-0", step, device());
}

// The tensors of each server.
std::vector<std::vector<ShardTensor>> place(NewCheckpoint& c) {
  std::map<std::string_view, const VariableSpec*> by_name;
  for (const VariableSpec& v : c.manifest.variables.variables()) by_name[v.name] = &v;
  std::vector<std::vector<ShardTensor>> servers(static_cast<std::size_t>(c.manifest.servers));
  for (ShardTensor& t : c.tensors) {
    const ServerId owner = by_name.at(t.variable)->owner(t.slice, c.manifest.servers);
    t.data.n_bytes = static_cast<std::size_t>(t.box.n_elements()) * size_of(t.dtype);
    servers[static_cast<std::size_t>(owner.value)].push_back(std::move(t));
  }
  return servers;
}

// The tables with the parts of one server.
std::vector<RowFileTable> tables_of(const NewCheckpoint& c, int server) {
  std::vector<RowFileTable> tables = c.tables;
  for (RowFileTable& t : tables) {
    const VariableSpec& v = *c.manifest.variables.find(t.variable);
    t.parts.clear();
    for (int part = 0; part < t.spec.parts; ++part) {
      if (v.owner(part, c.manifest.servers) == ServerId(server)) t.parts.push_back(part);
    }
  }
  return tables;
}

void write_files(Fs& fs, const std::string& tmp, const std::string& id, NewCheckpoint& c,
                 const FillTensor& fill, const ReadPart& read) {
  Manifest& m = c.manifest;
  m.id = id;
  m.files.clear();
  m.tensors.clear();
  m.tables.clear();
  m.row_parts.clear();
  m.not_finite.clear();
  const std::vector<std::vector<ShardTensor>> servers = place(c);
  std::vector<std::byte> memory;
  for (int server = 0; server < m.servers; ++server) {
    const std::vector<ShardTensor>& tensors = servers[static_cast<std::size_t>(server)];
    const auto load = [&](std::size_t i) -> std::span<const std::byte> {
      memory.resize(tensors[i].data.n_bytes);
      fill(tensors[i], memory);
      return memory;
    };
    ShardReport report = write_shard(fs, tmp, server, m.servers, m.step, m.worker_clocks, id, tensors, load);
    if (!c.tables.empty())
      add_row_file(report,
                   write_row_file(fs, tmp, {server, m.servers, m.step, id}, tables_of(c, server), read));
    add_report(m, report);
  }
  for (const auto& [name, bytes] : c.files) m.files.push_back(write_blob(fs, tmp, name, bytes));
  if (c.evaluation) write_evaluation(fs, tmp, *c.evaluation);
}

}  // namespace

std::string write_checkpoint(Fs& fs, CheckpointDirectory& directory, NewCheckpoint checkpoint,
                             const FillTensor& fill, const ReadPart& read) {
  directory.sweep();
  const std::string id = new_id(checkpoint.manifest.step);
  try {
    write_files(fs, directory.begin(id), id, checkpoint, fill, read);
    return directory.commit(id, std::move(checkpoint.manifest));
  } catch (const std::exception&) {
    directory.abandon(id);
    throw;
  }
}

}  // namespace varscope
