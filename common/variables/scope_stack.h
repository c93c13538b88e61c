#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/variables/scope_names.h"
#include "common/variables/scope_options.h"

namespace varscope {

// The open variable scopes and name scopes of one thread. Each function that opens one returns its depth, by
// which it is closed. Throws Error(argument) on invalid names, and everywhere but in close() once scopes have
// been closed out of order ("improper nesting"). Borrows the names. Not thread-safe: the store locks.
//
// A call that throws has changed nothing.
//
// Default names are made unique by TensorFlow's counters: full path -> number of openings. Closing a scope
// that was opened by name zeroes the counters below it; closing a re-entered one puts all counters back to
// where they were just after its entry.
class ScopeStack {
 public:
  explicit ScopeStack(UniqueNames& names) : names_(&names), entries_(1) { entries_[0].state = ScopeState{}; }

  std::size_t open(std::string_view name, const ScopeOptions& options);
  // The scope "<prefix>", or "<prefix>_<i>" if it has been opened.
  std::size_t open_default(std::string_view prefix, const ScopeOptions& options);
  // By path: with the current scope's settings. By state: with those.
  std::size_t reenter(std::string_view path, const ScopeOptions& options);
  std::size_t reenter(const ScopeState& scope, const ScopeOptions& options);
  // For operations only. "" is the root; "a/b/" is exactly that one; another name is made unique inside the
  // current one.
  std::size_t open_name_scope(std::string_view name);
  void close(std::size_t depth) noexcept;

  void check_nesting() const;
  std::size_t current_depth() const;  // of the innermost variable scope
  const ScopeState& current() const { return *entries_[current_depth()].state; }
  ScopeState& at(std::size_t depth);  // REQUIRES an open variable scope
  const std::string& name_scope() const { return entries_.back().name_scope; }  // "tower4/scope"

 private:
  using Counters = std::map<std::string, int, std::less<>>;
  struct Entry {
    std::string name_scope;                        // without the last '/'
    std::optional<ScopeState> state;               // of a variable scope
    std::optional<Counters> counters_after_entry;  // of a re-entered one
  };
  std::size_t enter(ScopeState state, std::string name_scope);
  std::string enter_name_scope(std::string_view name);
  void zero_counters_below(std::string_view path) noexcept;

  UniqueNames* names_;
  std::vector<Entry> entries_;
  Counters counters_;
  bool improperly_nested_ = false;
};

}  // namespace varscope
