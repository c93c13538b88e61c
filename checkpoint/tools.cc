#include "checkpoint/tools.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <ctime>
#include <limits>
#include <set>
#include <vector>

#include "checkpoint/reader.h"
#include "checkpoint/scan.h"
#include "common/error.h"

namespace varscope {
namespace {

std::string utc(std::int64_t unix_time) {
  const std::time_t t = unix_time;
  std::tm parts{};
  std::array<char, 64> text{};
  if (::gmtime_r(&t, &parts) == nullptr) return std::to_string(unix_time);
  const std::size_t n = std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%SZ", &parts);
  return {text.data(), n};
}

std::uint64_t total_bytes(const Manifest& m) {
  std::uint64_t n = 0;
  for (const FileRecord& f : m.files) n += f.size;
  return n;
}

struct Summary {
  double min = std::numeric_limits<double>::infinity(), max = -std::numeric_limits<double>::infinity();
  double squares = 0;
  void add(double x) {
    if (x < min || std::isnan(x)) min = x;
    if (x > max || std::isnan(x)) max = x;
    squares += x * x;
  }
};

template <class T>
void add_all(TensorView values, Summary& summary) {
  for (const T x : values.as<T>()) summary.add(static_cast<double>(x));
}

void add_values(TensorView values, Summary& summary) {
  switch (values.dtype()) {
    case DType::float32:
      return add_all<float>(values, summary);
    case DType::float64:
      return add_all<double>(values, summary);
    case DType::int32:
      return add_all<std::int32_t>(values, summary);
    case DType::int64:
      return add_all<std::int64_t>(values, summary);
    case DType::uint8:
      return add_all<std::uint8_t>(values, summary);
    case DType::bfloat16:
      for (std::int64_t i = 0; i < values.n_elements(); ++i) {
        const auto low = std::to_integer<std::uint32_t>(values.bytes()[2 * i]);
        const auto high = std::to_integer<std::uint32_t>(values.bytes()[2 * i + 1]);
        summary.add(std::bit_cast<float>(high << 24 | low << 16));
      }
  }
}

// Columns padded to their widest cell; the last is not padded.
std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      text += c + 1 < row.size() ? fmt::format("{:<{}}  ", row[c], widths[c]) : row[c] + "\n";
    }
  }
  return text;
}

std::vector<std::string> variable_row(CheckpointReader& reader, const VariableSpec& v,
                                      const std::vector<std::size_t>& tensors) {
  const Manifest& m = reader.manifest();
  Summary summary;
  std::set<int> servers;
  for (const std::size_t i : tensors) {
    const TensorRecord& t = m.tensors[i];
    servers.insert(server_of_shard(m.files[t.file].name));
    const Slice box = Slice::from_spec(t.box);
    const Tensor values(t.dtype, box.extent);
    reader.read(t.variable, t.slot, box, values.view());
    add_values(values.view(), summary);
  }
  if (tensors.empty()) return {v.name, to_string(v.dtype), v.shape.str(), "-", "-", "-", "-"};
  return {v.name,
          to_string(v.dtype),
          v.shape.str(),
          fmt::format("{}", fmt::join(servers, ",")),
          fmt::format("{:.6g}", summary.min),
          fmt::format("{:.6g}", summary.max),
          fmt::format("{:.6g}", std::sqrt(summary.squares))};
}

std::string facts(const Manifest& m, const std::string& path) {
  std::vector<std::vector<std::string>> rows = {
      {"checkpoint", path},
      {"step", std::to_string(m.step)},
      {"time", utc(m.unix_time)},
      {"id", m.id},
      {"run", fmt::format("{} attempt {}", m.run_id, m.attempt)},
      {"parent", m.parent.empty() ? "none" : m.parent},
      {"program",
       fmt::format("varscope {}, format {}.{}", m.program_version, m.format_major, m.format_minor)},
      {"config", m.config_hash},
      {"mode", m.mode},
      {"servers", std::to_string(m.servers)},
      {"workers", fmt::format("{} ({} logical)", m.workers, m.logical_workers)},
      {"clocks", fmt::format("{}", fmt::join(m.cut, " "))},
      {"optimizer",
       m.slots.empty() ? m.optimizer : fmt::format("{} (slots {})", m.optimizer, fmt::join(m.slots, ", "))},
      {"parameters", std::to_string(m.variables.n_parameters())},
  };
  for (const FileRecord& f : m.files) {
    rows.push_back({"file", fmt::format("{}  {} bytes  {}", f.name, f.size, f.digest.hex())});
  }
  return table(rows);
}

std::string verify_line(Fs& fs, const std::string& path, bool& good) {
  std::vector<std::string> problems = verify_checkpoint(fs, path);
  if (problems.empty()) {
    const Manifest m = load_manifest(fs, path).manifest;
    return fmt::format("{}: good, {} files, {} bytes, values hash {}\n", path, m.files.size(), total_bytes(m),
                       m.values_hash.hex());
  }
  good = false;
  return fmt::format("{}: DAMAGED\n  {}\n", path, fmt::join(problems, "\n  "));
}

}  // namespace

std::string list_text(Fs& fs, const std::string& dir) {
  if (!fs.is_directory(dir)) fail(ErrorKind::checkpoint, "there is no checkpoint directory {}", dir);
  const std::vector<CheckpointEntry> entries = scan_checkpoints(fs, dir);
  std::vector<std::vector<std::string>> rows = {{"name", "step", "time", "bytes", "state", "parent"}};
  for (const CheckpointEntry& e : entries) {
    const bool known = e.manifest.has_value();
    const std::string state = e.state == CheckpointState::committed ? "committed" : "damaged: " + e.reason;
    rows.push_back({e.name, std::to_string(e.step), known ? utc(e.manifest->unix_time) : "?",
                    known ? std::to_string(total_bytes(*e.manifest)) : "?", state,
                    known && !e.manifest->parent.empty() ? e.manifest->parent : "-"});
  }
  std::string text = entries.empty() ? fmt::format("{} holds no checkpoints\n", dir) : table(rows);
  for (const std::string& name : fs.list(dir)) {
    if (name.starts_with(kSupersededPrefix)) text += fmt::format("set aside: {}\n", name);
  }
  if (const std::string problem = latest_problem(fs, dir, entries); !problem.empty())
    text += "warning: " + problem + "\n";
  return text;
}

std::string inspect_text(Fs& fs, const std::string& path) {
  CheckpointReader reader = CheckpointReader::open(fs, path);
  const Manifest& m = reader.manifest();
  const TensorIndex index = index_tensors(m);
  std::vector<std::vector<std::string>> rows = {
      {"variable", "dtype", "shape", "servers", "min", "max", "norm"}};
  for (const VariableSpec& v : m.variables.variables()) {
    const auto it = index.find({v.name, ""});
    rows.push_back(variable_row(reader, v, it == index.end() ? std::vector<std::size_t>{} : it->second));
  }
  return facts(m, path) + "\n" + table(rows) + "\n" + "values hash  " + m.values_hash.hex() + "\n";
}

int verify_tool(Fs& fs, const std::string& path_or_dir, std::string& out) {
  bool good = true;
  std::vector<std::string> paths;
  for (const CheckpointEntry& e : scan_checkpoints(fs, path_or_dir)) paths.push_back(e.path);
  const std::string name = base_name(path_or_dir);
  const bool is_one = fs.exists(join_path(path_or_dir, kManifestName)) || name.starts_with("step-") ||
                      name.starts_with(kSupersededPrefix);
  if (paths.empty() && is_one && fs.is_directory(path_or_dir)) paths.push_back(path_or_dir);
  if (paths.empty()) fail(ErrorKind::checkpoint, "there is no checkpoint at {}", path_or_dir);
  for (const std::string& path : paths) out += verify_line(fs, path, good);
  return good ? 0 : static_cast<int>(ExitCode::difference);
}

}  // namespace varscope
