#pragma once

#include <algorithm>
#include <cstddef>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/hash.h"
#include "tests/support/fs/memory_fs.h"

namespace varscope::testing {

// The states that a crash may leave, after each operation of a recorded sequence. What POSIX lets a disk do:
//   - A file has the bytes of its last fsync for certain. Bytes written since may be there in whole; or the
//     file ends at any multiple of 512 bytes (4096 are among them); or it has its full size but zeros from
//     such a multiple on, or in one block of 512 or 4096: its size came before its data (delayed allocation).
//   - A change of names (create, make directory, rename, exchange, replace, remove) is certain when a
//     directory that it changes was fsynced later, or when a certain change of the same name followed. All
//     others happened or not, each on its own, but: each is atomic, and two changes of one name of one
//     directory keep their order, so that the later one implies the earlier one.
//   - Data and names are independent: a renamed file may be empty.
//
// Bounds, since combinations multiply. Of more than kNames uncertain changes of names: every legal subset of
// the last kNames with the older ones all done and all lost, and each single one done or lost beside all
// others. Of files whose variants multiply to more than kCombinations: every variant of each file while all
// others are whole, and while all others are empty.
class CrashStates {
 public:
  static constexpr std::size_t kNames = 8, kCombinations = 500, kBlock = 512, kPage = 4096;

  // `start` is on the disk for certain.
  explicit CrashStates(const Disk& start) {
    for (InodeId i = 0; i < start.inodes.size(); ++i) {
      File& file = at(i);
      file.is_dir = start.inodes[i].is_dir;
      file.synced = file.written = start.inodes[i].bytes;
      durable_names_[i] = start.inodes[i].names;
    }
  }

  void advance(const DiskOp& op) {
    switch (op.kind) {
      case DiskOpKind::write:
      case DiskOpKind::sync: {
        File& file = at(op.inode);
        file.written += op.bytes;
        if (op.kind == DiskOpKind::sync) file.synced = file.written;
        file.is_open = file.synced != file.written;
        file.variants.clear();
        break;
      }
      case DiskOpKind::sync_dir:
        make_certain(op.inode);
        break;
      case DiskOpKind::close:
      case DiskOpKind::note:
        break;
      default:
        for (const NameChange& c : op.names) at(std::max(c.dir, c.inode.value_or(0)));
        if (op.kind == DiskOpKind::make_dir) at(op.inode).is_dir = true;
        names_.push_back(op.names);
    }
  }

  // Calls f(digest, make) for each state: `make()` is its Disk, with the reachable inodes only; equal states
  // have equal digests, and come more than once. f returns whether to go on. Returns false when f did.
  template <class F>
  bool for_each(F&& f) {
    for (const std::vector<bool>& done : name_subsets()) {
      Names names = durable_names_;
      for (std::size_t i = 0; i < names_.size(); ++i) {
        if (done[i]) apply(names, names_[i]);
      }
      if (!for_each_content(names, f)) return false;
    }
    return true;
  }

 private:
  using Names = std::vector<std::map<std::string, InodeId>>;  // by inode
  struct Content {
    std::string bytes;
    Digest digest;
  };
  struct File {
    bool is_dir = false;
    std::string synced, written;    // what is certain; all bytes
    bool is_open = false;           // they differ
    std::vector<Content> variants;  // what it may hold; empty: to be computed
  };

  File& at(InodeId inode) {
    if (inode >= files_.size()) {
      files_.resize(inode + 1);
      durable_names_.resize(inode + 1);
    }
    return files_[inode];
  }
  static void apply(Names& names, const std::vector<NameChange>& changes) {
    for (const NameChange& c : changes) {
      if (c.inode) {
        names[c.dir][c.name] = *c.inode;
      } else {
        names[c.dir].erase(c.name);
      }
    }
  }

  static bool share_a_name(const std::vector<NameChange>& a, const std::vector<NameChange>& b) {
    for (const NameChange& x : a) {
      for (const NameChange& y : b) {
        if (x.dir == y.dir && x.name == y.name) return true;
      }
    }
    return false;
  }

  void make_certain(InodeId dir) {
    std::vector<bool> certain(names_.size());
    for (std::size_t i = names_.size(); i-- > 0;) {
      for (const NameChange& c : names_[i]) certain[i] = certain[i] || c.dir == dir;
      for (std::size_t later = i + 1; later < names_.size(); ++later)
        certain[i] = certain[i] || (certain[later] && share_a_name(names_[i], names_[later]));
    }
    std::vector<std::vector<NameChange>> left;
    for (std::size_t i = 0; i < names_.size(); ++i) {
      if (certain[i]) {
        apply(durable_names_, names_[i]);
      } else {
        left.push_back(std::move(names_[i]));
      }
    }
    names_ = std::move(left);
  }

  bool legal(const std::vector<bool>& done) const {
    for (std::size_t later = 0; later < done.size(); ++later) {
      for (std::size_t i = 0; done[later] && i < later; ++i) {
        if (!done[i] && share_a_name(names_[i], names_[later])) return false;
      }
    }
    return true;
  }

  std::vector<std::vector<bool>> name_subsets() const {
    const std::size_t n = names_.size(), last = std::min(n, kNames);
    std::vector<std::vector<bool>> all;
    for (const bool older : {true, false}) {
      for (std::size_t mask = 0; mask < std::size_t{1} << last; ++mask) {
        std::vector<bool> done(n, older);
        for (std::size_t i = 0; i < last; ++i) done[n - last + i] = (mask >> i & 1) != 0;
        all.push_back(std::move(done));
      }
      for (std::size_t i = 0; n > last && i < n; ++i) {
        std::vector<bool> done(n, older);
        done[i] = !older;
        all.push_back(std::move(done));
      }
      if (n == last) break;  // there are no older ones
    }
    std::erase_if(all, [&](const std::vector<bool>& done) { return !legal(done); });
    return all;
  }

  // What a file may hold: first all that was written, then what was synced; without repetitions.
  const std::vector<Content>& variants(InodeId inode) {
    File& file = files_[inode];
    if (!file.variants.empty()) return file.variants;
    const std::string &synced = file.synced, &whole = file.written;
    std::set<Digest> seen;
    const auto add = [&](std::string bytes) {
      const Digest digest = digest_of(std::string_view(bytes));
      if (seen.insert(digest).second) file.variants.push_back({std::move(bytes), digest});
    };
    const auto zeroed = [&](std::size_t begin, std::size_t end) {
      std::string bytes = whole;
      std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(std::max(begin, synced.size())),
                bytes.begin() + static_cast<std::ptrdiff_t>(std::min(end, whole.size())), '\0');
      add(std::move(bytes));
    };
    add(whole);
    add(synced);
    for (std::size_t b = synced.size() / kBlock * kBlock; b < whole.size(); b += kBlock) {
      if (b > synced.size()) add(whole.substr(0, b));
      zeroed(b, whole.size());
      zeroed(b, b + kBlock);
      if (b % kPage == 0) zeroed(b, b + kPage);
    }
    return file.variants;
  }

  // The tree of names: its digest, with that of files that are certain; and the files that are not.
  void walk(const Names& names, InodeId inode, Digester& digester, std::vector<InodeId>& open) {
    const File& file = files_[inode];
    digester.update(file.is_dir ? "d" : file.is_open ? "?" : "f");
    if (file.is_open) {
      open.push_back(inode);
    } else if (!file.is_dir) {
      digester.update(variants(inode).front().digest.hex());
    }
    digester.update(std::to_string(names[inode].size()) + " ");
    for (const auto& [name, below] : names[inode]) {
      digester.update(name + "/");
      walk(names, below, digester, open);
    }
  }

  // The reachable part of the disk. `contents` are those of the open files.
  InodeId copy(const Names& names, InodeId inode, const std::map<InodeId, const std::string*>& contents,
               Disk& to) const {
    const InodeId id = to.inodes.size();
    const auto content = contents.find(inode);
    to.inodes.push_back(
        {files_[inode].is_dir, content == contents.end() ? files_[inode].written : *content->second, {}});
    for (const auto& [name, below] : names[inode]) {
      const InodeId there = copy(names, below, contents, to);
      to.inodes[id].names[name] = there;
    }
    return id;
  }

  template <class F>
  bool for_each_content(const Names& names, F&& f) {
    Digester digester;
    std::vector<InodeId> open;
    walk(names, 0, digester, open);
    const std::string tree = digester.finish().hex();
    std::vector<std::size_t> sizes, chosen(open.size(), 0);
    std::size_t product = 1;
    for (const InodeId inode : open) {
      sizes.push_back(variants(inode).size());
      product = std::min(product * sizes.back(), kCombinations + 1);
    }
    const auto call = [&] {
      std::string key = tree;
      for (std::size_t i = 0; i < open.size(); ++i) key += files_[open[i]].variants[chosen[i]].digest.hex();
      return f(digest_of(std::string_view(key)), [&] {
        std::map<InodeId, const std::string*> contents;
        for (std::size_t i = 0; i < open.size(); ++i)
          contents[open[i]] = &files_[open[i]].variants[chosen[i]].bytes;
        Disk disk;
        disk.inodes.clear();
        copy(names, 0, contents, disk);
        return disk;
      });
    };
    if (product > kCombinations) return for_each_single(sizes, chosen, call);
    while (true) {
      if (!call()) return false;
      std::size_t i = 0;
      while (i < chosen.size() && ++chosen[i] == sizes[i]) chosen[i++] = 0;
      if (i == chosen.size()) return true;
    }
  }

  template <class Call>
  static bool for_each_single(const std::vector<std::size_t>& sizes, std::vector<std::size_t>& chosen,
                              const Call& call) {
    for (const std::size_t others : {std::size_t{0}, std::size_t{1}}) {
      for (std::size_t i = 0; i < sizes.size(); ++i) {
        for (std::size_t j = 0; j < sizes.size(); ++j) chosen[j] = std::min(others, sizes[j] - 1);
        for (chosen[i] = 0; chosen[i] < sizes[i]; ++chosen[i]) {
          if (!call()) return false;
        }
      }
    }
    return true;
  }

  std::vector<File> files_;                     // by inode
  Names durable_names_;                         // names that are certain
  std::vector<std::vector<NameChange>> names_;  // changes that are not, in order
};

}  // namespace varscope::testing
