#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "common/base/hash.h"
#include "worker/data/mapped_file.h"

namespace varscope {

// A file that is written front to back through a buffer. Not thread-safe.
class GrowingFile {
 public:
  // Makes the file, empty. Throws Error(io), as all functions do, with the name and what the system says.
  explicit GrowingFile(const std::filesystem::path& file);
  ~GrowingFile();
  GrowingFile(const GrowingFile&) = delete;
  GrowingFile& operator=(const GrowingFile&) = delete;
  void add(std::span<const std::byte> bytes);
  void flush();
  // Fills all of `bytes` from what is written, from `offset` on. REQUIRES that flush() was called since.
  void read(std::uint64_t offset, std::span<std::byte> bytes) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  static constexpr std::size_t kBuffer = std::size_t{256} << 10;
  std::filesystem::path path_;
  int fd_ = -1;
  std::vector<std::byte> buffer_;
};

// Elements that are added one behind the other, and then looked at: in memory; or in a file, of which as much
// is in memory as was looked at since the last release(). Adding is for one thread; the rest for any.
template <class T>
class GrowingArray {
 public:
  GrowingArray() = default;
  explicit GrowingArray(const std::filesystem::path& file) : file_(std::make_unique<GrowingFile>(file)) {}
  // One that is there. Throws Error(data) for a file that cannot be mapped, or has part of an element.
  static GrowingArray open(const std::filesystem::path& file) {
    GrowingArray a;
    a.map(file);
    return a;
  }

  void push_back(T x) { add({&x, 1}); }
  void add(std::span<const T> elements) {
    if (file_) {
      file_->add(std::as_bytes(elements));
    } else {
      memory_.insert(memory_.end(), elements.begin(), elements.end());
    }
    n_ += elements.size();
  }
  // No more is added. view() is for what is finished, or in memory.
  void finish() {
    if (!file_) return;
    file_->flush();
    map(file_->path());
    file_.reset();
  }

  std::size_t size() const { return n_; }
  bool empty() const { return n_ == 0; }
  bool is_mapped() const { return mapped_ != nullptr; }
  std::span<const T> view() const {
    if (!mapped_) return memory_;
    return {reinterpret_cast<const T*>(mapped_->bytes().data()), n_};
  }
  void release() const {
    if (mapped_) mapped_->release();
  }
  // All elements, with little of the file in memory at a time.
  void add_to(Digester& digester) const {
    constexpr std::size_t kPiece = (std::size_t{16} << 20) / sizeof(T);
    for (std::size_t at = 0; at < n_; at += kPiece) {
      digester.update(std::as_bytes(view().subspan(at, std::min(kPiece, n_ - at))));
      release();
    }
  }

 private:
  void map(const std::filesystem::path& file) {
    mapped_ = std::make_unique<MappedFile>(file);
    mapped_->require_elements(sizeof(T));
    n_ = mapped_->bytes().size() / sizeof(T);
  }

  std::size_t n_ = 0;
  std::vector<T> memory_;
  std::unique_ptr<GrowingFile> file_;
  std::unique_ptr<MappedFile> mapped_;
};

// Records of bytes in the order in which they are added, to be gone through several times: in memory, or in a
// file that has no name any more, so that nothing is left of it. Not thread-safe.
class RecordSpool {
 public:
  RecordSpool() = default;
  explicit RecordSpool(const std::filesystem::path& file);
  void add(std::span<const std::byte> record);
  std::int64_t size() const { return n_; }

  // f(std::span<const std::byte>) for each record. Nothing is added afterwards.
  template <class F>
  void for_each(F&& f) {
    end_block();
    for (std::size_t i = 0; i < n_blocks(); ++i) {
      std::span<const std::byte> rest = block(i);
      while (!rest.empty()) {
        const std::size_t n = take_size(rest);
        f(rest.first(n));
        rest = rest.subspan(n);
      }
    }
  }

 private:
  static constexpr std::size_t kBlock = std::size_t{1} << 20;
  void end_block();
  std::size_t n_blocks() const { return file_ ? in_file_.size() : blocks_.size(); }
  std::span<const std::byte> block(std::size_t i);
  static std::size_t take_size(std::span<const std::byte>& rest);

  std::int64_t n_ = 0;
  std::vector<std::byte> open_;                 // the block that is being filled
  std::vector<std::vector<std::byte>> blocks_;  // in memory
  std::unique_ptr<GrowingFile> file_;
  struct Block {
    std::uint64_t begin;
    std::size_t size;
  };
  std::vector<Block> in_file_;
  std::vector<std::byte> read_;  // one of them
};

}  // namespace varscope
