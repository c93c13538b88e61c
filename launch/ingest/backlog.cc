#include "launch/ingest/backlog.h"

#include "launch/ingest/record_log.h"

namespace varscope {

bool Backlog::is_full(std::uint64_t pending) {
  if (limit_ == 0) return false;
  if (is_listed_ && bytes_ + pending < limit_) return false;
  list();
  return bytes_ + pending >= limit_;
}

void Backlog::list() {
  bytes_ = 0;
  for (const std::string& name : fs_.list(dir_)) {
    if (name.starts_with('.') || name == kStreamEndName) continue;
    if (const auto file = fs_.identify(join_path(dir_, name))) bytes_ += file->n_bytes;
  }
  is_listed_ = true;
}

}  // namespace varscope
