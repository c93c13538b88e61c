#include "checkpoint/exchange/convert.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "checkpoint/exchange/npz.h"
#include "checkpoint/exchange/safetensors.h"
#include "checkpoint/exchange/tf_bundle.h"
#include "checkpoint/restore/reader.h"
#include "common/base/error.h"

namespace varscope {
namespace {

const char* to_string(ExchangeFormat f) {
  switch (f) {
    case ExchangeFormat::safetensors:
      return "safetensors";
    case ExchangeFormat::npz:
      return "npz";
    case ExchangeFormat::tf:
      return "tf";
  }
  fail(ErrorKind::argument, "format {} is not one of ours", static_cast<int>(f));
}

// "model.ckpt.index" and "model.ckpt" are the same bundle.
std::string prefix_of(const std::string& file) {
  constexpr std::string_view kSuffix = ".index";
  return file.ends_with(kSuffix) ? file.substr(0, file.size() - kSuffix.size()) : file;
}

}  // namespace

ExchangeFormat exchange_format(const std::string& file, const std::string& asked) {
  for (const ExchangeFormat f : {ExchangeFormat::safetensors, ExchangeFormat::npz, ExchangeFormat::tf}) {
    if (asked == to_string(f)) return f;
  }
  if (!asked.empty())
    fail(ErrorKind::config, "\"{}\" is not a format; there are safetensors, npz, tf", asked);
  if (file.ends_with(".safetensors")) return ExchangeFormat::safetensors;
  if (file.ends_with(".npz")) return ExchangeFormat::npz;
  if (file.ends_with(".index") || file.ends_with(".ckpt")) return ExchangeFormat::tf;
  fail(ErrorKind::config,
       "the name {} does not tell the format (.safetensors, .npz, .ckpt or .index do); add --format "
       "safetensors, npz or tf",
       file);
}

void export_tool(Fs& fs, const std::string& checkpoint, const std::string& file, ExchangeFormat file_format,
                 ExportSlots slots, ToolFormat format, std::string& out) {
  CheckpointReader reader = CheckpointReader::open(fs, checkpoint);
  CheckpointSource source(reader, slots);
  switch (file_format) {
    case ExchangeFormat::safetensors:
      write_safetensors(fs, file, source,
                        {{"varscope.step", std::to_string(reader.manifest().step)},
                         {"varscope.optimizer", reader.manifest().optimizer},
                         {"varscope.values_hash", reader.values_hash().hex()}});
      break;
    case ExchangeFormat::npz:
      write_npz(fs, file, source);
      break;
    case ExchangeFormat::tf:
      write_tf_bundle(fs, prefix_of(file), source);
      break;
  }
  std::uint64_t bytes = 0;
  for (const NamedTensor& t : source.tensors()) bytes += t.n_bytes();
  const std::size_t n = source.tensors().size();
  if (format == ToolFormat::json) {
    out += json_text({{"file", file},
                      {"format", to_string(file_format)},
                      {"step", reader.manifest().step},
                      {"tensors", n},
                      {"bytes", bytes}});
    return;
  }
  out += fmt::format("{}: {} tensor{} of step {}, {} bytes, as {}\n", file, n, n == 1 ? "" : "s",
                     reader.manifest().step, bytes, to_string(file_format));
}

}  // namespace varscope
