#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace varscope::testing {

// One row of a table of injected failures. `cases` is text, so that a count that depends on the build can be
// left out or given as a bound ("more than 10000").
struct FailureRow {
  std::string injected;
  std::string where;
  std::string cases;
  std::string outcome;
};

// The rows as a Markdown table, in the order given.
inline std::string failure_table(const std::vector<FailureRow>& rows) {
  const auto cell = [](std::string_view text) {
    std::string escaped;
    for (const char c : text) escaped += c == '|' ? std::string("\\|") : std::string(1, c);
    return escaped;
  };
  std::string table = "| injected | where | cases | what happened |\n|---|---|---|---|\n";
  for (const FailureRow& r : rows) {
    table += fmt::format("| {} | {} | {} | {} |\n", cell(r.injected), cell(r.where), cell(r.cases),
                         cell(r.outcome));
  }
  return table;
}

// The place of a measured table in a document: what lies between the lines
//   <!-- measured: NAME -->
//   <!-- end: NAME -->
// Throws std::runtime_error when the document has not both, in this order.
struct MeasuredSection {
  std::size_t begin = 0, end = 0;

  MeasuredSection(std::string_view document, std::string_view name) {
    const std::string first = fmt::format("<!-- measured: {} -->\n", name);
    const std::string last = fmt::format("<!-- end: {} -->\n", name);
    const std::size_t at = document.find(first);
    begin = at + first.size();
    end = at == std::string_view::npos ? at : document.find(last, begin);
    if (end == std::string_view::npos)
      throw std::runtime_error(fmt::format("the document lacks the lines\n{}{}", first, last));
  }
};

// Collects the rows that the tests of one program measured. At the end of the program it prints them as a
// table and compares that with the section NAME of a document: a difference fails the program. With
// VARSCOPE_UPDATE_DOCS=1 in the environment it rewrites the section instead (one program at a time).
//   - When some tests were left out (a filter, shards), nothing is compared.
//   - When some tests skipped themselves (a tool is missing), the rows there are must be in the document.
// Use, at namespace scope of the test's one source file:
//   FailureMatrix& matrix = FailureMatrix::install("files: damage", VARSCOPE_SOURCE_DIR "/docs/failures.md");
//   ... matrix.add({"bit flip", "MANIFEST", "every byte", "rejected; the older one is used"});
// Rows stand in the order of the tests; under --gtest_shuffle the order is another one and not compared.
class FailureMatrix : public ::testing::Environment {
 public:
  // GoogleTest owns it until the end of the program.
  static FailureMatrix& install(std::string name, std::string document) {
    auto* matrix = new FailureMatrix(std::move(name), std::move(document));
    ::testing::AddGlobalTestEnvironment(matrix);
    return *matrix;
  }
  FailureMatrix(std::string name, std::string document)
      : name_(std::move(name)), document_(std::move(document)) {}

  void add(FailureRow row) { rows_.push_back(std::move(row)); }
  std::string table() const { return failure_table(rows_); }

  // "" or in what the document's section differs from the rows. `exact`: the section is these rows and
  // nothing else; otherwise it has at least these rows.
  enum class Compare : unsigned char { exact, contains };
  std::string difference(std::string_view document, Compare how) const {
    const MeasuredSection at(document, name_);
    const std::string_view there = document.substr(at.begin, at.end - at.begin);
    if (how == Compare::exact) {
      return there == table()
                 ? ""
                 : fmt::format("section \"{}\" says\n{}and this was measured:\n{}", name_, there, table());
    }
    for (const FailureRow& row : rows_) {
      const std::string one = failure_table({row});
      const std::string line = one.substr(one.rfind('\n', one.size() - 2) + 1);
      if (there.find(line) == std::string_view::npos)
        return fmt::format("section \"{}\" lacks the measured row\n{}", name_, line);
    }
    return "";
  }
  // The document with the rows in its section.
  std::string updated(std::string document) const {
    const MeasuredSection at(document, name_);
    return document.replace(at.begin, at.end - at.begin, table());
  }

  void TearDown() override {
    const ::testing::UnitTest& program = *::testing::UnitTest::GetInstance();
    std::printf("\n%s\n%s\n", name_.c_str(), table().c_str());
    // A test that failed has not measured all it should; disabled tests count in neither number.
    if (program.test_to_run_count() + program.disabled_test_count() < program.total_test_count()) return;
    if (program.failed_test_count() > 0 || GTEST_FLAG_GET(shuffle)) return;
    try {
      compare_or_update(program.skipped_test_count() > 0);
    } catch (const std::exception& e) {
      ADD_FAILURE() << document_ << ": " << e.what();
    }
  }

 private:
  void compare_or_update(bool some_skipped) const {
    std::ifstream in(document_, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    const char* update = std::getenv("VARSCOPE_UPDATE_DOCS");
    if (update != nullptr && std::string_view(update) == "1" && !some_skipped) {
      const std::string renewed = updated(text);  // may throw; the document is not open for writing yet
      std::ofstream(document_ + ".new", std::ios::binary | std::ios::trunc) << renewed;
      std::filesystem::rename(document_ + ".new", document_);
      return;
    }
    const std::string problem = difference(text, some_skipped ? Compare::contains : Compare::exact);
    EXPECT_EQ(problem, "") << document_
                           << " is not what was measured; VARSCOPE_UPDATE_DOCS=1 rewrites the section";
  }

  std::string name_, document_;
  std::vector<FailureRow> rows_;
};

}  // namespace varscope::testing
