#include "worker/data/data_files.h"

#include <glob.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "common/base/error.h"

namespace varscope {
namespace {

class PathKeys final : public Keys {
 public:
  std::vector<std::filesystem::path> files;

 private:
  void on_value(const KeyInfo& info, const ValueRef& value) override {
    if (!info.rule.is_path) return;
    if (auto* const* text = std::get_if<std::string*>(&value)) add(**text);
    if (auto* const* node = std::get_if<ConfigNode*>(&value)) {
      if ((*node)->is_scalar()) add((*node)->scalar);
      for (const ConfigNode& item : (*node)->items) {
        if (item.is_scalar()) add(item.scalar);
      }
      for (const ConfigEntry& entry : (*node)->entries) {
        if (entry.value.is_scalar()) add(entry.value.scalar);
      }
    }
  }
  void on_choice(const KeyInfo&, const ChoiceRef&) override {}
  void on_section(const KeyInfo&, const SectionRef& section) override {
    if (section.present) section.describe(*this);
  }
  void on_variant(const KeyInfo&, const VariantRef& variant) override { variant.describe(*this); }

  void add(const std::string& text) {
    std::error_code ignored;
    if (std::filesystem::is_regular_file(text, ignored)) files.emplace_back(text);
    if (text.find_first_of("*?[") == std::string::npos) return;
    glob_t all{};
    if (::glob(text.c_str(), 0, nullptr, &all) == 0) {
      for (std::size_t i = 0; i < all.gl_pathc; ++i) {
        if (std::filesystem::is_regular_file(all.gl_pathv[i], ignored)) files.emplace_back(all.gl_pathv[i]);
      }
    }
    ::globfree(&all);
  }
};

}  // namespace

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
  PathKeys keys;
  described.describe(keys);
  return std::move(keys.files);
}

}  // namespace varscope
