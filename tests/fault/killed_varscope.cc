// The whole program `varscope` on a file system that kills it with SIGKILL at the n-th moment, n from the
// environment variable VARSCOPE_KILL_AT: before and after each operation that changes something, and in the
// middle of each write.
#include <signal.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <string>

#include "checkpoint/storage/fs.h"
#include "launch/program.h"

namespace {

using varscope::File;
using varscope::PosixFs;

class KillingFs : public PosixFs {
 public:
  explicit KillingFs(int left) : left_(left) {}

  std::unique_ptr<File> create_exclusive(const std::string& path) override {
    std::unique_ptr<File> file;
    around([&] { file = std::make_unique<KillingFile>(*this, PosixFs::create_exclusive(path)); });
    return file;
  }
  std::unique_ptr<File> create_like(const std::string& path, const std::string& like) override {
    std::unique_ptr<File> file;
    around([&] { file = std::make_unique<KillingFile>(*this, PosixFs::create_like(path, like)); });
    return file;
  }
  void make_dirs(const std::string& path) override {
    around([&] { PosixFs::make_dirs(path); });
  }
  void rename(const std::string& from, const std::string& to) override {
    around([&] { PosixFs::rename(from, to); });
  }
  void replace_file(const std::string& from, const std::string& to) override {
    around([&] { PosixFs::replace_file(from, to); });
  }
  void remove_all(const std::string& path) override {
    around([&] { PosixFs::remove_all(path); });
  }
  void sync_dir(const std::string& path) override {
    around([&] { PosixFs::sync_dir(path); });
  }

 private:
  class KillingFile : public File {
   public:
    KillingFile(KillingFs& fs, std::unique_ptr<File> inner) : fs_(fs), inner_(std::move(inner)) {}
    void write(std::span<const std::byte> bytes) override {
      fs_.around([&] {
        inner_->write(bytes.first(bytes.size() / 2));
        fs_.moment();
        inner_->write(bytes.subspan(bytes.size() / 2));
      });
    }
    void sync() override {
      fs_.around([&] { inner_->sync(); });
    }
    void close() override { inner_->close(); }

   private:
    KillingFs& fs_;
    std::unique_ptr<File> inner_;
  };

  void around(const std::function<void()>& work) {
    moment();
    work();
    moment();
  }
  void moment() {
    if (--left_ == 0) raise(SIGKILL);
  }
  int left_;
};

}  // namespace

int main(int argc, char** argv) {
  const char* at = std::getenv("VARSCOPE_KILL_AT");
  KillingFs fs(at == nullptr ? 0 : std::atoi(at));
  return varscope::run_program(argc, argv, varscope::LayerRegistry::built_in(), fs);
}
