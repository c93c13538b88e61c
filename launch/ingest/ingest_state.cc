#include "launch/ingest/ingest_state.h"

#include <algorithm>
#include <vector>

#include <boost/serialization/vector.hpp>

#include "checkpoint/storage/archive.h"
#include "checkpoint/storage/envelope.h"
#include "checkpoint/storage/fs.h"

namespace varscope {
namespace {

constexpr std::string_view kMagic = "VSCPINGS";
constexpr FormatVersion kFormat{.major = 1, .minor = 0, .min_reader = "0.1.0"};

// The state as it is stored.
struct Stored {
  IngestState state;
  std::vector<std::string> names;
  std::vector<std::uint64_t> counts;
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& state.number& state.file& state.bytes& state.digest& state.records;
    ar& state.has_header& state.header& names& counts;
  }
};

}  // namespace

std::string encode_ingest_state(const IngestState& state) {
  Stored stored{state, {}, {}};
  for (const auto& [name, count] : state.streams) {
    stored.names.push_back(name);
    stored.counts.push_back(count);
  }
  return seal(kMagic, to_disk_text(stored), kFormat);
}

IngestState decode_ingest_state(std::string_view bytes, const std::string& what) {
  auto stored = from_disk_text<Stored>(std::string(open_envelope(kMagic, bytes, what)), what);
  IngestState state = std::move(stored.state);
  const bool is_plain_name = !state.file.starts_with('.') && base_name(state.file) == state.file;
  if (stored.names.size() != stored.counts.size() || (state.number > 0 && !is_plain_name))
    fail(ErrorKind::checkpoint, "{} cannot be read: its parts do not fit each other", what);
  for (std::size_t i = 0; i < stored.names.size(); ++i) state.streams[stored.names[i]] = stored.counts[i];
  return state;
}

}  // namespace varscope
