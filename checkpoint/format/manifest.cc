#include "checkpoint/format/manifest.h"

#include <algorithm>
#include <charconv>
#include <tuple>

#include <nlohmann/json.hpp>

#include "checkpoint/format/shard.h"
#include "checkpoint/storage/archive.h"
#include "common/base/error.h"
#include "common/base/row_id.h"

namespace varscope {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const FileRecord& f) {
  return {{"name", f.name},
          {"bytes", f.size},
          {"chunk_bytes", f.crc_block_bytes},
          {"crc32c", f.crc32c},
          {"xxh3_128", f.digest.hex()}};
}

Json to_json(const TensorRecord& t, const std::vector<FileRecord>& files) {
  const Slice box = Slice::from_spec(t.box);
  return {{"variable", t.variable},
          {"slot", t.slot},
          {"slice", t.slice},
          {"dtype", to_string(t.dtype)},
          {"box", t.box},
          {"offset", box.offset.dims()},
          {"extent", box.extent.dims()},
          {"file", files.at(t.file).name},
          {"bytes", {t.begin, t.end}},
          {"xxh3_128", t.digest.hex()}};
}

Json to_json(const VariableSpec& v) {
  Json json = {{"name", v.name},
               {"scope", v.scope},
               {"dtype", to_string(v.dtype)},
               {"shape", v.shape.dims()},
               {"initializer", v.initializer.str()},
               {"trainable", v.trainable}};
  if (v.is_average()) json["average_decay"] = v.average_decay;
  if (v.constraint.exists()) json["constraint"] = v.constraint.str();
  if (v.is_part()) {
    json["part"] = {{"full_name", v.part.full_name},
                    {"full_shape", v.part.full_shape.dims()},
                    {"offset", v.part.offset.dims()},
                    {"index", v.part.index},
                    {"n_parts", v.part.n_parts}};
  }
  return json;
}

Json to_json(const NotFiniteTensor& t, const VariableTable& variables) {
  const VariableSpec* v = variables.find(t.variable);
  const bool is_row = v != nullptr && v->is_table();
  Json json = {{"variable", t.variable}, {"slot", t.slot}, {"elements", t.n_elements}};
  if (is_row) {
    json["first_row"] = id_text(v->table->ids, static_cast<std::uint64_t>(t.first_element));
  } else {
    json["first"] = t.first_element;
  }
  json["what"] = t.what;
  return json;
}

// A line for each file that has pieces of the table: a thousand parts one by one would tell nobody more.
Json to_json(const TableRecord& t, const Manifest& m) {
  const TableTotals totals = totals_of(m, t.variable);
  std::map<std::uint32_t, TableTotals> files;
  for (const RowPartRecord& r : m.row_parts) {
    if (r.variable != t.variable) continue;
    for (const RowPiece& p : r.pieces) {
      TableTotals& of_file = files[p.file];
      of_file.n_rows += p.n_rows;
      of_file.n_parts += 1;
      of_file.n_bytes += p.n_bytes();
    }
  }
  Json slots = Json::array(), by_file = Json::array();
  for (const RowSlot& s : t.slots) slots.push_back({{"name", s.name}, {"elements", s.n_elements}});
  for (const auto& [file, of_file] : files) {
    by_file.push_back({{"file", m.files.at(file).name},
                       {"parts", of_file.n_parts},
                       {"rows", of_file.n_rows},
                       {"bytes", of_file.n_bytes}});
  }
  return {{"variable", t.variable},
          {"ids", to_string(t.spec.ids)},
          {"parts", t.spec.parts},
          {"row_bytes", row_layout_of(m, t).row_bytes()},
          {"slots", slots},
          {"rows", totals.n_rows},
          {"bytes", totals.n_bytes},
          {"waiting", totals.n_waiting},
          {"longest_chain", totals.longest_chain},
          {"files", by_file}};
}

// Whether the first element of `a` comes before that of `b`, both of one variable and slot.
bool comes_before(const NotFiniteTensor& a, const NotFiniteTensor& b, bool is_table) {
  if (!is_table) return a.first_element <= b.first_element;
  return mix_row_id(static_cast<std::uint64_t>(a.first_element)) <=
         mix_row_id(static_cast<std::uint64_t>(b.first_element));
}

// Of one (variable, slot), whose slices are on several servers.
void add_not_finite(Manifest& manifest, const NotFiniteTensor& t) {
  const auto same = std::ranges::find_if(manifest.not_finite, [&](const NotFiniteTensor& known) {
    return known.variable == t.variable && known.slot == t.slot;
  });
  if (same == manifest.not_finite.end()) {
    manifest.not_finite.push_back(t);
    return;
  }
  same->n_elements += t.n_elements;
  if (!comes_before(t, *same, find_table(manifest, t.variable) != nullptr)) return;
  same->first_element = t.first_element;
  same->what = t.what;
}

std::string numbers(const std::vector<std::int64_t>& values) {
  return fmt::format("[{}]", fmt::join(values, ", "));
}

// "shard-00003-of-00008..." with the prefix "shard-" is 3; -1 for another name.
int server_of(const std::string& name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return -1;
  int server = -1;
  const auto [end, error] = std::from_chars(name.data() + prefix.size(), name.data() + name.size(), server);
  const bool is_number = error == std::errc() && server >= 0;
  return is_number && std::string_view(end).starts_with("-of-") ? server : -1;
}

void add_tables(Manifest& manifest, const ShardReport& report) {
  if (report.row_files.empty()) {
    if (manifest.tables.empty()) return;
    fail(ErrorKind::checkpoint, "checkpoint {}: server {} reports no rows, but another one does", manifest.id,
         report.server);
  }
  if (manifest.tables.empty()) {
    manifest.tables = report.tables;
    manifest.format_major = kTablesFormat.major;
    manifest.format_minor = kTablesFormat.minor;
  }
  if (manifest.tables != report.tables)
    fail(ErrorKind::checkpoint, "checkpoint {}: server {} has other tables than another one", manifest.id,
         report.server);
  const auto file = static_cast<std::uint32_t>(manifest.files.size());
  manifest.files.insert(manifest.files.end(), report.row_files.begin(), report.row_files.end());
  for (const RowPartRecord& r : report.row_parts) {
    for (RowPiece& piece : manifest.row_parts.emplace_back(r).pieces) piece.file += file;
  }
}

}  // namespace

std::string shard_name(int server, int n_servers) {
  return fmt::format("shard-{:05}-of-{:05}.safetensors", server, n_servers);
}
std::string row_file_name(int server, int n_servers) {
  return fmt::format("rows-{:05}-of-{:05}.bin", server, n_servers);
}
std::string linked_row_file_name(int server, int n_servers, std::int64_t step) {
  return fmt::format("rows-{:05}-of-{:05}.{}.bin", server, n_servers, step_name(step));
}
std::string worker_state_name(int worker) { return fmt::format("worker-{:05}.state", worker); }
std::string step_name(std::int64_t step) { return fmt::format("step-{:09}", step); }

int server_of_shard(const std::string& name) { return server_of(name, "shard-"); }
int server_of_row_file(const std::string& name) { return server_of(name, "rows-"); }

std::int64_t step_of_linked_file(const std::string& name) {
  constexpr std::string_view kBefore = ".step-";
  const std::size_t at = name.find(kBefore);
  if (server_of_row_file(name) < 0 || at == std::string::npos) return -1;
  std::int64_t step = -1;
  const char* const end_of_name = name.data() + name.size();
  const auto [end, error] = std::from_chars(name.data() + at + kBefore.size(), end_of_name, step);
  const bool is_step = error == std::errc() && step >= 0 && std::string_view(end, end_of_name) == ".bin";
  return is_step && name.substr(at + 1) == step_name(step) + ".bin" ? step : -1;
}

Provenance made_by(const Manifest& manifest) {
  for (const Provenance p : {Provenance::saver, Provenance::import}) {
    if (manifest.run_id == run_id_of(p)) return p;
  }
  return Provenance::run;
}

std::string run_id_of(Provenance provenance) {
  switch (provenance) {
    case Provenance::saver:
      return "saver";
    case Provenance::import:
      return "import";
    case Provenance::run:
      break;
  }
  fail(ErrorKind::argument, "the id of a run does not follow from its being a run");
}

void add_report(Manifest& manifest, const ShardReport& report) {
  if (report.step != manifest.step || report.worker_clocks != manifest.worker_clocks) {
    fail(ErrorKind::checkpoint,
         "checkpoint {}: server {} cut at step {} with worker clocks {}, the coordinator at step {} with {}; "
         "the servers are not of one state",
         manifest.id, report.server, report.step, numbers(report.worker_clocks), manifest.step,
         numbers(manifest.worker_clocks));
  }
  for (const FileRecord& f : manifest.files) {
    if (f.name == report.file.name)
      fail(ErrorKind::checkpoint, "checkpoint {}: two reports of {}", manifest.id, f.name);
  }
  const auto file = static_cast<std::uint32_t>(manifest.files.size());
  manifest.files.push_back(report.file);
  for (const TensorRecord& t : report.tensors) {
    manifest.tensors.push_back(t);
    manifest.tensors.back().file = file;
  }
  add_tables(manifest, report);
  for (const NotFiniteTensor& t : report.not_finite) add_not_finite(manifest, t);
  sort_not_finite(manifest.not_finite);
  manifest.knows_not_finite = true;
}

void sort_not_finite(std::vector<NotFiniteTensor>& tensors) {
  std::ranges::sort(tensors, [](const NotFiniteTensor& a, const NotFiniteTensor& b) {
    return std::tie(a.slot, a.variable) < std::tie(b.slot, b.variable);
  });
}

std::string not_finite_text(const Manifest& manifest) {
  return not_finite_text(manifest.not_finite, manifest.variables);
}

std::string not_finite_text(const std::vector<NotFiniteTensor>& tensors, const VariableTable& variables) {
  constexpr std::size_t kMostNames = 3;
  std::string text;
  for (std::size_t i = 0; i < std::min(tensors.size(), kMostNames); ++i) {
    const NotFiniteTensor& t = tensors[i];
    const VariableSpec* v = variables.find(t.variable);
    const std::string from =
        v != nullptr && v->is_table()
            ? "row " + id_text(v->table->ids, static_cast<std::uint64_t>(t.first_element))
            : fmt::format("element {}", t.first_element);
    text += fmt::format("{}{} in {}{} ({} element{}, from {} on)", i == 0 ? "" : ", ", t.what, t.variable,
                        t.slot.empty() ? "" : fmt::format(" slot {}", t.slot), t.n_elements,
                        t.n_elements == 1 ? "" : "s", from);
  }
  if (tensors.size() > kMostNames) text += fmt::format(" and {} more", tensors.size() - kMostNames);
  return text;
}

Digest values_hash_1_of(const Manifest& manifest) {
  std::map<std::pair<std::string_view, std::int64_t>, const Digest*> sorted;
  for (const TensorRecord& t : manifest.tensors) {
    if (t.slot.empty()) sorted[{t.variable, t.slice}] = &t.digest;
  }
  for (const RowPartRecord& r : manifest.row_parts) {
    if (r.n_rows > 0) sorted[{r.variable, r.part}] = &r.hash_sum;
  }
  Digester digester;
  for (const auto& [key, digest] : sorted) {
    digester.update(fmt::format("{}\n{}\n", key.first, key.second));
    digester.update(std::as_bytes(std::span(digest->bytes)));
  }
  return digester.finish();
}

Digest values_hash_of(const Manifest& manifest) {
  ValuesHash hash(manifest.variables);
  for (const TensorRecord& t : manifest.tensors) {
    if (t.slot.empty()) hash.add(t.variable, t.slice, t.digest);
  }
  for (const RowPartRecord& r : manifest.row_parts) {
    if (r.n_rows > 0) hash.add(r.variable, r.part, r.hash_sum);
  }
  return hash.finish();
}

std::uint64_t total_bytes(const Manifest& manifest) {
  std::uint64_t n = 0;
  for (const FileRecord& f : manifest.files) n += f.size;
  return n;
}

const TableRecord* find_table(const Manifest& manifest, std::string_view name) {
  const auto it = std::ranges::find(manifest.tables, name, &TableRecord::variable);
  return it == manifest.tables.end() ? nullptr : &*it;
}

RowLayout row_layout_of(const Manifest& manifest, const TableRecord& table) {
  const VariableSpec* v = manifest.variables.find(table.variable);
  if (v == nullptr || v->shape.rank() != 2)
    fail(ErrorKind::argument, "table \"{}\" is no variable of shape [0, units]", table.variable);
  return {v->dtype, v->shape[1], table.slots};
}

TableTotals totals_of(const Manifest& manifest, std::string_view table) {
  TableTotals totals;
  for (const RowPartRecord& r : manifest.row_parts) {
    if (r.variable != table) continue;
    totals.n_rows += r.n_rows;
    totals.n_waiting += r.n_waiting;
    totals.n_parts += r.n_rows > 0 ? 1 : 0;
    for (const RowPiece& p : r.pieces) totals.n_bytes += p.n_bytes();
    totals.longest_chain = std::max(totals.longest_chain, r.pieces.size());
  }
  return totals;
}

std::string encode_manifest(const Manifest& manifest) {
  if (manifest.format_major < kFirstTablesMajor)
    return seal(kManifestMagic, to_disk_text(manifest), kCheckpointFormat);
  if (manifest.format_major == kTablesFormat.major)
    return seal(kManifestMagic, to_disk_text(manifest), kTablesFormat);
  Manifest newest = manifest;  // it was read from an older one
  newest.format_major = kTablesFormat.major;
  newest.format_minor = kTablesFormat.minor;
  return encode_manifest(newest);
}

Manifest decode_manifest(std::string_view bytes, std::string_view what) {
  const std::string payload(open_envelope(kManifestMagic, bytes, what));
  Manifest manifest = from_disk_text<Manifest>(payload, std::string(what));
  check_manifest(manifest, what);
  return manifest;
}

std::string to_json(const Manifest& m) {
  Json files = Json::array(), tensors = Json::array(), variables = Json::array();
  for (const FileRecord& f : m.files) files.push_back(to_json(f));
  for (const TensorRecord& t : m.tensors) tensors.push_back(to_json(t, m.files));
  for (const VariableSpec& v : m.variables.variables()) variables.push_back(to_json(v));
  Json not_finite = Json::array();
  for (const NotFiniteTensor& t : m.not_finite) not_finite.push_back(to_json(t, m.variables));
  Json json = {{"format", fmt::format("{}.{}", m.format_major, m.format_minor)},
               {"program_version", m.program_version},
               {"id", m.id},
               {"parent", m.parent},
               {"run_id", m.run_id},
               {"attempt", m.attempt},
               {"unix_time", m.unix_time},
               {"config_hash", m.config_hash},
               {"endianness", m.endianness},
               {"mode", m.mode},
               {"step", m.step},
               {"cut", m.worker_clocks},
               {"servers", m.servers},
               {"workers", m.workers},
               {"logical_workers", m.logical_workers},
               {"optimizer", m.optimizer},
               {"slots", m.slots},
               {"values_hash", values_hash_of(m).hex()},
               {"finite", m.knows_not_finite ? Json(m.not_finite.empty()) : Json(nullptr)},
               {"not_finite", not_finite},
               {"variables", variables},
               {"files", files},
               {"tensors", tensors}};
  for (const TableRecord& t : m.tables) json["tables"].push_back(to_json(t, m));
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

TensorIndex index_tensors(const Manifest& manifest) {
  TensorIndex index;
  for (std::size_t i = 0; i < manifest.tensors.size(); ++i) {
    index[{manifest.tensors[i].variable, manifest.tensors[i].slot}].push_back(i);
  }
  for (auto& [key, indices] : index) {
    std::sort(indices.begin(), indices.end(), [&](std::size_t a, std::size_t b) {
      return manifest.tensors[a].slice < manifest.tensors[b].slice;
    });
  }
  return index;
}

}  // namespace varscope
