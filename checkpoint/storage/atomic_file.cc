#include "checkpoint/storage/atomic_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <exception>

namespace varscope {

AtomicFile::AtomicFile(Fs& fs, const std::string& path)
    : fs_(fs), path_(path), tmp_(fmt::format("{}.tmp-{}", path, ::getpid())) {
  file_ = fs_.create_exclusive(tmp_);
}

AtomicFile::~AtomicFile() {
  if (file_ == nullptr) return;
  file_.reset();
  try {
    fs_.remove_all(tmp_);
  } catch (const std::exception&) {
    // What made us give up the file is being reported.
  }
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  file_->write(bytes);
  size_ += bytes.size();
}

void AtomicFile::finish() {
  file_->sync();
  file_->close();
  fs_.replace_file(tmp_, path_);
  file_.reset();
  fs_.sync_dir(parent_path(path_));
}

}  // namespace varscope
