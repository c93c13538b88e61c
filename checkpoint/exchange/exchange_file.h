#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/exchange/tensor_source.h"
#include "checkpoint/storage/fs.h"

namespace varscope {

// Files of other programs with whole tensors.
enum class ExchangeFormat : std::uint8_t { safetensors, npz, tf };
const char* to_string(ExchangeFormat format);
// By the suffix: .safetensors, .npz, and .index or .ckpt for TensorFlow; `asked`, when not "", wins. Throws
// Error(config) that lists the formats.
ExchangeFormat exchange_format(const std::string& file, const std::string& asked);

// Writes all tensors of the source. A file of that name is replaced, once the new one is on the disk. Of a
// TensorFlow bundle `file` is the prefix or the name of the index. `metadata` goes into formats that have a
// place for it. Throws Error(checkpoint) for a name that the format cannot have, Error(io).
void write_exchange_file(Fs& fs, const std::string& file, ExchangeFormat format, TensorSource& source,
                         const std::map<std::string, std::string>& metadata);

// Throws Error(checkpoint) that begins with the file's name for anything but a valid one, and for tensors of
// types that varscope does not have, unless they can and may be widened. `notes` gets what was not read as it
// stands.
std::unique_ptr<TensorSource> open_exchange_file(Fs& fs, const std::string& file, ExchangeFormat format,
                                                 Widen how, ReadNotes& notes);

}  // namespace varscope
