#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace varscope {

// What every small file of ours is wrapped in. Integers are little-endian.
//
//   envelope   = magic major minor min_reader length payload digest
//   magic      = 8 bytes, which kind of file it is
//   major      = u16, the payload's format; a reader refuses a newer one
//   minor      = u16; a newer one only appends to the payload, which older readers ignore
//   min_reader = 16 bytes, the oldest program version that reads this major, NUL-padded
//   length     = u64, bytes of the payload
//   digest     = 16 bytes, XXH3-128 (canonical order) of everything before it
//
// The envelope itself never changes, so that any reader can check the digest first and then say which version
// is needed.
inline constexpr std::string_view kManifestMagic = "VSCPMANF";
inline constexpr std::string_view kWorkerStateMagic = "VSCPWORK";

struct FormatVersion {
  std::uint16_t major = 1;
  std::uint16_t minor = 2;
  std::string_view min_reader = "0.1.0";  // at most 16 bytes
};
inline constexpr FormatVersion kCheckpointFormat{};
// Of the manifest of a checkpoint with sparse tables: programs that know only major 1 would leave out their
// rows, and so must refuse it.
inline constexpr FormatVersion kTablesFormat{.major = 3, .minor = 0, .min_reader = "0.1.0"};
inline constexpr std::uint16_t kFirstTablesMajor = 2;               // that has tables: each part in one piece
inline constexpr std::uint16_t kNewestMajor = kTablesFormat.major;  // that is read

inline constexpr std::size_t kEnvelopeHeaderBytes = 8 + 2 + 2 + 16 + 8;
inline constexpr std::size_t kEnvelopeBytes = kEnvelopeHeaderBytes + 16;  // without the payload
inline constexpr std::uint64_t kMaxEnvelopePayload = std::uint64_t{1} << 30;

// REQUIRES: magic has 8 bytes. Throws Error(argument) for a payload above the cap.
std::string seal(std::string_view magic, std::string_view payload,
                 const FormatVersion& version = kCheckpointFormat);

// The payload, a view into `bytes`. Throws Error(checkpoint) that begins with `what` (a path) for anything
// but a whole, unchanged envelope of this magic, and for one that needs a newer program.
std::string_view open_envelope(std::string_view magic, std::string_view bytes, std::string_view what);

}  // namespace varscope
