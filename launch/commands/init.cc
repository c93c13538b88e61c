#include "launch/commands/init.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/figures.h"
#include "common/base/text.h"
#include "worker/data/column_profile.h"
#include "worker/data/csv_reader.h"

namespace varscope {
namespace {

constexpr std::int64_t kFewRows = 50;           // fewer are not parted
constexpr std::int64_t kMostClasses = 20;       // of a label of whole numbers
constexpr std::int64_t kMostVocabulary = 1000;  // of a column; above it words are hashed
constexpr std::int64_t kHashBuckets = 1000;
constexpr std::int64_t kHidden = 32;

// As the config reader takes it back for the same text.
std::string quoted(const std::string& text) {
  constexpr std::array kWords = {"true", "false", "yes", "no", "on", "off", "null", "none"};
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  const bool simple = !text.empty() && letter(text[0]) && std::ranges::all_of(text, [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '/';
  });
  std::string lower = text;
  std::ranges::transform(lower, lower.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
  if (simple && std::ranges::find(kWords, lower) == kWords.end() && text.find("..") == std::string::npos)
    return text;
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\x{:02X}", c);
    } else {
      out += c;
    }
  }
  return out + "\"";
}

// A cell or a name inside a comment.
std::string plain(const std::string& text) {
  std::string out;
  for (const char c : text.substr(0, 30)) out += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  return out + (text.size() > 30 ? "..." : "");
}

std::string number(double x) {
  return std::abs(x) >= 1e4 && std::abs(x) < 1e15 ? fmt::format("{:.0f}", x) : short_number(x, 4);
}

std::string job_name(const std::string& file) {
  std::string name = std::filesystem::path(file).filename().string();
  name = name.substr(0, name.find('.', 1));
  for (char& c : name) {
    const bool valid = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    if (!valid) c = '_';
  }
  return name.empty() ? "table" : name;
}

// A header is a first line in which no cell is a number or missing.
bool first_line_is_header(const std::string& file, char delimiter, const std::string& label) {
  CsvReader reader(file, delimiter);
  CsvRecord record;
  if (!reader.next(record)) fail(ErrorKind::data, "{}: has no records", file);
  bool all_are_words = true;
  for (const std::string_view cell : record.cells) {
    if (cell == label && !number_in(label)) return true;
    all_are_words = all_are_words && !number_in(cell) && !is_missing_cell(cell);
  }
  return all_are_words;
}

class Guess {
 public:
  explicit Guess(const InitOptions& options) : options_(options) {
    if (!std::filesystem::exists(options.file)) fail(ErrorKind::data, "{}: no such file", options.file);
    delimiter_ = guess_delimiter(options.file);
    if (!options.delimiter.empty())
      delimiter_ = options.delimiter == "tab" || options.delimiter == "\\t" ? '\t' : options.delimiter[0];
    has_header_ = first_line_is_header(options.file, delimiter_, options.label);
    const std::vector<std::filesystem::path> files{options.file};
    table_ = profile_table(files, delimiter_, ConfigNode::plain(has_header_ ? "true" : "false"));
    if (table_.rows == 0)
      fail(ErrorKind::data, "{}: has no rows; is there more than a header?", options.file);
    find_label();
    for (std::size_t i = 0; i < table_.columns.size(); ++i) {
      if (i != label_) sort(i);
    }
    if (numbers_.empty() && gaps_.empty() && words_.empty() && hashed_.empty()) {
      fail(ErrorKind::data, "{}: beside the label no column says anything: {}", options.file,
           comma_list(left_out_));
    }
  }

  std::string text() const { return head() + data() + model() + tail(); }

 private:
  const ColumnProfile& label() const { return table_.columns[label_]; }

  void find_label() {
    std::vector<std::string> names;
    names.reserve(table_.columns.size());
    for (const ColumnProfile& c : table_.columns) names.push_back(c.name);
    const auto fail_label = [&](const std::string& why) {
      if (names.size() > 20) names.resize(20), names.emplace_back("...");
      fail(ErrorKind::config, "{}; {} has the columns {}", why, options_.file,
           has_header_ ? comma_list(names) : fmt::format("0 to {}", table_.columns.size() - 1));
    };
    if (options_.label.empty()) fail_label("--label NAME says which column is the answer");
    const auto found = std::ranges::find(names, options_.label);
    label_ = static_cast<std::size_t>(found - names.begin());
    std::int64_t index = 0;
    if (found == names.end() && parse_number(options_.label, index) && index >= 0 &&
        index < std::ssize(table_.columns))
      label_ = static_cast<std::size_t>(index);
    if (label_ == names.size())
      fail_label(
          fmt::format("--label {}: no such column{}", options_.label, did_you_mean(options_.label, names)));
    const ColumnProfile& c = label();
    const auto n_different = std::ssize(c.counts);
    is_class_ = !c.is_number() || (c.is_whole && !c.has_more && n_different <= kMostClasses &&
                                   (n_different <= 2 || n_different * 5 <= c.n));
    if (c.counts.size() < 2)
      fail(ErrorKind::data, "--label {}: all rows say the same: there is nothing to learn", options_.label);
    if (is_class_ && (c.has_more || n_different * 2 > c.n)) {
      fail(ErrorKind::data, "--label {}: {} different words in {} rows are no classes; name another column",
           options_.label,
           c.has_more ? "more than " + with_commas(ColumnProfile::kMostCounted) : with_commas(n_different),
           with_commas(c.n));
    }
  }

  // Into the input that it goes to.
  void sort(std::size_t i) {
    const ColumnProfile& c = table_.columns[i];
    const auto leave_out = [&](const std::string& why) {
      left_out_.push_back(fmt::format("{} ({})", plain(c.name), why));
    };
    const auto n_different = std::ssize(c.counts);
    if (n_different == 0) return leave_out("no row has a value");
    if (n_different == 1 && !c.has_more && c.missing == 0) return leave_out("the same in all rows");
    if (c.is_number()) {
      if (c.is_whole && c.counts_up && c.n > 2) return leave_out("numbers of rows");
      (c.missing > 0 ? gaps_ : numbers_).push_back(i);
      return;
    }
    if (c.has_more || n_different * 2 > c.n)
      return leave_out(fmt::format("{}{} different words in {} rows: an id or a text",
                                   c.has_more ? "more than " : "", with_commas(n_different),
                                   with_commas(c.n)));
    (n_different > kMostVocabulary ? hashed_ : words_).push_back(i);
  }

  std::string head() const {
    std::string text = fmt::format(
        "# Made by `varscope init {} --label {}`: {} rows, {} columns. What is guessed wrong, change.\n"
        "#   varscope data show job.yaml    # what the model will see\n"
        "#   varscope train job.yaml\n",
        options_.file, options_.label, with_commas(table_.rows), table_.columns.size());
    return text + fmt::format("job:\n  name: {}\n", job_name(options_.file));
  }

  std::string column_name(std::size_t i) const {
    return has_header_ ? quoted(table_.columns[i].name) : std::to_string(i);
  }

  std::string source_keys() const {
    std::string text = fmt::format("    files: {}\n", quoted(options_.file));
    if (delimiter_ != ',')
      text +=
          fmt::format("    delimiter: {}\n", delimiter_ == '\t' ? "tab" : quoted(std::string(1, delimiter_)));
    if (!has_header_)
      text += "    header: false                # the first line is a row; columns count from 0\n";
    const std::int64_t bad = table_.left_out + label().missing;
    if (bad > 0) {
      const double share =
          std::ceil(100.0 * static_cast<double>(bad) / static_cast<double>(table_.rows)) / 100;
      text += fmt::format(
          "    bad_records: skip            # {} rows without a label, {} with another number of cells\n"
          "    max_bad_share: {}\n",
          label().missing, table_.left_out, short_number(std::min(1.0, share + 0.01)));
    }
    return text;
  }

  std::string label_comment() const {
    const ColumnProfile& c = label();
    if (!is_class_) {
      return fmt::format("a number: {} to {}, mean {}{}", number(c.least), number(c.greatest), number(c.mean),
                         c.is_whole ? "; type: class, if these are classes" : "");
    }
    std::string text = fmt::format("{} classes:", c.counts.size());
    std::size_t shown = 0;
    for (const auto& [name, n] : c.frequent()) {
      if (++shown > 6) return text + " ...";
      text += fmt::format("{} {} {}", shown == 1 ? "" : ",", plain(name), with_commas(n));
    }
    return text + (c.is_number() ? "; type: number, if these are amounts" : "");
  }

  static std::string comment(const ColumnProfile& c) {
    std::string text;
    if (c.is_number()) {
      text = fmt::format("{} to {}, mean {}", number(c.least), number(c.greatest), number(c.mean));
      if (!c.has_more && c.counts.size() <= 5)
        text += fmt::format("; only {} different: a category?", c.counts.size());
    } else {
      text = fmt::format("{} words:", with_commas(std::ssize(c.counts)));
      std::size_t shown = 0;
      for (const auto& [name, n] : c.frequent()) {
        if (++shown > 3) break;
        text += fmt::format("{} {} {}", shown == 1 ? "" : ",", plain(name), with_commas(n));
      }
      if (c.counts.size() > 3) text += ", ...";
      if (c.numbers > 0) text += fmt::format("; {} cells are numbers", with_commas(c.numbers));
    }
    if (c.missing > 0) text += fmt::format("; missing in {}", with_commas(c.missing));
    return text;
  }

  std::string input(const char* name, const std::vector<std::size_t>& columns,
                    const std::string& keys) const {
    if (columns.empty()) return "";
    std::string text = fmt::format("        {}:\n          columns:\n", name);
    for (const std::size_t i : columns)
      text += fmt::format("            - {:<18} # {}\n", column_name(i), comment(table_.columns[i]));
    return text + keys;
  }

  std::int64_t vocabulary() const {
    std::int64_t most = 0;
    for (const std::size_t i : words_) most = std::max(most, std::ssize(table_.columns[i].counts));
    return most + 2;  // a missing word, and any other
  }

  std::string data() const {
    std::string text = "data:\n  train:\n    type: csv\n" + source_keys();
    text += fmt::format("    schema:\n      label: {{column: {}{}}}  # {}\n      features:\n",
                        column_name(label_), is_class_ ? "" : ", type: number", label_comment());
    text += input("numbers", numbers_, "          transform: standardize   # mean 0, deviation 1\n");
    text += input("gaps", gaps_,
                  "          missing: mean\n"
                  "          indicator: true          # a column beside each that says where it was missing\n"
                  "          transform: standardize\n");
    text += input("words", words_, fmt::format("          vocabulary: {{size: {}}}\n", vocabulary()));
    text += input("hashed", hashed_,
                  fmt::format("          hash: {}               # of each column\n", kHashBuckets));
    for (const std::string& c : left_out_) text += "        # left out: " + c + "\n";
    if (table_.rows >= kFewRows) {
      text +=
          "  # A fifth of the rows, the same in every run, is not trained on: the figures are of rows that the model has "
          "not seen.\n  split: {test: 0.2}\n";
    } else {
      text +=
          "  # The rows that are trained on, as there are few: the figures say how well the model fits them, not how well "
          "it answers others.\n  test:\n    type: csv\n" +
          source_keys();
    }
    return text;
  }

  // A power of 2 near the fourth root of the words.
  static std::int64_t embedding_units(std::int64_t n) {
    return std::clamp<std::int64_t>(std::llround(std::pow(2, std::round(std::log2(std::sqrt(n)) / 1.5))), 2,
                                    16);
  }

  std::string embedding(const char* input, std::int64_t n_ids) const {
    return fmt::format(
        "    - {{type: embedding, scope: {0}_table, input: {0}, vocabulary: {1}, units: {2}}}\n"
        "    - {{type: flatten, name: {0}_vector}}\n",
        input, n_ids, embedding_units(n_ids));
  }

  std::string model() const {
    std::string text = "model:\n  layers:\n";
    std::vector<std::string> parts;
    if (!numbers_.empty()) parts.emplace_back("numbers");
    if (!gaps_.empty()) parts.emplace_back("gaps");
    if (!words_.empty()) {
      std::int64_t n = 0;
      for (const std::size_t i : words_)
        n += std::min<std::int64_t>(vocabulary(), std::ssize(table_.columns[i].counts) + 2);
      text += embedding("words", n);
      parts.emplace_back("words_vector");
    }
    if (!hashed_.empty()) {
      text += embedding("hashed", kHashBuckets * std::ssize(hashed_));
      parts.emplace_back("hashed_vector");
    }
    std::string in;
    if (parts.size() > 1) {
      text += fmt::format("    - {{type: concat, inputs: [{}]}}\n", comma_list(parts));
    } else if (parts.front() == "numbers" || parts.front() == "gaps") {
      in = ", input: " + parts.front();
    }
    text +=
        fmt::format("    - {{type: dense, scope: hidden1{}, units: {}, activation: relu}}\n", in, kHidden);
    text += fmt::format("    - {{type: dense, scope: hidden2, units: {}, activation: relu}}\n", kHidden);
    return text + last_layer();
  }

  std::string last_layer() const {
    const ColumnProfile& c = label();
    if (is_class_ && c.counts.size() == 2)
      return "    - {type: dense, scope: output, units: 1}\n  loss: sigmoid_cross_entropy\n";
    if (is_class_) {
      return fmt::format("    - {{type: dense, scope: output, units: {}}}\n  loss: softmax_cross_entropy\n",
                         c.counts.size());
    }
    // Answers begin at the mean and on the scale of the label, whatever it is: a step of adam is the same
    // for all values.
    const double deviation = c.deviation() > 0 ? c.deviation() : 1;
    return fmt::format(
        "    # The answers begin around the label's mean, {}, on the scale of its deviation, {}.\n"
        "    - {{type: dense, scope: output, units: 1, initializer: {{type: normal, stddev: {}}},\n"
        "       bias_initializer: {{type: constant, value: {}}}}}\n"
        "  loss: mean_squared_error\n",
        number(c.mean), number(deviation), number(deviation / std::sqrt(static_cast<double>(kHidden))),
        number(c.mean));
  }

  // Some 2000 steps, as far as the rows are few.
  std::string tail() const {
    const std::int64_t batch = table_.rows < 256 ? 16 : table_.rows < 20'000 ? 32 : 128;
    const std::int64_t epochs = std::clamp<std::int64_t>(2000 * batch / table_.rows, 3, 100);
    const char* metrics = !is_class_                   ? "rmse, mae, r2"
                          : label().counts.size() == 2 ? "accuracy, auc"
                                                       : "accuracy, log_loss";
    return fmt::format(
        "optimizer: {{type: adam, learning_rate: 0.005}}\n"
        "train:\n  batch: {}\n  epochs: {}\n  eval_every_epochs: {}\n  metrics: [{}]\n",
        batch, epochs, std::max<std::int64_t>(1, epochs / 10), metrics);
  }

  const InitOptions& options_;
  char delimiter_ = ',';
  bool has_header_ = true;
  TableProfile table_;
  std::size_t label_ = 0;
  bool is_class_ = true;
  std::vector<std::size_t> numbers_, gaps_, words_, hashed_;
  std::vector<std::string> left_out_;
};

}  // namespace

std::string init_config(const InitOptions& options) { return Guess(options).text(); }

}  // namespace varscope
