#include <gtest/gtest.h>

#include <string>

#include "common/base/text.h"

namespace varscope {
namespace {

TEST(LastLine, IsTakenWhereItBeginsWithTheMark) {
  std::string text = "one\n#two\n#mark three\n";
  EXPECT_EQ(take_last_line(text, "#mark "), "three");
  EXPECT_EQ(text, "one\n#two\n");
  EXPECT_EQ(take_last_line(text, "#mark "), std::nullopt);
  EXPECT_EQ(text, "one\n#two\n") << "what is not taken stays";
}

TEST(LastLine, MayLackItsLineFeedAndMayBeAllThereIs) {
  std::string text = "#mark alone";
  EXPECT_EQ(take_last_line(text, "#mark "), "alone");
  EXPECT_EQ(text, "");
  EXPECT_EQ(take_last_line(text, "#mark "), std::nullopt);
  text = "\n";
  EXPECT_EQ(take_last_line(text, "#mark "), std::nullopt);
}

TEST(LastLine, IsNotThatOfALineBefore) {
  std::string text = "#mark three\nfour\n";
  EXPECT_EQ(take_last_line(text, "#mark "), std::nullopt);
}

}  // namespace
}  // namespace varscope
