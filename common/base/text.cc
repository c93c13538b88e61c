#include "common/base/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "common/base/synonyms.h"

namespace varscope {

namespace {

// A word this long is not a misspelling of anything, and the table below is quadratic.
constexpr std::size_t kMaxWord = 64;

std::string folded(std::string_view word) {
  std::string out(word);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '-') c = '_';
  }
  return out;
}

}  // namespace

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // Optimal string alignment; rows i-2, i-1 and i of the table.
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  if (word.size() > kMaxWord) return {};
  if (std::string same = synonym_of(word, candidates); !same.empty()) return same;
  const std::string wanted = folded(word);
  std::string best;
  std::size_t best_distance = kMaxWord;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(wanted, folded(candidate));
    const std::size_t allowed = std::max(word.size(), candidate.size()) / 3;
    if (distance <= allowed && distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string near = nearest(word, candidates);
  return near.empty() ? "" : "; did you mean \"" + near + "\"?";
}

std::optional<std::string> take_last_line(std::string& text, std::string_view mark) {
  const std::size_t end = text.ends_with('\n') ? text.size() - 1 : text.size();
  const std::size_t before = end == 0 ? std::string::npos : text.rfind('\n', end - 1);
  const std::size_t begin = before == std::string::npos ? 0 : before + 1;
  if (!std::string_view(text).substr(begin, end - begin).starts_with(mark)) return std::nullopt;
  std::string rest = text.substr(begin + mark.size(), end - begin - mark.size());
  text.resize(begin);
  return rest;
}

std::string comma_list(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) {
    if (!out.empty()) out += ", ";
    out += word;
  }
  return out;
}

std::string counted(std::int64_t n, std::string_view what) {
  return with_commas(n) + " " + std::string(what) + (n == 1 ? "" : "s");
}

std::string with_commas(std::int64_t n) {
  std::string s = std::to_string(n);
  for (int i = static_cast<int>(s.size()) - 3; i > (n < 0 ? 1 : 0); i -= 3)
    s.insert(static_cast<std::size_t>(i), ",");
  return s;
}

std::string duration_text(double seconds) {
  seconds = std::max(0.0, seconds);  // 0 for NaN too
  constexpr double kMostHours = 1e5;
  if (seconds >= kMostHours * 3600) return fmt::format("{:.3g} hours", seconds / 3600);
  const auto s = static_cast<std::int64_t>(std::llround(seconds));
  if (s >= 3600) return fmt::format("{}h {:02}m", s / 3600, s % 3600 / 60);
  if (s >= 60) return fmt::format("{}m {:02}s", s / 60, s % 60);
  return seconds < 10 ? fmt::format("{:.1f} s", seconds) : fmt::format("{} s", s);
}

std::string bytes_text(std::int64_t n) {
  const auto d = static_cast<double>(n);
  if (n < 1024) return fmt::format("{} B", n);
  if (n < (1 << 20)) return fmt::format("{:.1f} KiB", d / 1024);
  if (n < (std::int64_t{1} << 30)) return fmt::format("{:.1f} MiB", d / (1 << 20));
  return fmt::format("{:.2f} GiB", d / static_cast<double>(std::int64_t{1} << 30));
}

}  // namespace varscope
