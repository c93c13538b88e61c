#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/base/hash.h"

namespace varscope {

// Where the records of a stream come from, as server 0 sees it: finished files, one after another, each once.
// Used by one thread; no call waits.
class StreamFeed {
 public:
  struct File {
    std::string name;
    std::int64_t n_bytes = 0;
    Digest digest;
    std::int64_t records = 0;  // that are samples; none in a file without any
    std::int64_t begin = 0;    // of these: learnt before this start
    std::int64_t left_out = 0;
    double event_time = 0;  // the newest of its records, in seconds since 1970; 0: not known
  };
  struct Backlog {
    std::int64_t files = 0, bytes = 0;  // that no step has been given yet
    std::int64_t late = 0;              // files that came too late, since the start
  };
  virtual ~StreamFeed() = default;
  // The next file that has been read; nothing where there is none yet. Throws Error(data) for one that cannot
  // be learnt from.
  virtual std::optional<File> take() = 0;
  // No file will come any more, and all that there were have been taken.
  virtual bool has_ended() const = 0;
  virtual Backlog backlog() const = 0;
  // What to call it: "data.train follows /data/clicks".
  virtual std::string name() const = 0;
};

}  // namespace varscope
