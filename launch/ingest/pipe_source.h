#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "launch/ingest/descriptor.h"

namespace varscope {

// Standard input, or a FIFO. Not thread-safe.
class PipeSource {
 public:
  // Standard input.
  PipeSource();
  // A FIFO. Throws Error(config) where it is not there or something else, and Error(io). Does not wait for
  // somebody to write.
  explicit PipeSource(const std::string& fifo);

  int fd() const { return fifo_.empty() ? STDIN_FILENO : fd_.get(); }
  bool is_fifo() const { return !fifo_.empty(); }
  const std::string& name() const { return name_; }  // "standard input", or the FIFO's path
  // The number of bytes that were there; 0: nobody has it open for writing any more; nothing: none yet. May
  // wait, unless poll() says that there is something. Throws Error(io).
  std::optional<std::size_t> read(std::span<char> out);
  // For the next one who writes into the FIFO. Nothing that is written meanwhile is lost.
  void open_again();

 private:
  std::string fifo_, name_;
  OwnedDescriptor fd_;
};

}  // namespace varscope
