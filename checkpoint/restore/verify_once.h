#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/restore/reader.h"

namespace varscope {

// verify_files() of one checkpoint after the other, of which some have files of others as links: a file is
// read once, as long as a later manifest says no more of it than an earlier one did. So the oldest
// checkpoint, which has written its files, is to come first. Not thread-safe.
class VerifyOnce {
 public:
  std::vector<std::string> operator()(Fs& fs, const std::string& path, const Manifest& manifest);

 private:
  struct Seen {
    std::string path;  // of the file
    FileRecord record;
    std::set<std::string> pieces;  // what was looked at in it
    std::vector<std::string> problems;
  };
  std::vector<std::string> verify(Fs& fs, const std::string& path, const Manifest& manifest,
                                  std::uint32_t file, std::set<std::string> pieces);
  std::map<std::pair<std::uint64_t, std::uint64_t>, Seen> seen_;  // by FileIdentity::key()
};

// Which files have been found damaged, so that others that have them as links need not be read.
class DamagedFiles {
 public:
  // Whether a file of the manifest is one of them: "" or what is wrong.
  std::string problem(Fs& fs, const std::string& path, const Manifest& manifest) const;
  // `problems`: what verify_files() has said of the checkpoint.
  void add(Fs& fs, const std::string& path, const Manifest& manifest,
           const std::vector<std::string>& problems);

 private:
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::string> damaged_;
};

}  // namespace varscope
