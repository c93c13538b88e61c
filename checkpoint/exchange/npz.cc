#include "checkpoint/exchange/npz.h"

#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/exchange/npy.h"
#include "checkpoint/storage/atomic_file.h"
#include "common/base/error.h"
#include "common/files/zip_archive.h"

namespace varscope {
namespace {

constexpr std::string_view kSuffix = ".npy";

std::unique_ptr<TensorSource> parse(std::unique_ptr<ReadFile> file, Widen how, ReadNotes& notes) {
  std::vector<NamedTensor> tensors;
  std::vector<FileSource::Place> places;
  std::set<std::string> names;
  std::uint64_t n_read = 0;  // no more than there is, however often the directory names it
  const RandomBytes bytes = bytes_of(*file);
  for (const ZipMember& m : read_zip_directory(bytes)) {
    if (m.is_compressed())
      fail(ErrorKind::checkpoint, "has the compressed member \"{}\"; save it with numpy.savez", m.name);
    std::uint64_t begin = zip_data_of(bytes, m);
    n_read += m.size;
    if (n_read > file->size()) fail(ErrorKind::checkpoint, "is damaged: its members overlap");
    check_zip_crc(bytes, begin, m);
    if (!m.name.ends_with(kSuffix))
      fail(ErrorKind::checkpoint, "has the member \"{}\", which is no array", m.name);
    StoredType type;
    tensors.push_back(
        read_npy(bytes, m.name.substr(0, m.name.size() - kSuffix.size()), m.size, how, begin, type));
    places.push_back({0, begin, type});
    note_widening(notes, type, tensors.back().name);
    if (!names.insert(m.name).second) fail(ErrorKind::checkpoint, "has two members \"{}\"", m.name);
  }
  std::vector<std::unique_ptr<ReadFile>> files;
  files.push_back(std::move(file));
  return std::make_unique<FileSource>(std::move(files), std::move(tensors), std::move(places));
}

}  // namespace

void write_npz(Fs& fs, const std::string& path, TensorSource& source) {
  AtomicFile file(fs, path);
  std::string directory;
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    const NamedTensor& t = source.tensors()[i];
    const std::string header = npy_header(t);
    ZipMember m{t.name + std::string(kSuffix), add_zip_crc(0, header.data(), header.size()),
                header.size() + t.n_bytes(), file.size()};
    if (m.name.size() > 0xffff)
      fail(ErrorKind::checkpoint, "{}: a zip archive has no names of {} bytes", path, m.name.size());
    stream_tensor(source, i, [&](std::span<const std::byte> bytes) {
      m.crc = add_zip_crc(m.crc, bytes.data(), bytes.size());
    });
    file.write(zip_local_header(m) + header);
    stream_tensor(source, i, [&](std::span<const std::byte> bytes) { file.write(bytes); });
    directory += zip_central_header(m);
  }
  const std::uint64_t at = file.size();
  file.write(directory + zip_end(source.tensors().size(), at, directory.size()));
  file.finish();
}

std::unique_ptr<TensorSource> open_npz(Fs& fs, const std::string& path, Widen how, ReadNotes& notes) {
  return open_source(fs, path,
                     [&](std::unique_ptr<ReadFile> file) { return parse(std::move(file), how, notes); });
}

}  // namespace varscope
