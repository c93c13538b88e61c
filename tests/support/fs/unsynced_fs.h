#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>

#include "checkpoint/storage/fs.h"

namespace varscope::testing {

// The real file system, but nothing waits for the disk: for many saves in little time, where no power fails.
// As thread-safe as PosixFs.
class UnsyncedFs : public PosixFs {
 public:
  std::unique_ptr<File> create_exclusive(const std::string& path) override {
    return std::make_unique<UnsyncedFile>(PosixFs::create_exclusive(path));
  }
  void sync_dir(const std::string&) override {}

 private:
  class UnsyncedFile : public File {
   public:
    explicit UnsyncedFile(std::unique_ptr<File> inner) : inner_(std::move(inner)) {}
    void write(std::span<const std::byte> bytes) override { inner_->write(bytes); }
    void sync() override {}
    void close() override { inner_->close(); }

   private:
    std::unique_ptr<File> inner_;
  };
};

}  // namespace varscope::testing
