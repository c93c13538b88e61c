#include "checkpoint/tools/reshard.h"

#include <map>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "checkpoint/directory/write_checkpoint.h"
#include "checkpoint/restore/reader.h"
#include "common/base/error.h"

namespace varscope {
namespace {

NewCheckpoint plan_of(CheckpointReader& reader, int servers) {
  NewCheckpoint c;
  c.manifest = reader.manifest();
  c.manifest.format_major = kCheckpointFormat.major;
  c.manifest.format_minor = kCheckpointFormat.minor;
  c.manifest.servers = servers;
  for (const TensorRecord& t : reader.manifest().tensors)
    c.tensors.push_back({t.variable, t.slot, t.slice, t.dtype, Slice::from_spec(t.box), {}});
  for (const TableRecord& t : reader.tables())
    c.tables.push_back({t.variable, t.spec, reader.row_layout(t.variable), {}});
  for (const FileRecord& f : reader.manifest().files) {
    if (server_of_shard(f.name) < 0 && server_of_row_file(f.name) < 0)
      c.files.emplace_back(f.name, reader.read_file(f.name));
  }
  return c;
}

}  // namespace

void reshard_tool(Fs& fs, const std::string& path, const std::string& dir, int servers, ToolFormat format,
                  std::string& out) {
  if (servers < 1) fail(ErrorKind::argument, "cannot write the shards of {} servers", servers);
  CheckpointReader reader = CheckpointReader::open(fs, path);
  std::map<std::tuple<std::string_view, std::string_view, std::int64_t>, const TensorRecord*> records;
  for (const TensorRecord& t : reader.manifest().tensors) records[{t.variable, t.slot, t.slice}] = &t;
  NewCheckpoint plan = plan_of(reader, servers);
  std::string unreadable;
  plan.evaluation = read_evaluation(fs, path, &unreadable);
  CheckpointDirectory directory(fs, dir);
  directory.lock("(varscope checkpoint reshard)");
  const auto fill = [&](const ShardTensor& t, std::span<std::byte> bytes) {
    reader.read(t.variable, t.slot, t.box, TensorView(t.dtype, t.box.extent, bytes.data()));
    const TensorRecord& record = *records.at({t.variable, t.slot, t.slice});
    if (digest_of(bytes) != record.digest)
      fail(ErrorKind::checkpoint,
           "checkpoint {} is damaged: slice {} of \"{}\" has another hash than the manifest says", path,
           t.slice, t.variable);
  };
  const auto read = [&](std::size_t table, int part, PartRows& rows) {
    reader.read_part(reader.tables()[table].variable, part, rows);
  };
  const std::string written = write_checkpoint(fs, directory, std::move(plan), fill, read);
  std::vector<std::string> warnings = directory.warnings();
  if (!unreadable.empty()) warnings.push_back(std::move(unreadable));
  const std::string hash = reader.values_hash().hex();
  if (format == ToolFormat::json) {
    out +=
        json_text({{"path", written}, {"servers", servers}, {"values_hash", hash}, {"warnings", warnings}});
    return;
  }
  for (const std::string& warning : warnings) out += "warning: " + warning + "\n";
  out += fmt::format("{}: {} shard{} instead of {}, values hash {}\n", written, servers,
                     servers == 1 ? "" : "s", reader.manifest().servers, hash);
}

}  // namespace varscope
