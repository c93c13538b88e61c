#include "worker/data/find_files.h"

#include <glob.h>

#include <functional>
#include <string>
#include <string_view>

#include "common/base/error.h"

namespace varscope {
namespace {

namespace fs = std::filesystem;

bool is_pattern(const std::string& text) { return text.find_first_of("*?[") != std::string::npos; }

bool is_there(const fs::path& path) {
  std::error_code ignored;
  if (fs::exists(path, ignored)) return true;
  if (!is_pattern(path.string())) return false;
  glob_t all{};
  const bool matches = ::glob(path.c_str(), GLOB_NOSORT, nullptr, &all) == 0;
  ::globfree(&all);
  return matches;
}

class PathKeys final : public Keys {
 public:
  explicit PathKeys(const std::function<void(const KeyInfo&, std::string&)>& f) : f_(f) {}

 private:
  void on_value(const KeyInfo& info, const ValueRef& value) override {
    if (!info.rule.is_path) return;
    if (auto* const* text = std::get_if<std::string*>(&value)) f_(info, **text);
    if (auto* const* node = std::get_if<ConfigNode*>(&value)) {
      if ((*node)->is_scalar()) f_(info, (*node)->scalar);
      for (ConfigNode& item : (*node)->items) {
        if (item.is_scalar()) f_(info, item.scalar);
      }
      for (ConfigEntry& entry : (*node)->entries) {
        if (entry.value.is_scalar()) f_(info, entry.value.scalar);
      }
    }
  }
  void on_choice(const KeyInfo&, const ChoiceRef&) override {}
  void on_section(const KeyInfo&, const SectionRef& section) override {
    if (section.present) section.describe(*this);
  }
  void on_variant(const KeyInfo&, const VariantRef& variant) override { variant.describe(*this); }

  const std::function<void(const KeyInfo&, std::string&)>& f_;
};

// Puts the file's path into `text`.
void place(std::string_view key, std::span<const fs::path> folders, MissingFile missing, std::string& text) {
  if (text.empty() || fs::path(text).is_absolute()) return;
  std::string places;
  for (const fs::path& folder : folders) {
    const fs::path path = (folder / text).lexically_normal();
    if (is_there(path)) {
      text = path.string();
      return;
    }
    places += (places.empty() ? "" : " and ") + path.string();
  }
  if (missing == MissingFile::stays) return;
  if (missing == MissingFile::in_last_folder) {
    text = (folders.back() / text).string();
    return;
  }
  fail(
      ErrorKind::data,
      "{}: {}: {}. It was searched as {}: in the folder of the config, then in the one that VARSCOPE_DATA names "
      "(default data/); launch/get_data.sh fetches data sets",
      key, text, is_pattern(text) ? "matches no file" : "no such file or folder", places);
}

}  // namespace

void for_each_path(DataSourceConfig& source, const std::function<void(const KeyInfo&, std::string&)>& f) {
  PathKeys keys(f);
  source.describe(keys);
}

DataSourceConfig find_files(DataSourceConfig source, std::span<const fs::path> folders, MissingFile missing) {
  for_each_path(source,
                [&](const KeyInfo& key, std::string& text) { place(key.name, folders, missing, text); });
  return source;
}

}  // namespace varscope
