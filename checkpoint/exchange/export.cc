#include "checkpoint/exchange/export.h"

#include <utility>

#include "checkpoint/restore/finite.h"
#include "checkpoint/restore/reader.h"

namespace varscope {

Exported export_checkpoint(Fs& fs, const std::string& checkpoint, const std::string& file,
                           ExchangeFormat format, ExportSlots slots) {
  CheckpointReader reader = CheckpointReader::open(fs, checkpoint);
  CheckpointSource source(reader, slots);
  write_exchange_file(fs, file, format, source,
                      {{"varscope.step", std::to_string(reader.manifest().step)},
                       {"varscope.optimizer", reader.manifest().optimizer},
                       {"varscope.values_hash", reader.values_hash().hex()}});
  Exported exported{reader.manifest().step, source.tensors().size(), 0, {}};
  if (std::string warning = not_finite_warning(reader); !warning.empty())
    exported.warnings.push_back(std::move(warning));
  for (const NamedTensor& t : source.tensors()) exported.n_bytes += t.n_bytes();
  return exported;
}

}  // namespace varscope
