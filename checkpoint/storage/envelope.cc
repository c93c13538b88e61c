#include "checkpoint/storage/envelope.h"

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/files/little_endian.h"

namespace varscope {

std::string seal(std::string_view magic, std::string_view payload, const FormatVersion& version) {
  if (magic.size() != 8 || version.min_reader.size() > 16) {
    fail(ErrorKind::argument, "an envelope has a magic of 8 bytes and a version text of at most 16");
  }
  if (payload.size() > kMaxEnvelopePayload) {
    fail(ErrorKind::argument, "a payload of {} bytes is more than the {} of an envelope", payload.size(),
         kMaxEnvelopePayload);
  }
  std::string out;
  out.reserve(kEnvelopeBytes + payload.size());
  out.append(magic);
  put_le(out, version.major);
  put_le(out, version.minor);
  out.append(version.min_reader).append(16 - version.min_reader.size(), '\0');
  put_le(out, static_cast<std::uint64_t>(payload.size()));
  out.append(payload);
  const Digest digest = digest_of(std::string_view(out));
  out.append(reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size());
  return out;
}

std::string_view open_envelope(std::string_view magic, std::string_view bytes, std::string_view what) {
  if (bytes.size() < kEnvelopeBytes) {
    fail(ErrorKind::checkpoint, "{} is cut off: {} bytes are less than an empty one has ({})", what,
         bytes.size(), kEnvelopeBytes);
  }
  if (bytes.substr(0, 8) != magic)
    fail(ErrorKind::checkpoint, "{} is damaged or not a {} file: wrong magic", what, magic);
  std::string_view rest = bytes.substr(8);
  const auto major = take_le<std::uint16_t>(rest);
  take_le<std::uint16_t>(rest);  // any minor will do
  std::string min_reader(rest.substr(0, 16));
  min_reader.resize(min_reader.find('\0') == std::string::npos ? 16 : min_reader.find('\0'));
  rest.remove_prefix(16);
  const auto length = take_le<std::uint64_t>(rest);
  if (length != bytes.size() - kEnvelopeBytes) {
    fail(ErrorKind::checkpoint, "{} is damaged: it should have {} bytes of payload and has {}", what, length,
         bytes.size() - kEnvelopeBytes);
  }
  Digest stored;
  const std::string_view covered = bytes.substr(0, bytes.size() - 16);
  for (std::size_t i = 0; i < 16; ++i) stored.bytes[i] = static_cast<std::uint8_t>(bytes[covered.size() + i]);
  if (digest_of(covered) != stored)
    fail(ErrorKind::checkpoint, "{} is damaged: its checksum does not match", what);
  if (major > kNewestMajor) {
    fail(ErrorKind::checkpoint, "{} has format {} and needs varscope >= {}", what, major, min_reader);
  }
  return rest.substr(0, static_cast<std::size_t>(length));
}

}  // namespace varscope
