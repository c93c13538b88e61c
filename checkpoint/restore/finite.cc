#include "checkpoint/restore/finite.h"

#include <fmt/format.h>

#include "checkpoint/format/boxes.h"
#include "common/base/error.h"
#include "common/base/finite.h"

namespace varscope {
namespace {

NotFiniteTensor look_at(CheckpointReader& reader, const std::string& variable, const std::string& slot,
                        const std::vector<std::size_t>& tensors) {
  NotFiniteTensor all{variable, slot, 0, 0, ""};
  for (const std::size_t i : tensors) {
    const TensorRecord& t = reader.manifest().tensors[i];
    const Slice box = Slice::from_spec(t.box);
    const Tensor values(t.dtype, box.extent);
    reader.read(t.variable, t.slot, box, values.view());
    const std::span<const std::byte> bytes(values.view().bytes(), values.n_bytes());
    const auto first = find_not_finite(t.dtype, bytes);
    if (!first) continue;
    if (all.n_elements == 0) {
      all.first_element = element_in_whole(box, first->element);
      all.what = first->what;
    }
    all.n_elements += count_not_finite(t.dtype, bytes);
  }
  return all;
}

}  // namespace

std::vector<NotFiniteTensor> not_finite_tensors(CheckpointReader& reader) {
  if (reader.manifest().knows_not_finite) return reader.manifest().not_finite;
  std::vector<NotFiniteTensor> found;
  for (const auto& [key, tensors] : index_tensors(reader.manifest())) {
    NotFiniteTensor t = look_at(reader, key.first, key.second, tensors);
    if (t.n_elements > 0) found.push_back(std::move(t));
  }
  sort_not_finite(found);
  return found;
}

namespace {

std::string warning_text(const std::string& path, const std::vector<NotFiniteTensor>& tensors,
                         const VariableTable& variables) {
  if (tensors.empty()) return "";
  return fmt::format("checkpoint {} is not finite: {}", path, not_finite_text(tensors, variables));
}

}  // namespace

std::string not_finite_warning(CheckpointReader& reader) {
  return warning_text(reader.path(), not_finite_tensors(reader), reader.manifest().variables);
}

std::string not_finite_warning(const std::string& path, const Manifest& manifest) {
  return warning_text(path, manifest.not_finite, manifest.variables);
}

bool is_finite(Fs& fs, const std::string& path, const Manifest& manifest) {
  if (manifest.knows_not_finite) return manifest.not_finite.empty();
  try {
    CheckpointReader reader = CheckpointReader::open(fs, path, manifest);
    return not_finite_tensors(reader).empty();
  } catch (const Error&) {
    return false;  // damaged: whoever starts from it is told
  }
}

std::optional<CheckpointName> newest_finite_checkpoint(Fs& fs, const std::string& dir) {
  for (const CheckpointName& name : list_checkpoints(fs, dir)) {
    const CheckpointEntry entry = look_at(fs, name);
    if (entry.state == CheckpointState::committed && is_finite(fs, entry.path, *entry.manifest)) return name;
  }
  return std::nullopt;
}

}  // namespace varscope
