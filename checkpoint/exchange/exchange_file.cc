#include "checkpoint/exchange/exchange_file.h"

#include "checkpoint/exchange/npz.h"
#include "checkpoint/exchange/safetensors.h"
#include "checkpoint/exchange/tf_bundle.h"
#include "common/base/error.h"

namespace varscope {
namespace {

// "model.ckpt.index" and "model.ckpt" are the same bundle.
std::string prefix_of(const std::string& file) {
  constexpr std::string_view kSuffix = ".index";
  return file.ends_with(kSuffix) ? file.substr(0, file.size() - kSuffix.size()) : file;
}

}  // namespace

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

void write_exchange_file(Fs& fs, const std::string& file, ExchangeFormat format, TensorSource& source,
                         const std::map<std::string, std::string>& metadata) {
  switch (format) {
    case ExchangeFormat::safetensors:
      return write_safetensors(fs, file, source, metadata);
    case ExchangeFormat::npz:
      return write_npz(fs, file, source);
    case ExchangeFormat::tf:
      return write_tf_bundle(fs, prefix_of(file), source);
  }
  fail(ErrorKind::argument, "format {} is not one of ours", static_cast<int>(format));
}

std::unique_ptr<TensorSource> open_exchange_file(Fs& fs, const std::string& file, ExchangeFormat format,
                                                 Widen how, ReadNotes& notes) {
  switch (format) {
    case ExchangeFormat::safetensors:
      return open_safetensors(fs, file, how, notes);
    case ExchangeFormat::npz:
      return open_npz(fs, file, how, notes);
    case ExchangeFormat::tf:
      return open_tf_bundle(fs, file, how, notes);
  }
  fail(ErrorKind::argument, "format {} is not one of ours", static_cast<int>(format));
}

}  // namespace varscope
