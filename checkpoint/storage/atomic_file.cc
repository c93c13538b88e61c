#include "checkpoint/storage/atomic_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <exception>

namespace varscope {

AtomicFile::AtomicFile(Fs& fs, const std::string& path) : fs_(fs) {
  const WritePlace place = fs_.write_place(path);
  path_ = place.path;
  if (place.kind == WritePlace::Kind::other) {
    file_ = fs_.open_through(path_);
    return;
  }
  tmp_ = fmt::format("{}.tmp-{}", path_, ::getpid());
  file_ = place.kind == WritePlace::Kind::plain ? fs_.create_like(tmp_, path_) : fs_.create_exclusive(tmp_);
}

AtomicFile::~AtomicFile() {
  if (file_ == nullptr) return;
  file_.reset();
  if (tmp_.empty()) return;
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
  if (!tmp_.empty()) fs_.replace_file(tmp_, path_);
  file_.reset();
  if (!tmp_.empty()) fs_.sync_dir(parent_path(path_));
}

void write_named_file(Fs& fs, const std::string& path, std::string_view bytes) {
  AtomicFile file(fs, path);
  file.write(bytes);
  file.finish();
}

}  // namespace varscope
