#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/files/zip_archive.h"
#include "worker/data/mapped_file.h"
#include "worker/data/number_array.h"

namespace varscope {

// The array of a NumPy file .npy, mapped; one that gzip has compressed is unpacked into memory. Any order of
// axes and bytes. Throws Error(data), which names the file, for one that is none or is damaged, and for
// elements that are no numbers.
NumberArray open_npy(const std::filesystem::path& file);

// The arrays of a NumPy archive .npz. Stored ones (numpy.savez) are mapped, deflated ones
// (numpy.savez_compressed) are unpacked into memory. Throws Error(data), which names file and array. Not
// thread-safe; the arrays that it gives outlive it.
class NpzFile {
 public:
  explicit NpzFile(const std::filesystem::path& file);
  const std::string& name() const { return file_->name(); }
  const std::vector<std::string>& arrays() const { return names_; }  // in the order of the file
  bool has(const std::string& array) const;
  // Reads all of its bytes, for their checksum. Throws Error(data) also where there is none of that name,
  // with those that there are.
  NumberArray array(const std::string& name) const;

 private:
  std::shared_ptr<const MappedFile> file_;
  std::vector<std::string> names_;  // without ".npy"
  std::vector<ZipMember> members_;
};

// What `read(bytes)` throws, Error(data), with "<name>: " before it.
template <class Read>
auto with_name(const std::string& name, const Read& read) {
  try {
    return read();
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::data || std::string_view(e.what()).starts_with(name)) throw;
    fail(ErrorKind::data, "{}: {}", name, e.what());
  }
}

}  // namespace varscope
