#include "checkpoint/exchange/tf_bundle.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "checkpoint/exchange/tf_bundle.pb.h"
#include "checkpoint/exchange/tf_table.h"
#include "checkpoint/storage/atomic_file.h"
#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/record_file.h"

namespace varscope {
namespace {

constexpr int kMaxShards = 100'000;

int tf_dtype(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return 1;
    case DType::float64:
      return 2;
    case DType::int32:
      return 3;
    case DType::uint8:
      return 4;
    case DType::int64:
      return 9;
    case DType::bfloat16:
      return 14;
  }
  fail(ErrorKind::argument, "dtype {} is not one of ours", static_cast<int>(dtype));
}

std::optional<DType> dtype_of_tf(int number) {
  for (const DType d :
       {DType::float32, DType::float64, DType::int32, DType::int64, DType::bfloat16, DType::uint8}) {
    if (number == tf_dtype(d)) return d;
  }
  return std::nullopt;
}

constexpr int kTfString = 7;

// TensorFlow's name of a dtype of its types.proto, for messages.
std::string tf_name(int number) {
  if (const ForeignType* foreign = foreign_type_of_tf(number)) return std::string(foreign->name);
  constexpr std::array kNames = {
      std::pair{8, "complex64"},   std::pair{11, "qint8"},       std::pair{12, "quint8"},
      std::pair{13, "qint32"},     std::pair{15, "qint16"},      std::pair{16, "quint16"},
      std::pair{18, "complex128"}, std::pair{20, "resource"},    std::pair{21, "variant"},
      std::pair{23, "uint64"},     std::pair{24, "float8_e5m2"}, std::pair{25, "float8_e4m3fn"},
      std::pair{29, "int4"},       std::pair{30, "uint4"}};
  for (const auto& [known, name] : kNames) {
    if (known == number) return name;
  }
  return fmt::format("{} of TensorFlow's numbers", number);
}

std::string data_name(const std::string& prefix, int shard, int n_shards) {
  return fmt::format("{}.data-{:05d}-of-{:05d}", prefix, shard, n_shards);
}

std::string header_bytes() {
  bundle::Header header;
  header.set_num_shards(1);
  header.mutable_version()->set_producer(1);
  return header.SerializeAsString();
}

std::string entry_bytes(const NamedTensor& t, std::uint64_t offset, std::uint32_t crc) {
  bundle::Entry entry;
  entry.set_dtype(tf_dtype(t.dtype));
  entry.mutable_shape();  // there also for a scalar
  for (const std::int64_t d : t.shape.dims()) entry.mutable_shape()->add_dim()->set_size(d);
  entry.set_offset(static_cast<std::int64_t>(offset));
  entry.set_size(static_cast<std::int64_t>(t.n_bytes()));
  entry.set_crc32c(mask_crc(crc));
  return entry.SerializeAsString();
}

// Reads a bundle's index; the files and tensors of a FileSource gather on the way.
class BundleReader {
 public:
  BundleReader(Fs& fs, std::string prefix, Widen how, ReadNotes& notes)
      : fs_(fs), prefix_(std::move(prefix)), index_(prefix_ + ".index"), how_(how), notes_(notes) {}

  std::unique_ptr<TensorSource> run() {
    const TableEntries entries = read_table(fs_, index_);
    if (entries.empty() || !entries[0].first.empty())
      fail(ErrorKind::checkpoint, "{} has no header: it is not the index of a TensorFlow bundle", index_);
    open_shards(entries[0].second);
    for (std::size_t i = 1; i < entries.size(); ++i) add(entries[i].first, entries[i].second);
    return std::make_unique<FileSource>(std::move(files_), std::move(tensors_), std::move(places_));
  }

 private:
  void open_shards(const std::string& bytes) {
    bundle::Header header;
    if (!header.ParseFromString(bytes)) fail(ErrorKind::checkpoint, "{} has a malformed header", index_);
    if (header.endianness() != 0) fail(ErrorKind::checkpoint, "{} is of a big-endian machine", index_);
    if (header.num_shards() < 1 || header.num_shards() > kMaxShards)
      fail(ErrorKind::checkpoint, "{} has {} shards", index_, header.num_shards());
    for (int shard = 0; shard < header.num_shards(); ++shard) {
      names_.push_back(data_name(prefix_, shard, header.num_shards()));
      if (!fs_.exists(names_.back())) fail(ErrorKind::checkpoint, "{} is missing", names_.back());
      files_.push_back(fs_.open(names_.back()));
      n_data_ += files_.back()->size();
    }
  }

  void add(const std::string& name, const std::string& bytes) {
    const std::string who = fmt::format("{}: tensor \"{}\"", index_, name);
    bundle::Entry entry;
    if (!entry.ParseFromString(bytes)) fail(ErrorKind::checkpoint, "{} has a malformed entry", who);
    if (entry.dtype() == kTfString) {
      notes_.skipped.push_back(name);
      return;
    }
    const std::optional<DType> dtype = dtype_of_tf(entry.dtype());
    const StoredType type =
        dtype ? StoredType{*dtype}
              : require_widening(foreign_type_of_tf(entry.dtype()), tf_name(entry.dtype()), how_, who);
    if (entry.slices_size() > 0)
      fail(ErrorKind::checkpoint, "{} was saved in {} slices; save it whole", who, entry.slices_size());
    if (entry.shape().unknown_rank() || entry.shard_id() < 0 ||
        static_cast<std::size_t>(entry.shard_id()) >= files_.size())
      fail(ErrorKind::checkpoint, "{} has no shape, or is in shard {} of {}", who, entry.shard_id(),
           files_.size());
    ReadFile& file = *files_[static_cast<std::size_t>(entry.shard_id())];
    const auto offset = static_cast<std::uint64_t>(entry.offset()),
               size = static_cast<std::uint64_t>(entry.size());
    if (entry.offset() < 0 || entry.size() < 0 || offset > file.size() || size > file.size() - offset)
      fail(ErrorKind::checkpoint, "{} has {} bytes from byte {} of a shard of {}", who, entry.size(),
           entry.offset(), file.size());
    std::vector<std::int64_t> extents;
    for (const bundle::Shape::Dim& d : entry.shape().dim()) extents.push_back(d.size());
    NamedTensor tensor{name, type.dtype, checked_shape(extents, type, size, who)};
    if (stored_bytes(tensor.shape, type) != size)
      fail(ErrorKind::checkpoint, "{} has {} bytes for {} {}", who, size, type.name(), tensor.shape.str());
    n_read_ += size;
    if (n_read_ > n_data_) fail(ErrorKind::checkpoint, "{} is damaged: its tensors overlap", index_);
    check_crc(file, names_[static_cast<std::size_t>(entry.shard_id())], entry, name);
    note_widening(notes_, type, name);
    tensors_.push_back(std::move(tensor));
    places_.push_back({static_cast<std::size_t>(entry.shard_id()), offset, type});
  }

  // REQUIRES: the entry's range lies in the file.
  static void check_crc(ReadFile& file, const std::string& file_name, const bundle::Entry& entry,
                        const std::string& name) {
    const auto offset = static_cast<std::uint64_t>(entry.offset()),
               size = static_cast<std::uint64_t>(entry.size());
    std::vector<std::byte> memory;
    std::uint32_t crc = 0;
    for (std::uint64_t at = 0; at < size; at += memory.size()) {
      memory.resize(static_cast<std::size_t>(std::min<std::uint64_t>(size - at, 1 << 20)));
      file.read_at(offset + at, memory);
      crc = crc32c(memory, crc);
    }
    if (mask_crc(crc) != entry.crc32c())
      fail(ErrorKind::checkpoint, "{} is damaged: tensor \"{}\" has crc32c {:08x} instead of {:08x} (masked)",
           file_name, name, mask_crc(crc), entry.crc32c());
  }

  Fs& fs_;
  std::string prefix_, index_;
  Widen how_;
  ReadNotes& notes_;
  std::vector<std::string> names_;
  std::vector<std::unique_ptr<ReadFile>> files_;
  std::vector<NamedTensor> tensors_;
  std::vector<FileSource::Place> places_;
  std::uint64_t n_data_ = 0, n_read_ = 0;  // bytes of the shards, and of the tensors so far
};

}  // namespace

void write_tf_bundle(Fs& fs, const std::string& prefix, TensorSource& source) {
  std::vector<std::size_t> order(source.tensors().size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return source.tensors()[a].name < source.tensors()[b].name;  // bytewise, as the table wants it
  });
  if (fs.exists(prefix) && !fs.is_directory(prefix) &&
      fs.write_place(prefix).kind == WritePlace::Kind::other) {
    fail(ErrorKind::config,
         "{} is no plain file, and a TensorFlow bundle is two of them: name a prefix of new files, or export "
         "as safetensors or npz",
         prefix);
  }
  TableEntries entries = {{"", header_bytes()}};
  AtomicFile data(fs, data_name(prefix, 0, 1));
  for (const std::size_t i : order) {
    const NamedTensor& t = source.tensors()[i];
    if (t.name.empty())
      fail(ErrorKind::checkpoint, "{}: a tensor of a TensorFlow bundle must have a name", prefix);
    const std::uint64_t offset = data.size();
    std::uint32_t crc = 0;
    stream_tensor(source, i, [&](std::span<const std::byte> bytes) {
      crc = crc32c(bytes, crc);
      data.write(bytes);
    });
    entries.emplace_back(t.name, entry_bytes(t, offset, crc));
  }
  data.finish();
  write_table(fs, prefix + ".index", entries);
}

std::unique_ptr<TensorSource> open_tf_bundle(Fs& fs, const std::string& path, Widen how, ReadNotes& notes) {
  constexpr std::string_view kSuffix = ".index";
  const bool is_index = path.ends_with(kSuffix);
  return BundleReader(fs, is_index ? path.substr(0, path.size() - kSuffix.size()) : path, how, notes).run();
}

}  // namespace varscope
