#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

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

// Throws Error(data) unless so many bytes are whole elements.
void require_elements(const std::filesystem::path& file, std::uint64_t n_bytes, std::size_t size_of_element);

// A file that is there and does not change, read at any place. Safe from any thread.
class PlacedFile {
 public:
  // Throws Error(data) for one that cannot be opened.
  explicit PlacedFile(const std::filesystem::path& file);
  ~PlacedFile();
  PlacedFile(const PlacedFile&) = delete;
  PlacedFile& operator=(const PlacedFile&) = delete;
  std::uint64_t size() const { return size_; }
  // Fills all of `bytes`. Throws Error(io).
  void read(std::uint64_t offset, std::span<std::byte> bytes) const;

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  std::uint64_t size_ = 0;
};

// Elements that are added one behind the other, and then read at any place: in memory; or in a file. A small
// file is mapped; of a large one nothing stays in the memory of this process. (Pages that are mapped count
// for it, 64 KiB around each element that is read.) Adding is for one thread; the rest for any.
template <class T>
class GrowingArray {
 public:
  static constexpr std::size_t kMostMapped = std::size_t{64} << 20;  // bytes

  GrowingArray() = default;
  explicit GrowingArray(const std::filesystem::path& file) : growing_(std::make_unique<GrowingFile>(file)) {}
  // One that is there. Throws Error(data) for a file that cannot be read, or has part of an element.
  static GrowingArray open(const std::filesystem::path& file) {
    GrowingArray a;
    a.place(file);
    return a;
  }

  void push_back(T x) { add({&x, 1}); }
  void add(std::span<const T> elements) {
    if (growing_) {
      growing_->add(std::as_bytes(elements));
    } else {
      memory_.insert(memory_.end(), elements.begin(), elements.end());
    }
    n_ += elements.size();
  }
  // No more is added, and now it can be read.
  void finish() {
    if (!growing_) return;
    growing_->flush();
    const std::filesystem::path file = growing_->path();
    growing_.reset();
    place(file);
  }

  std::size_t size() const { return n_; }
  bool empty() const { return n_ == 0; }
  bool is_in_file() const { return placed_ != nullptr || mapped_ != nullptr; }
  // REQUIRES begin + to.size() <= size().
  void read(std::size_t begin, std::span<T> to) const {
    if (placed_) return placed_->read(begin * sizeof(T), std::as_writable_bytes(to));
    std::ranges::copy(in_memory().subspan(begin, to.size()), to.begin());
  }
  T at(std::size_t i) const {
    T x{};
    read(i, {&x, 1});
    return x;
  }
  // f(std::span<const T>) for all elements in their order, some at a time.
  template <class F>
  void for_each_piece(const F& f) const {
    constexpr std::size_t kPiece = (std::size_t{1} << 20) / sizeof(T);
    std::vector<T> piece(placed_ ? std::min(kPiece, n_) : 0);
    for (std::size_t at = 0; at < n_; at += kPiece) {
      const std::size_t n = std::min(kPiece, n_ - at);
      if (placed_) read(at, std::span(piece).first(n));
      f(placed_ ? std::span<const T>(piece).first(n) : in_memory().subspan(at, n));
    }
  }
  // From now on a large file is mapped, too: for who wants view().
  void map() {
    if (placed_) mapped_ = std::make_unique<MappedFile>(file_);
    placed_.reset();
  }
  // REQUIRES that it is in memory or mapped.
  std::span<const T> view() const { return in_memory(); }

 private:
  std::span<const T> in_memory() const {
    if (!mapped_) return memory_;
    return {reinterpret_cast<const T*>(mapped_->bytes().data()), n_};
  }
  void place(const std::filesystem::path& file) {
    placed_ = std::make_unique<PlacedFile>(file);
    require_elements(file, placed_->size(), sizeof(T));
    n_ = placed_->size() / sizeof(T);
    file_ = file;
    if (placed_->size() > kMostMapped) return;
    mapped_ = std::make_unique<MappedFile>(file);
    placed_.reset();
  }

  std::size_t n_ = 0;
  std::vector<T> memory_;
  std::filesystem::path file_;
  std::unique_ptr<GrowingFile> growing_;
  std::unique_ptr<PlacedFile> placed_;  // of a large file
  std::unique_ptr<MappedFile> mapped_;  // of a small one
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
