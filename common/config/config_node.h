#pragma once

#include <cstdint>
#include <source_location>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/error.h"
#include "common/base/hash.h"

namespace varscope {

// Where a node or a key was written. A file position (1-based; the column counts bytes) unless `origin` names
// another source, such as "--set train.epochs=3". Line 0 is "nowhere": a node made by the program.
struct Mark {
  std::int32_t line = 0;
  std::int32_t column = 0;
  std::string origin;
};

// "job.yaml:12:3: ", "--set train.epochs=3: ", or "job.yaml: " when the mark has no line: what an error
// message begins with.
std::string position_of(const Mark& mark, std::string_view file);

struct ConfigEntry;

// A YAML value: null, a scalar (kept as the text that was written), a list or a map in the order of the file.
// The only form in which a configuration travels through the program; the YAML library is met in
// yaml_reader.cc alone. A plain value type. Two nodes are equal when they mean the same: marks, the order of
// a map, and quotes around a text that could not be anything but a string do not count.
struct ConfigNode {
  enum class Kind : std::uint8_t { null = 0, scalar = 1, list = 2, map = 3 };

  // Bounds on every tree that comes from outside, so that nobody's recursion and nobody's memory runs away.
  static constexpr int kMaxDepth = 64;
  static constexpr std::size_t kMaxNodes = 100000;
  static constexpr std::size_t kMaxBytes = std::size_t{16} << 20;  // of text in scalars and keys

  Kind kind = Kind::null;
  bool quoted = false;  // the scalar stood in quotes (or in a block): it is a string whatever it looks like
  std::string scalar;
  std::vector<ConfigNode> items;     // list
  std::vector<ConfigEntry> entries;  // map; keys are unique
  Mark mark;

  static ConfigNode text(std::string value);   // a scalar that is a string
  static ConfigNode plain(std::string value);  // a scalar as if written without quotes: 3, true, sgd
  static ConfigNode list();
  static ConfigNode list(std::vector<ConfigNode> items);
  static ConfigNode map();

  bool is_null() const { return kind == Kind::null; }
  bool is_scalar() const { return kind == Kind::scalar; }
  bool is_list() const { return kind == Kind::list; }
  bool is_map() const { return kind == Kind::map; }

  // The entry of a map, or null; null also when this is not a map.
  const ConfigEntry* find_entry(std::string_view key) const;
  ConfigEntry* find_entry(std::string_view key);
  const ConfigNode* find(std::string_view key) const;
  // The node at "model.layers.0.units", or null.
  const ConfigNode* find_path(std::string_view dotted) const;
  // Appends to a map. REQUIRES: the key is not there.
  ConfigNode& add(std::string key, ConfigNode value, Mark key_mark = {});

  // What this is, for messages: `a list`, `"3x"`, `nothing`.
  std::string describe() const;

  // One text per meaning: map keys sorted, no positions, quotes normalised. For hashing and comparing.
  std::string to_canonical() const;
  // Block-style YAML that reads back as an equal node; ends with a newline.
  std::string to_yaml() const;

  friend bool operator==(const ConfigNode& a, const ConfigNode& b) {
    return a.to_canonical() == b.to_canonical();
  }

  // With any Boost archive. Loading throws Error(protocol) for a tree beyond the bounds above.
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    Budget budget;
    transfer(ar, 1, budget);
  }

 private:
  struct Budget {
    std::size_t n_nodes = 0;
  };
  template <class Archive>
  void transfer(Archive& ar, int depth, Budget& budget);
};

struct ConfigEntry {
  std::string key;
  Mark key_mark;
  ConfigNode value;
};

// The hash of a configuration's meaning: equal for equal trees, whatever the file name, comments and layout.
Digest config_hash(const ConfigNode& root);

// Throws Error(config) "job.yaml:12:5: model.layers.0.units: text" at the position of a node. An empty path
// is left out.
[[noreturn]] void fail_at(const ConfigNode& node, std::string_view file, std::string_view path,
                          std::string_view text,
                          std::source_location where = std::source_location::current());
[[noreturn]] void fail_at(const Mark& mark, std::string_view file, std::string_view path,
                          std::string_view text,
                          std::source_location where = std::source_location::current());

// "train" + "epochs" = "train.epochs"; an empty prefix adds no dot.
std::string join_keys(std::string_view prefix, std::string_view name);

// The strict reading of numbers, shared by the binder and the canonical text: all of the text, decimal,
// finite. False when the text is not such a number or does not fit.
bool parse_number(std::string_view text, std::int64_t& value);
bool parse_number(std::string_view text, double& value);

template <class Archive>
void ConfigNode::transfer(Archive& ar, int depth, Budget& budget) {
  if (depth > kMaxDepth || ++budget.n_nodes > kMaxNodes) {
    fail(ErrorKind::protocol, "a configuration tree is larger than allowed (depth {}, {} nodes)", kMaxDepth,
         kMaxNodes);
  }
  auto kind_code = static_cast<std::uint8_t>(kind);
  std::uint64_t n_children = kind == Kind::map ? entries.size() : items.size();
  ar& kind_code& quoted& scalar& mark.line& mark.column& mark.origin& n_children;
  if constexpr (Archive::is_loading::value) {
    if (kind_code > static_cast<std::uint8_t>(Kind::map) || n_children > kMaxNodes) {
      fail(ErrorKind::protocol, "a configuration tree is malformed (kind {}, {} children)", kind_code,
           n_children);
    }
    kind = static_cast<Kind>(kind_code);
    items.clear();
    entries.clear();
  }
  for (std::uint64_t i = 0; i < n_children; ++i) {
    // Grown one by one: a lying count costs no memory.
    if (kind == Kind::map) {
      if constexpr (Archive::is_loading::value) entries.emplace_back();
      ConfigEntry& e = entries[i];
      ar& e.key& e.key_mark.line& e.key_mark.column& e.key_mark.origin;
      e.value.transfer(ar, depth + 1, budget);
    } else {
      if constexpr (Archive::is_loading::value) items.emplace_back();
      items[i].transfer(ar, depth + 1, budget);
    }
  }
}

}  // namespace varscope
