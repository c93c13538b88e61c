#include "checkpoint/tools/list_inspect.h"

#include <fmt/ranges.h>

#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <sstream>
#include <vector>

#include "checkpoint/directory/scan.h"
#include "checkpoint/format/elements.h"
#include "checkpoint/format/evaluation.h"
#include "checkpoint/format/stream_position.h"
#include "checkpoint/restore/finite.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/restore/row_cursor.h"
#include "checkpoint/tools/linked_bytes.h"
#include "common/base/error.h"
#include "common/base/figures.h"

namespace varscope {
namespace {

using Json = nlohmann::json;

struct Summary {
  double min = std::numeric_limits<double>::infinity(), max = -std::numeric_limits<double>::infinity();
  double squares = 0;
  void add(double x) {
    if (x < min || std::isnan(x)) min = x;
    if (x > max || std::isnan(x)) max = x;
    squares += x * x;
  }
};

// What `inspect` says of one variable.
struct VariableReport {
  const VariableSpec* variable;
  std::set<int> servers;
  Summary summary;
  TableTotals rows = {};  // of a table

  // "[90, 61]", "[200 rows, 3]"
  std::string shape() const {
    return variable->is_table() ? fmt::format("[{} rows, {}]", rows.n_rows, variable->shape[1])
                                : variable->shape.str();
  }
};

VariableReport report_of(CheckpointReader& reader, const VariableSpec& v,
                         const std::vector<std::size_t>& tensors) {
  const Manifest& m = reader.manifest();
  VariableReport report{&v, {}, {}, {}};
  for (const std::size_t i : tensors) {
    const TensorRecord& t = m.tensors[i];
    report.servers.insert(server_of_shard(m.files[t.file].name));
    const Slice box = Slice::from_spec(t.box);
    const Tensor values(t.dtype, box.extent);
    reader.read(t.variable, t.slot, box, values.view());
    with_element_type(t.dtype, [&](auto type) {
      for (std::size_t e = 0; e < static_cast<std::size_t>(values.n_elements()); ++e)
        report.summary.add(as_double(element<decltype(type)>(values.view().bytes(), e)));
    });
  }
  return report;
}

// The rows part by part, so that the sum of squares does not depend on which server has saved which.
VariableReport report_of_rows(CheckpointReader& reader, const VariableSpec& v) {
  const Manifest& m = reader.manifest();
  VariableReport report{&v, {}, {}, totals_of(m, v.name)};
  for (const RowPartRecord& r : m.row_parts) {
    if (r.variable == v.name) report.servers.insert(server_of_row_file(m.files[r.pieces.back().file].name));
  }
  for (RowCursor at(reader, v.name); at.row() != nullptr; at.next()) {
    with_element_type(v.dtype, [&](auto type) {
      for (std::size_t e = 0; e < static_cast<std::size_t>(v.shape[1]); ++e)
        report.summary.add(as_double(element<decltype(type)>(at.row() + RowLayout::kValuesAt, e)));
    });
  }
  return report;
}

std::vector<VariableReport> variable_reports(CheckpointReader& reader) {
  const TensorIndex index = index_tensors(reader.manifest());
  std::vector<VariableReport> reports;
  for (const VariableSpec& v : reader.manifest().variables.variables()) {
    if (v.is_table()) {
      reports.push_back(report_of_rows(reader, v));
      continue;
    }
    const auto it = index.find({v.name, ""});
    reports.push_back(report_of(reader, v, it == index.end() ? std::vector<std::size_t>{} : it->second));
  }
  return reports;
}

std::vector<std::string> row_of(const VariableReport& r) {
  const VariableSpec& v = *r.variable;
  if (r.servers.empty()) return {v.name, to_string(v.dtype), r.shape(), "-", "-", "-", "-"};
  return {v.name,
          to_string(v.dtype),
          r.shape(),
          fmt::format("{}", fmt::join(r.servers, ",")),
          short_number(r.summary.min),
          short_number(r.summary.max),
          short_number(std::sqrt(r.summary.squares))};
}

Json json_of(const VariableReport& r) {
  Json json = {{"name", r.variable->name},
               {"dtype", to_string(r.variable->dtype)},
               {"shape", r.variable->shape.dims()},
               {"servers", r.servers}};
  if (r.variable->is_table()) json["rows"] = r.rows.n_rows;
  if (r.servers.empty()) return json;
  json["min"] = r.summary.min;
  json["max"] = r.summary.max;
  json["norm"] = std::sqrt(r.summary.squares);
  return json;
}

Json json_of(const std::vector<NotFiniteTensor>& tensors) {
  Json all = Json::array();
  for (const NotFiniteTensor& t : tensors) {
    all.push_back({{"variable", t.variable},
                   {"slot", t.slot},
                   {"elements", t.n_elements},
                   {"first", t.first_element},
                   {"what", t.what}});
  }
  return all;
}

// Of dense variables and of the rows that there are.
std::int64_t n_parameters(const Manifest& m) {
  std::int64_t n = m.variables.n_parameters();
  for (const TableRecord& t : m.tables)
    n += totals_of(m, t.variable).n_rows * m.variables.find(t.variable)->shape[1];
  return n;
}

// A line for each table; "" where there is none.
std::string table_lines(const Manifest& m) {
  if (m.tables.empty()) return "";
  std::vector<std::vector<std::string>> rows = {{"table", "ids", "rows", "parts with rows", "waiting ids",
                                                 "bytes", "longest chain", "bytes of a row", "slots"}};
  for (const TableRecord& t : m.tables) {
    const TableTotals totals = totals_of(m, t.variable);
    std::vector<std::string> slots;
    slots.reserve(t.slots.size());
    for (const RowSlot& s : t.slots) slots.push_back(fmt::format("{} [{}]", s.name, s.n_elements));
    rows.push_back({t.variable, to_string(t.spec.ids), std::to_string(totals.n_rows),
                    fmt::format("{} of {}", totals.n_parts, t.spec.parts), std::to_string(totals.n_waiting),
                    std::to_string(totals.n_bytes), std::to_string(totals.longest_chain),
                    std::to_string(row_layout_of(m, t).row_bytes()),
                    slots.empty() ? "-" : fmt::format("{}", fmt::join(slots, ", "))});
  }
  return text_table(rows) + "\n";
}

// Where the run is in a directory that it follows; nothing for other runs, and where it cannot be read.
std::optional<StreamPosition> stream_of(const Manifest& m) {
  std::string state = m.coordinator_state;
  try {
    return take_stream_line(state);
  } catch (const Error&) {
    return std::nullopt;  // who goes on from it says so
  }
}

// "after record 47 of 47 of part-00001.csv; 87 records in 2 files, 1 left out"
std::string stream_text(const StreamPosition& p) {
  if (p.file.empty()) return "before its first record";
  std::string text = fmt::format("after record {} of {} of {}; {} records in {} files", p.learnt,
                                 p.file_records, p.file, p.records, p.files);
  if (p.left_out > 0) text += fmt::format(", {} left out", p.left_out);
  if (p.event_time > 0 && p.event_time < 1e15)
    text += ", newest event " + utc_text(static_cast<std::int64_t>(p.event_time));
  return text;
}

std::string facts(const Manifest& m, const std::string& path,
                  const std::vector<NotFiniteTensor>& not_finite) {
  std::vector<std::vector<std::string>> rows = {
      {"checkpoint", path},
      {"step", std::to_string(m.step)},
      {"time", utc_text(m.unix_time)},
      {"id", m.id},
      {"run", fmt::format("{} attempt {}", m.run_id, m.attempt)},
      {"parent", m.parent.empty() ? "none" : m.parent},
      {"program",
       fmt::format("varscope {}, format {}.{}", m.program_version, m.format_major, m.format_minor)},
      {"config", m.config_hash},
      {"mode", m.mode},
      {"servers", std::to_string(m.servers)},
      {"workers", fmt::format("{} ({} logical)", m.workers, m.logical_workers)},
      {"clocks", fmt::format("{}", fmt::join(m.worker_clocks, " "))},
      {"optimizer",
       m.slots.empty() ? m.optimizer : fmt::format("{} (slots {})", m.optimizer, fmt::join(m.slots, ", "))},
      {"parameters", std::to_string(n_parameters(m))},
      {"finite", not_finite.empty() ? "yes" : "NO: " + not_finite_text(not_finite, m.variables)},
  };
  if (const auto stream = stream_of(m)) rows.push_back({"stream", stream_text(*stream)});
  std::uint64_t n_linked = 0, linked_bytes = 0;
  for (const FileRecord& f : m.files) {
    rows.push_back({"file", fmt::format("{}  {} bytes  {}", f.name, f.size, f.digest.hex())});
    if (step_of_linked_file(f.name) < 0) continue;
    ++n_linked;
    linked_bytes += f.size;
  }
  if (n_linked > 0)
    rows.push_back({"linked", fmt::format("{} file{} of older saves, {} bytes", n_linked,
                                          n_linked == 1 ? "" : "s", linked_bytes)});
  return text_table(rows);
}

// "accuracy 0.91, loss 0.3 (step 40)"; "-" where nothing is known.
std::string evaluation_text(Fs& fs, const CheckpointEntry& e) {
  const std::optional<EvaluationRecord> record = read_evaluation(fs, e.path);
  if (!record || record->values.empty()) return "-";
  std::vector<std::string> metrics;
  for (const auto& [name, value] : record->values) {
    if (name == "records" || name == "event_time" || name.ends_with("_since_save")) continue;  // no quality
    metrics.push_back(fmt::format("{} {}", name, short_number(value, 4)));
  }
  return fmt::format("{} (step {})", fmt::join(metrics, ", "), record->step);
}

Json json_of(Fs& fs, const CheckpointEntry& e) {
  Json json = {{"name", e.name},
               {"step", e.step},
               {"state", e.state == CheckpointState::committed ? "committed" : "damaged"},
               {"pinned", e.pinned}};
  if (!e.reason.empty()) json["reason"] = e.reason;
  if (!e.manifest) return json;
  json["unix_time"] = e.manifest->unix_time;
  json["bytes"] = total_bytes(*e.manifest);
  json["frees"] = freed_bytes(fs, {&e}).freed;
  json["parent"] = e.manifest->parent;
  json["finite"] = e.manifest->knows_not_finite ? Json(e.manifest->not_finite.empty()) : Json(nullptr);
  if (const auto record = read_evaluation(fs, e.path))
    json["evaluation"] = {{"step", record->step}, {"values", record->values}};
  return json;
}

std::vector<std::string> superseded(Fs& fs, const std::string& dir) {
  std::vector<std::string> names;
  for (const std::string& name : fs.list(dir)) {
    if (name.starts_with(kSupersededPrefix)) names.push_back(name);
  }
  return names;
}

std::string list_table(Fs& fs, const std::vector<CheckpointEntry>& entries) {
  std::vector<std::vector<std::string>> rows = {
      {"name", "step", "time", "bytes", "frees", "state", "parent", "evaluation"}};
  bool has_links = false;
  for (const CheckpointEntry& e : entries) {
    const FreedBytes freed = freed_bytes(fs, {&e});
    has_links = has_links || freed.stay > 0;
    const bool known = e.manifest.has_value();
    std::string state = e.state == CheckpointState::committed ? "committed" : "damaged: " + e.reason;
    if (known && !e.manifest->not_finite.empty()) state += ", not finite";
    if (e.pinned) state += ", pinned";
    rows.push_back({e.name, std::to_string(e.step), known ? utc_text(e.manifest->unix_time) : "?",
                    known ? std::to_string(total_bytes(*e.manifest)) : "?",
                    known ? std::to_string(freed.freed) : "?", state,
                    known && !e.manifest->parent.empty() ? e.manifest->parent : "-", evaluation_text(fs, e)});
  }
  constexpr std::ptrdiff_t kFrees = 4;  // says nothing new where no file is in two checkpoints
  if (!has_links) {
    for (std::vector<std::string>& row : rows) row.erase(row.begin() + kFrees);
  }
  return text_table(rows);
}

// The lines of LINEAGE that are JSON objects.
std::vector<Json> lineage(Fs& fs, const std::string& dir, std::vector<std::string>& warnings) {
  std::vector<Json> events;
  std::string text;
  try {
    text = lineage_text(fs, dir);
  } catch (const Error& e) {
    warnings.push_back(fmt::format("{}: what was done to the directory before is not shown", e.what()));
  }
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    Json json = Json::parse(line, nullptr, false);
    if (json.is_object()) events.push_back(std::move(json));
  }
  return events;
}

std::string lineage_line(const Json& event) {
  const auto text = [&](const char* key) {
    return event.contains(key) && event[key].is_string() ? event[key].get<std::string>() : "?";
  };
  const bool timed = event.contains("unix_time") && event["unix_time"].is_number_integer();
  return fmt::format("lineage: {}  {} to {}\n", timed ? utc_text(event["unix_time"]) : "?", text("event"),
                     text("to"));
}

}  // namespace

std::string list_text(Fs& fs, const std::string& path, ToolFormat format) {
  if (!fs.is_directory(path)) fail(ErrorKind::checkpoint, "there is no checkpoint directory {}", path);
  const std::string dir = directory_of_checkpoints(fs, path);
  const std::vector<CheckpointEntry> entries = scan_checkpoints(fs, dir);
  const std::vector<std::string> aside = superseded(fs, dir);
  std::vector<std::string> warnings;
  const std::vector<Json> events = lineage(fs, dir, warnings);
  if (std::string problem = latest_problem(fs, dir, entries); !problem.empty())
    warnings.insert(warnings.begin(), std::move(problem));
  for (const CheckpointEntry& e : entries) {
    std::string unreadable;
    if (e.manifest) read_evaluation(fs, e.path, &unreadable);
    if (!unreadable.empty()) warnings.push_back(std::move(unreadable));
  }
  if (format == ToolFormat::json) {
    Json checkpoints = Json::array();
    for (const CheckpointEntry& e : entries) checkpoints.push_back(json_of(fs, e));
    Json json = {{"directory", dir}, {"checkpoints", checkpoints}, {"set_aside", aside}, {"lineage", events}};
    if (!warnings.empty()) json["warning"] = fmt::format("{}", fmt::join(warnings, "; "));
    return json_text(json);
  }
  std::string text =
      entries.empty() ? fmt::format("{} holds no checkpoints\n", dir) : list_table(fs, entries);
  for (const std::string& name : aside) text += fmt::format("set aside: {}\n", name);
  for (const Json& event : events) text += lineage_line(event);
  for (const std::string& warning : warnings) text += "warning: " + warning + "\n";
  return text;
}

std::string inspect_text(Fs& fs, const std::string& path, ToolFormat format) {
  CheckpointReader reader = CheckpointReader::open(fs, path);
  const Manifest& m = reader.manifest();
  const std::vector<VariableReport> reports = variable_reports(reader);
  const std::vector<NotFiniteTensor> not_finite = not_finite_tensors(reader);
  if (format == ToolFormat::json) {
    Json json = Json::parse(to_json(m));  // the same facts as manifest.json
    json.erase("tensors");
    json["checkpoint"] = path;
    json["values_hash_1"] = m.values_hash.hex();
    json["parameters"] = n_parameters(m);
    json["finite"] = not_finite.empty();
    if (!m.knows_not_finite) json["not_finite"] = json_of(not_finite);  // of an older format, without tables
    json["variables"] = Json::array();
    for (const VariableReport& r : reports) json["variables"].push_back(json_of(r));
    return json_text(json);
  }
  std::vector<std::vector<std::string>> rows = {
      {"variable", "dtype", "shape", "servers", "min", "max", "norm"}};
  for (const VariableReport& r : reports) rows.push_back(row_of(r));
  return facts(m, path, not_finite) + "\n" + text_table(rows) + "\n" + table_lines(m) + "values hash  " +
         reader.values_hash().hex() + "\n";
}

}  // namespace varscope
