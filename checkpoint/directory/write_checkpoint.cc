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

void write_files(Fs& fs, const std::string& tmp, const std::string& id, NewCheckpoint& c,
                 const FillTensor& fill) {
  Manifest& m = c.manifest;
  m.id = id;
  m.files.clear();
  m.tensors.clear();
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
    add_report(m, write_shard(fs, tmp, server, m.servers, m.step, m.worker_clocks, id, tensors, load));
  }
  for (const auto& [name, bytes] : c.files) m.files.push_back(write_blob(fs, tmp, name, bytes));
  if (c.evaluation) write_evaluation(fs, tmp, *c.evaluation);
}

}  // namespace

std::string write_checkpoint(Fs& fs, CheckpointDirectory& directory, NewCheckpoint checkpoint,
                             const FillTensor& fill) {
  directory.sweep();
  const std::string id = new_id(checkpoint.manifest.step);
  try {
    write_files(fs, directory.begin(id), id, checkpoint, fill);
    return directory.commit(id, std::move(checkpoint.manifest));
  } catch (const std::exception&) {
    directory.abandon(id);
    throw;
  }
}

}  // namespace varscope
