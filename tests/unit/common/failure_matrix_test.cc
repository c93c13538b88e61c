// The table of measured failures: its text, and that a document which says something else is found.
#include "tests/support/failure_matrix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace varscope {
namespace {

using Compare = testing::FailureMatrix::Compare;
using testing::FailureMatrix;
using ::testing::HasSubstr;

const std::string kHead = "| injected | where | cases | what happened |\n|---|---|---|---|\n";
const std::string kBefore = "# Failures\n<!-- measured: files -->\n";
const std::string kBehind = "<!-- end: files -->\n## More\n";

FailureMatrix matrix_of(std::vector<testing::FailureRow> rows) {
  FailureMatrix matrix("files", "nowhere");
  for (testing::FailureRow& row : rows) matrix.add(std::move(row));
  return matrix;
}

TEST(FailureMatrix, IsAMarkdownTable) {
  EXPECT_EQ(matrix_of({}).table(), kHead);
  EXPECT_EQ(matrix_of({{"a|b", "x", "3", "rejected"}}).table(), kHead + "| a\\|b | x | 3 | rejected |\n");
}

TEST(FailureMatrix, FindsADocumentThatSaysSomethingElse) {
  const FailureMatrix matrix = matrix_of({{"flip", "x", "3", "rejected"}, {"cut", "y", "4", "rejected"}});
  const std::string right = kHead + "| flip | x | 3 | rejected |\n| cut | y | 4 | rejected |\n";
  EXPECT_EQ(matrix.difference(kBefore + right + kBehind, Compare::exact), "");
  const std::string wrong = kHead + "| flip | x | 2 | rejected |\n| cut | y | 4 | rejected |\n";
  EXPECT_THAT(matrix.difference(kBefore + wrong + kBehind, Compare::exact),
              HasSubstr("section \"files\" says\n"));
  EXPECT_THAT(matrix.difference(kBefore + wrong + kBehind, Compare::contains),
              HasSubstr("lacks the measured row\n| flip | x | 3 | rejected |"));
}

TEST(FailureMatrix, SkippedTestsMayLeaveRowsOut) {
  const FailureMatrix matrix = matrix_of({{"cut", "y", "4", "rejected"}});
  const std::string more = kHead + "| flip | x | 3 | rejected |\n| cut | y | 4 | rejected |\n";
  EXPECT_NE(matrix.difference(kBefore + more + kBehind, Compare::exact), "");
  EXPECT_EQ(matrix.difference(kBefore + more + kBehind, Compare::contains), "");
}

TEST(FailureMatrix, RewritesItsSectionAlone) {
  const FailureMatrix matrix = matrix_of({{"cut", "y", "4", "rejected"}});
  EXPECT_EQ(matrix.updated(kBefore + "old\n" + kBehind), kBefore + matrix.table() + kBehind);
}

TEST(FailureMatrix, NeedsBothMarkers) {
  const FailureMatrix matrix = matrix_of({});
  for (const std::string& document : {std::string(), kBefore, kBehind, kBehind + kBefore})
    EXPECT_THROW(matrix.updated(document), std::runtime_error) << document;
}

}  // namespace
}  // namespace varscope
