#include "checkpoint/exchange/export.h"

#include <filesystem>
#include <map>
#include <utility>

#include "checkpoint/restore/finite.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/storage/atomic_file.h"
#include "common/base/error.h"

namespace varscope {

std::string model_file_of(const std::string& file) {
  return std::filesystem::path(file).replace_extension(".model.json").string();
}

Exported export_checkpoint(Fs& fs, const std::string& checkpoint, const std::string& file,
                           ExchangeFormat format, ExportSlots slots, const std::string& model) {
  CheckpointReader reader = CheckpointReader::open(fs, checkpoint);
  if (format == ExchangeFormat::tf && !reader.tables().empty())
    fail(
        ErrorKind::checkpoint,
        "checkpoint {} has the table \"{}\", for whose rows a TensorFlow bundle has no place; export it as npz "
        "or safetensors",
        checkpoint, reader.tables().front().variable);
  CheckpointSource source(reader, slots);
  std::map<std::string, std::string> metadata{{"varscope.step", std::to_string(reader.manifest().step)},
                                              {"varscope.optimizer", reader.manifest().optimizer},
                                              {"varscope.values_hash", reader.values_hash().hex()}};
  std::error_code ignored;  // nothing stands beside a device, a FIFO or an open file (/dev/fd/3)
  const std::string absolute = std::filesystem::absolute(file, ignored).lexically_normal().string();
  const bool is_stream = std::filesystem::is_other(std::filesystem::status(file, ignored)) ||
                         absolute.starts_with("/dev/") || absolute.starts_with("/proc/");
  const bool is_beside = !model.empty() && format != ExchangeFormat::safetensors && !is_stream;
  if (!model.empty() && format == ExchangeFormat::safetensors) metadata["varscope.model"] = model;
  write_exchange_file(fs, file, format, source, metadata);
  Exported exported{reader.manifest().step, source.tensors().size(), 0, {}};
  if (is_beside) {
    exported.model_file = model_file_of(file);
    write_named_file(fs, exported.model_file, model + "\n");
  }
  if (std::string warning = not_finite_warning(reader); !warning.empty())
    exported.warnings.push_back(std::move(warning));
  for (const NamedTensor& t : source.tensors()) exported.n_bytes += t.n_bytes();
  return exported;
}

}  // namespace varscope
