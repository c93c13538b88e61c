#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench/figures.h"

namespace varscope::bench {

// All of a figure, and back. Throws nlohmann::json::exception for what is none.
nlohmann::json figure_json(const Figure& figure);
Figure figure_of(const nlohmann::json& json);

// The table's head, and a line of it: what, ours, what it is held against, the ratio with least and greatest,
// the target, and whether it is met. Ends the program for a figure that is none (require_positive).
std::string head_text();
std::string line_text(const Figure& figure);

// Figures that are measured together, and their targets.
template <class Options>
struct FigureGroup {
  std::vector<std::string> targets;
  Figures (*measure)(const Options&);
};

// Each once, in their order.
template <class Groups>
std::vector<std::string> all_targets(const Groups& groups) {
  std::vector<std::string> names;
  for (const auto& group : groups) {
    for (const std::string& name : group.targets) {
      if (std::ranges::find(names, name) == names.end()) names.push_back(name);
    }
  }
  return names;
}

// Measures the wanted targets, or all where none is named, and prints the table. Gives the figures as JSON.
template <class Groups, class Options>
nlohmann::json run_groups(const Groups& groups, const Options& options,
                          const std::vector<std::string>& wanted) {
  nlohmann::json all = nlohmann::json::array();
  std::puts(head_text().c_str());
  std::fflush(stdout);
  const auto is_wanted = [&](const std::string& name) {
    return wanted.empty() || std::ranges::find(wanted, name) != wanted.end();
  };
  for (const auto& group : groups) {
    if (!std::ranges::any_of(group.targets, is_wanted)) continue;
    for (const Figure& figure : group.measure(options)) {
      if (!is_wanted(figure.target)) continue;
      std::puts(line_text(figure).c_str());
      std::fflush(stdout);
      all.push_back(figure_json(figure));
    }
  }
  return all;
}

// Where this program is.
std::string own_program();

}  // namespace varscope::bench
