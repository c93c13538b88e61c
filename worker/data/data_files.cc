#include "worker/data/data_files.h"

#include <glob.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "common/base/error.h"
#include "worker/data/find_files.h"

namespace varscope {
DataFile read_data_file(const std::filesystem::path& file) {
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  const std::unique_ptr<std::FILE, Close> open(std::fopen(file.c_str(), "rb"));
  if (!open) fail(ErrorKind::data, "{}: cannot be opened: {}", file.string(), std::strerror(errno));
  DataFile read{.name = file.string(), .digest = {}};
  Digester digester;
  std::vector<std::byte> block(std::size_t{1} << 20);
  while (const std::size_t n = std::fread(block.data(), 1, block.size(), open.get())) {
    digester.update(std::span(block).first(n));
    read.n_bytes += static_cast<std::int64_t>(n);
  }
  if (std::ferror(open.get()) != 0)
    fail(ErrorKind::data, "{}: cannot be read: {}", file.string(), std::strerror(errno));
  read.digest = digester.finish();
  return read;
}

std::vector<std::filesystem::path> named_files(const DataSourceConfig& source) {
  DataSourceConfig described = source;
  std::vector<std::filesystem::path> files;
  const auto add = [&](const char* file) {
    std::error_code ignored;
    if (std::filesystem::is_regular_file(file, ignored)) files.emplace_back(file);
  };
  for_each_path(described, [&](const KeyInfo&, std::string& text) {
    if (text.find_first_of("*?[") == std::string::npos) return add(text.c_str());
    glob_t all{};
    if (::glob(text.c_str(), 0, nullptr, &all) == 0) {
      for (std::size_t i = 0; i < all.gl_pathc; ++i) add(all.gl_pathv[i]);
    }
    ::globfree(&all);
  });
  return files;
}

}  // namespace varscope
