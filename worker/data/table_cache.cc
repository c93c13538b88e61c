#include "worker/data/table_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <sstream>
#include <thread>
#include <utility>

#include <nlohmann/json.hpp>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/text.h"

namespace varscope {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kDescription = "table.json";  // written last

// What the file system says of a file. Equal ones are of equal bytes, but for changes within the tick of the
// file system's clock (FileState::is_old_enough).
struct FileState {
  std::int64_t size = 0, mtime_ns = 0, ctime_ns = 0;
  std::uint64_t inode = 0;
  bool operator==(const FileState&) const = default;

  static FileState of(const fs::path& file) {
    struct stat s {};
    if (::stat(file.c_str(), &s) != 0)
      fail(ErrorKind::data, "{}: cannot be read: {}", file.string(), std::strerror(errno));
    const auto ns = [](const timespec& t) { return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; };
    return {s.st_size, ns(s.st_mtim), ns(s.st_ctim), s.st_ino};
  }
  bool is_old_enough(std::int64_t seen_ns) const {
    constexpr std::int64_t kTick = 2'000'000'000;
    return ctime_ns + kTick < seen_ns;
  }
};

std::int64_t wall_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

[[noreturn]] void fail_io(const fs::path& what, const char* why, int code) {
  fail(ErrorKind::io, "{}: {}: {}", what.string(), why, std::strerror(code));
}

void remove_folder(const fs::path& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
  if (error) fail_io(folder, "cannot be removed", error.value());
}

// A lock of a file, which the system lets go of when the process ends.
class FileLock {
 public:
  explicit FileLock(const fs::path& file) : file_(file) {
    fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd_ < 0) fail_io(file, "cannot be made", errno);
  }
  ~FileLock() { ::close(fd_); }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

  // LOCK_SH or LOCK_EX, instead of what it has. `waits` is called when somebody else has it for some seconds.
  template <class Waits>
  void take(int kind, const Waits& waits) const {
    constexpr std::int64_t kQuietly = 5'000'000'000;
    for (const std::int64_t begun = now_ns(); now_ns() - begun < kQuietly;) {
      if (::flock(fd_, kind | LOCK_NB) == 0) return;
      if (errno != EWOULDBLOCK && errno != EINTR) fail_io(file_, "cannot be locked", errno);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    waits();
    while (::flock(fd_, kind) != 0) {
      if (errno != EINTR) fail_io(file_, "cannot be locked", errno);
    }
  }

 private:
  fs::path file_;
  int fd_ = -1;
};

// One table's folder.
class KeptTable {
 public:
  KeptTable(const TableRequest& request, const SourceContext& context)
      : request_(request),
        context_(context),
        keys_(fmt::format("format {}\n{}", kTableFormat, request.keys)) {
    for (const fs::path& file : request.files) keys_ += fmt::format("\nfile {}", fs::absolute(file).string());
    std::error_code error;
    fs::create_directories(context.cache.folder, error);
    if (error) fail_io(context.cache.folder, "cannot be made", error.value());
    folder_ = context.cache.folder / digest_of(std::string_view(keys_)).hex();
    lock_.emplace(folder_.string() + ".lock");
  }

  std::unique_ptr<TableDataset> open_or_make(const MakeTable& make) {
    const auto waits = [&] {
      tell(fmt::format("waits for another process, which reads {} into {}", request_.files.front().string(),
                       context_.cache.folder.string()));
    };
    lock_->take(LOCK_SH, waits);
    if (auto table = open(false)) return table;
    lock_->take(LOCK_EX, waits);
    auto table = open(true);
    return table ? std::move(table) : this->make(make);
  }

 private:
  void tell(const std::string& line) const {
    if (context_.tell) context_.tell(line);
  }

  // Null where it is not there, or not good any more.
  std::unique_ptr<TableDataset> open(bool tells) const {
    std::error_code ignored;
    if (!fs::exists(folder_ / kDescription, ignored)) return nullptr;
    std::string why;
    try {
      if (auto table = map(why)) return table;
    } catch (const std::exception& e) {
      why = e.what();
    }
    if (tells) tell(fmt::format("{}; its text is read anew", why));
    return nullptr;
  }

  std::unique_ptr<TableDataset> map(std::string& why) const {
    const Json all = read_description();
    if (all.at("keys").get<std::string>() != keys_) {
      why = fmt::format("{} is of another table", folder_.string());
      return nullptr;
    }
    std::vector<DataFile> files;
    for (std::size_t i = 0; i < request_.files.size(); ++i) {
      if (auto file = unchanged(all.at("files").at(i), request_.files[i], all.at("seen"))) {
        files.push_back(*file);
        continue;
      }
      why =
          fmt::format("{} has changed since it was kept in {}", request_.files[i].string(), folder_.string());
      return nullptr;
    }
    TableSchema schema = schema_from_json(all.at("schema").get<std::string>());
    const std::int64_t n = all.at("rows");
    TableColumns columns = TableColumns::open(schema, n, folder_);
    if (columns.content().hex() != all.at("content").get<std::string>()) {
      why = fmt::format("the table in {} is damaged", folder_.string());
      return nullptr;
    }
    columns.unknown = {.n = all.at("unknown").at(0), .of = all.at("unknown").at(1)};
    LeftOut left_out{.n = all.at("left_out").at(0), .of = all.at("left_out").at(1), .first = {}};
    for (const Json& line : all.at("first_left_out")) left_out.first.push_back(line);
    auto table =
        std::make_unique<TableDataset>(std::move(schema), n, std::move(columns), std::move(left_out));
    table->set_files(std::move(files));
    return table;
  }

  // The file as it was kept, where it has the same bytes.
  static std::optional<DataFile> unchanged(const Json& kept, const fs::path& file, std::int64_t seen_ns) {
    const Json& s = kept.at("state");
    const FileState then{s.at(0), s.at(1), s.at(2), s.at(3)};
    DataFile read{file.string(), kept.at("n_bytes"), Digest::from_hex(kept.at("digest").get<std::string>())};
    if (FileState::of(file) == then && then.is_old_enough(seen_ns)) return read;
    if (read_data_file(file) == read) return read;
    return std::nullopt;
  }

  Json read_description() const {
    std::ifstream in(folder_ / kDescription);
    std::stringstream text;
    text << in.rdbuf();
    const std::string all = text.str();
    const std::size_t end = all.find('\n');
    if (end == std::string::npos ||
        all.substr(0, end) != digest_of(std::string_view(all).substr(end + 1)).hex())
      fail(ErrorKind::data, "{} is damaged", (folder_ / kDescription).string());
    return Json::parse(all.substr(end + 1));
  }

  std::unique_ptr<TableDataset> make(const MakeTable& make_table) const {
    const fs::path growing = folder_.string() + ".new";
    remove_folder(growing);  // of a process that died
    std::error_code error;
    fs::create_directory(growing, error);
    if (error) fail_io(growing, "cannot be made", error.value());
    try {
      const std::int64_t seen_ns = wall_ns();
      std::vector<FileState> states;
      states.reserve(request_.files.size());
      for (const fs::path& file : request_.files) states.push_back(FileState::of(file));
      auto table = make_table(growing);
      std::vector<DataFile> files;
      files.reserve(request_.files.size());
      for (const fs::path& file : request_.files) files.push_back(read_data_file(file));
      for (std::size_t i = 0; i < states.size(); ++i) {
        if (FileState::of(request_.files[i]) != states[i])
          fail(ErrorKind::data, "{}: has changed while it was read; start again when nobody writes it",
               files[i].name);
      }
      write_description(growing, *table, files, states, seen_ns);
      table->set_files(std::move(files));
      remove_folder(folder_);
      fs::rename(growing, folder_, error);
      if (error) fail_io(folder_, "cannot be made", error.value());
      return table;
    } catch (...) {
      fs::remove_all(growing, error);
      throw;
    }
  }

  void write_description(const fs::path& folder, const TableDataset& table,
                         const std::vector<DataFile>& files, const std::vector<FileState>& states,
                         std::int64_t seen_ns) const {
    Json of_files = Json::array();
    for (std::size_t i = 0; i < files.size(); ++i) {
      const FileState& s = states[i];
      of_files.push_back({{"name", files[i].name},
                          {"n_bytes", files[i].n_bytes},
                          {"digest", files[i].digest.hex()},
                          {"state", {s.size, s.mtime_ns, s.ctime_ns, s.inode}}});
    }
    const LeftOut& left_out = table.left_out();
    const auto unknown = table.unknown_words();
    const std::string text = Json{
        {"keys", keys_},
        {"files", of_files},
        {"seen", seen_ns},
        {"schema", table.schema()},
        {"rows", table.size()},
        {"content", table.content().hex()},
        {"unknown", {unknown.n, unknown.of}},
        {"left_out", {left_out.n, left_out.of}},
        {"first_left_out",
         left_out.first}}.dump(-1, ' ', false, Json::error_handler_t::replace);  // records may be no UTF-8
    GrowingFile out(folder / kDescription);
    const std::string all = digest_of(std::string_view(text)).hex() + "\n" + text;
    out.add(std::as_bytes(std::span(all)));
    out.flush();
  }

  const TableRequest& request_;
  const SourceContext& context_;
  std::string keys_;
  fs::path folder_;
  std::optional<FileLock> lock_;
};

std::int64_t total_size(const std::vector<fs::path>& files) {
  std::int64_t total = 0;
  for (const fs::path& file : files) {
    std::error_code error;
    const auto size = fs::file_size(file, error);
    total += error ? 0 : static_cast<std::int64_t>(size);
  }
  return total;
}

}  // namespace

std::unique_ptr<TableDataset> open_table(const TableRequest& request, const SourceContext& context,
                                         const MakeTable& make) {
  // Files that can be read once only are read once.
  const bool are_plain = std::ranges::all_of(request.files, [](const fs::path& file) {
    std::error_code ignored;
    return fs::is_regular_file(file, ignored);
  });
  if (context.cache.folder.empty() || !are_plain || total_size(request.files) < context.cache.least_bytes)
    return make({});
  try {
    return KeptTable(request, context).open_or_make(make);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::io) throw;
    auto table = make({});
    table->add_warning(fmt::format(
        "the table of {} is kept in memory, and is read again at each start: {}; data.cache says where there is room",
        request.files.front().string(), e.what()));
    return table;
  }
}

std::string table_keys(const char* type, const ConfigNode& source, const SourceContext& context) {
  std::string keys = fmt::format("{}\n{}", type, source.to_yaml());
  if (context.split) {
    keys += fmt::format("split {} {} {}\n", context.split->test, context.split->seed,
                        context.position == DataSplit::test ? "test" : "train");
  }
  if (context.may_lack_labels) keys += "may lack labels\n";
  return keys + "schema " + context.schema;
}

std::filesystem::path user_cache_folder() {
  const auto folder = [](const char* variable) {
    const char* text = std::getenv(variable);
    return fs::path(text == nullptr ? "" : text);
  };
  if (const fs::path cache = folder("XDG_CACHE_HOME"); cache.is_absolute()) return cache / "varscope";
  if (const fs::path home = folder("HOME"); home.is_absolute()) return home / ".cache" / "varscope";
  return {};
}

ReadingProgress::ReadingProgress(const SourceContext& context, const std::vector<fs::path>& files)
    : context_(context), before_{0}, begun_ns_(now_ns()), told_ns_(begun_ns_) {
  if (!files.empty()) name_ = files.front().string();
  if (files.size() > 1) name_ += fmt::format(" and {} more", files.size() - 1);
  for (const fs::path& file : files)
    before_.push_back(before_.back() + static_cast<std::uint64_t>(total_size({file})));
}

void ReadingProgress::look(std::uint64_t n_bytes) {
  constexpr std::int64_t kEvery = 5'000'000'000;
  if (!context_.tell || now_ns() - told_ns_ < kEvery) return;
  told_ns_ = now_ns();
  const std::uint64_t done = before_[std::min(file_, before_.size() - 1)] + n_bytes;
  const double seconds = static_cast<double>(told_ns_ - begun_ns_) * 1e-9;
  context_.tell(fmt::format("reads {}: {} of {}, {}/s", name_, bytes_text(static_cast<std::int64_t>(done)),
                            bytes_text(static_cast<std::int64_t>(before_.back())),
                            bytes_text(static_cast<std::int64_t>(static_cast<double>(done) / seconds))));
}

}  // namespace varscope
