#include "checkpoint/exchange/tf_table.h"

#include <leveldb/env.h>
#include <leveldb/options.h>
#include <leveldb/table_builder.h>

#include <exception>
#include <string_view>

#include "checkpoint/storage/atomic_file.h"
#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/record_file.h"
#include "common/files/little_endian.h"

namespace varscope {
namespace {

constexpr std::uint64_t kMagic = 0xdb4775248b80fb57;
constexpr std::size_t kFooterBytes = 48, kTrailerBytes = 5, kBlockBytes = 262144;
constexpr std::uint64_t kMaxTable = 256 << 20, kMaxKeys = 256 << 20;

[[noreturn]] void bad(const std::string& message) { throw Error(ErrorKind::checkpoint, message); }

// LevelDB reports by status; the exception of the first failure waits here until its call is over.
class TableFile : public leveldb::WritableFile {
 public:
  explicit TableFile(AtomicFile& file) : file_(file) {}
  leveldb::Status Append(const leveldb::Slice& data) override {
    if (error_ != nullptr) return leveldb::Status::IOError("an earlier write has failed");
    try {
      file_.write(std::string_view(data.data(), data.size()));
      return leveldb::Status::OK();
    } catch (const std::exception&) {
      error_ = std::current_exception();
      return leveldb::Status::IOError("write");
    }
  }
  leveldb::Status Close() override { return leveldb::Status::OK(); }
  leveldb::Status Flush() override { return leveldb::Status::OK(); }
  leveldb::Status Sync() override { return leveldb::Status::OK(); }
  void rethrow() const {
    if (error_ != nullptr) std::rethrow_exception(error_);
  }

 private:
  AtomicFile& file_;
  std::exception_ptr error_;
};

std::uint64_t take_varint(std::string_view& bytes) {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (bytes.empty()) bad("is damaged: a number in it is cut off");
    const auto byte = static_cast<unsigned char>(bytes[0]);
    bytes.remove_prefix(1);
    value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  bad("is damaged: a number in it does not end");
}

// The block of a handle, without its trailer.
std::string_view block_at(std::string_view table, std::string_view& handle) {
  const std::uint64_t offset = take_varint(handle), size = take_varint(handle);
  if (offset > table.size() || size > table.size() - offset || table.size() - offset - size < kTrailerBytes)
    bad(fmt::format("is damaged: a block of {} bytes from byte {} of {}", size, offset, table.size()));
  const std::string_view block = table.substr(offset, size), covered = table.substr(offset, size + 1);
  const std::uint32_t crc = mask_crc(crc32c(std::as_bytes(std::span(covered))));
  if (crc != get_le<std::uint32_t>(table, offset + size + 1))
    bad(fmt::format("is damaged: the checksum of the block at byte {} does not match", offset));
  if (covered.back() != 0) bad("has compressed blocks, which TensorFlow does not write");
  return block;
}

template <class F>
void for_each_entry(std::string_view block, F&& f) {
  if (block.size() < 4) bad("is damaged: a block is cut off");
  const std::uint64_t n_restarts = get_le<std::uint32_t>(block, block.size() - 4);
  if (n_restarts > (block.size() - 4) / 4) bad("is damaged: a block has too many restarts");
  block.remove_suffix(4 + 4 * n_restarts);
  std::string key;
  while (!block.empty()) {
    const std::uint64_t shared = take_varint(block), unshared = take_varint(block),
                        length = take_varint(block);
    if (shared > key.size() || unshared > block.size() || length > block.size() - unshared)
      bad("is damaged: an entry reaches outside its block");
    key.resize(shared);
    key.append(block.substr(0, unshared));
    f(key, block.substr(unshared, length));
    block.remove_prefix(unshared + length);
  }
}

TableEntries parse(std::string_view table) {
  if (table.size() < kFooterBytes || get_le<std::uint64_t>(table, table.size() - 8) != kMagic)
    bad("is not the index of a TensorFlow bundle, or is cut off");
  std::string_view footer = table.substr(table.size() - kFooterBytes);
  take_varint(footer);  // the metaindex
  take_varint(footer);
  TableEntries entries;
  std::uint64_t n_keys = 0, n_read = 0;
  for_each_entry(block_at(table, footer), [&](const std::string&, std::string_view handle) {
    const std::string_view block = block_at(table, handle);
    n_read += block.size() + kTrailerBytes;
    if (n_read > table.size()) bad("is damaged: its blocks overlap");
    for_each_entry(block, [&](const std::string& key, std::string_view value) {
      if (!entries.empty() && key <= entries.back().first) bad("is damaged: its keys are not in order");
      n_keys += key.size();
      if (n_keys > kMaxKeys) bad("has more bytes of keys than are allowed");
      entries.emplace_back(key, value);
    });
  });
  return entries;
}

}  // namespace

void write_table(Fs& fs, const std::string& path, const TableEntries& entries) {
  AtomicFile file(fs, path);
  TableFile target(file);
  leveldb::Options options;
  options.compression = leveldb::kNoCompression;
  options.block_size = kBlockBytes;
  leveldb::TableBuilder builder(options, &target);
  for (const auto& [key, value] : entries) builder.Add(key, value);
  const leveldb::Status status = builder.Finish();
  target.rethrow();
  if (!status.ok()) fail(ErrorKind::checkpoint, "cannot write {}: {}", path, status.ToString());
  file.finish();
}

TableEntries read_table(Fs& fs, const std::string& path) {
  const std::string bytes = read_whole_file(fs, path, kMaxTable);
  try {
    return parse(bytes);
  } catch (const Error& e) {
    fail(ErrorKind::checkpoint, "{} {}", path, e.what());
  }
}

}  // namespace varscope
