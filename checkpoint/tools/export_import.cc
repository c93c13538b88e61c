#include "checkpoint/tools/export_import.h"

#include "checkpoint/exchange/export.h"

namespace varscope {

void export_tool(Fs& fs, const std::string& checkpoint, const std::string& file, ExchangeFormat file_format,
                 ExportSlots slots, ToolFormat format, std::string& out, const std::string& model) {
  const Exported e = export_checkpoint(fs, checkpoint, file, file_format, slots, model);
  if (format == ToolFormat::json) {
    out += json_text({{"file", file},
                      {"format", to_string(file_format)},
                      {"step", e.step},
                      {"tensors", e.n_tensors},
                      {"bytes", e.n_bytes},
                      {"model", e.model_file},
                      {"warnings", e.warnings}});
    return;
  }
  for (const std::string& warning : e.warnings) out += "warning: " + warning + "\n";
  out += fmt::format("{}: {} tensor{} of step {}, {} bytes, as {}\n", file, e.n_tensors,
                     e.n_tensors == 1 ? "" : "s", e.step, e.n_bytes, to_string(file_format));
  if (!e.model_file.empty()) out += fmt::format("{}: what model they are of\n", e.model_file);
}

void import_tool(Fs& fs, const std::string& file, const std::string& dir, ExchangeFormat file_format,
                 const ImportPlan& plan, ToolFormat format, std::string& out) {
  const Imported i = import_checkpoint(fs, file, dir, file_format, plan);
  const std::string hash = i.values_hash.hex();
  if (format == ToolFormat::json) {
    out += json_text({{"path", i.path},
                      {"variables", i.n_variables},
                      {"slots_found", i.n_slots_found},
                      {"skipped", i.notes.skipped},
                      {"widened", i.notes.widened},
                      {"values_hash", hash},
                      {"warnings", i.warnings}});
    return;
  }
  for (const std::string& name : i.notes.skipped) out += fmt::format("left out, as it is a text: {}\n", name);
  for (const std::string& line : i.notes.widened) out += fmt::format("widened {}\n", line);
  for (const std::string& warning : i.warnings) out += "warning: " + warning + "\n";
  out += fmt::format("{}: {} variable{} and {} slots of them from {}, values hash {}\n", i.path,
                     i.n_variables, i.n_variables == 1 ? "" : "s", i.n_slots_found, file, hash);
}

}  // namespace varscope
