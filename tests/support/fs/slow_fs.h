#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "checkpoint/storage/fs.h"

namespace varscope::testing {

// The real file system on a slow disk: each write takes `pause` longer. As thread-safe as PosixFs.
class SlowFs : public PosixFs {
 public:
  explicit SlowFs(std::chrono::microseconds pause) : pause_(pause) {}
  std::unique_ptr<File> create_exclusive(const std::string& path) override {
    return std::make_unique<SlowFile>(PosixFs::create_exclusive(path), pause_);
  }

 private:
  class SlowFile : public File {
   public:
    SlowFile(std::unique_ptr<File> inner, std::chrono::microseconds pause)
        : inner_(std::move(inner)), pause_(pause) {}
    void write(std::span<const std::byte> bytes) override {
      std::this_thread::sleep_for(pause_);
      inner_->write(bytes);
    }
    void sync() override { inner_->sync(); }
    void close() override { inner_->close(); }

   private:
    std::unique_ptr<File> inner_;
    std::chrono::microseconds pause_;
  };
  std::chrono::microseconds pause_;
};

}  // namespace varscope::testing
