#include "checkpoint/tools/rewrite.h"

#include <algorithm>
#include <map>
#include <random>
#include <tuple>

#include "checkpoint/restore/reader.h"
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
  const std::vector<std::vector<ShardTensor>> servers = place(c);
  std::vector<std::byte> memory;
  for (int server = 0; server < m.servers; ++server) {
    const std::vector<ShardTensor>& tensors = servers[static_cast<std::size_t>(server)];
    const auto load = [&](std::size_t i) -> std::span<const std::byte> {
      memory.resize(tensors[i].data.n_bytes);
      fill(tensors[i], memory);
      return memory;
    };
    add_report(m, write_shard(fs, tmp, server, m.servers, m.step, m.cut, id, tensors, load));
  }
  for (const auto& [name, bytes] : c.files) m.files.push_back(write_blob(fs, tmp, name, bytes));
  if (c.evaluation) write_evaluation(fs, tmp, *c.evaluation);
}

NewCheckpoint plan_of(CheckpointReader& reader, int servers) {
  NewCheckpoint c;
  c.manifest = reader.manifest();
  c.manifest.format_major = kCheckpointFormat.major;
  c.manifest.format_minor = kCheckpointFormat.minor;
  c.manifest.servers = servers;
  for (const TensorRecord& t : reader.manifest().tensors)
    c.tensors.push_back({t.variable, t.slot, t.slice, t.dtype, Slice::from_spec(t.box), {}});
  for (const FileRecord& f : reader.manifest().files) {
    if (server_of_shard(f.name) < 0) c.files.emplace_back(f.name, reader.read_file(f.name));
  }
  return c;
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

void reshard_tool(Fs& fs, const std::string& path, const std::string& dir, int servers, ToolFormat format,
                  std::string& out) {
  if (servers < 1) fail(ErrorKind::argument, "cannot write the shards of {} servers", servers);
  CheckpointReader reader = CheckpointReader::open(fs, path);
  std::map<std::tuple<std::string_view, std::string_view, std::int64_t>, const TensorRecord*> records;
  for (const TensorRecord& t : reader.manifest().tensors) records[{t.variable, t.slot, t.slice}] = &t;
  NewCheckpoint plan = plan_of(reader, servers);
  plan.evaluation = read_evaluation(fs, path);
  CheckpointDirectory directory(fs, dir);
  directory.lock("(varscope checkpoint reshard)");
  const std::string written =
      write_checkpoint(fs, directory, std::move(plan), [&](const ShardTensor& t, std::span<std::byte> bytes) {
        reader.read(t.variable, t.slot, t.box, TensorView(t.dtype, t.box.extent, bytes.data()));
        const TensorRecord& record = *records.at({t.variable, t.slot, t.slice});
        if (digest_of(bytes) != record.digest)
          fail(ErrorKind::checkpoint,
               "checkpoint {} is damaged: slice {} of \"{}\" has another hash than the manifest says", path,
               t.slice, t.variable);
      });
  const std::string hash = reader.values_hash().hex();
  if (format == ToolFormat::json) {
    out += json_text(
        {{"path", written}, {"servers", servers}, {"values_hash", hash}, {"warnings", directory.warnings()}});
    return;
  }
  for (const std::string& warning : directory.warnings()) out += "warning: " + warning + "\n";
  out += fmt::format("{}: {} shard{} instead of {}, values hash {}\n", written, servers,
                     servers == 1 ? "" : "s", reader.manifest().servers, hash);
}

}  // namespace varscope
