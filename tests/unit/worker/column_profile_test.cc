#include "worker/data/column_profile.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

namespace varscope {
namespace {

class Profile : public ::testing::Test {
 protected:
  void SetUp() override {
    file_ = std::filesystem::temp_directory_path() / ("profile." + std::to_string(::getpid()));
  }
  void TearDown() override { std::filesystem::remove(file_); }
  TableProfile of(const std::string& text, char delimiter = ',', const char* header = "true") const {
    std::ofstream(file_) << text;
    const std::vector<std::filesystem::path> files{file_};
    return profile_table(files, delimiter, ConfigNode::plain(header));
  }
  std::filesystem::path file_;
};

TEST_F(Profile, TellsNumbersWordsAndWhatIsMissing) {
  const TableProfile t = of("id,a,b,w\n1,2.5,,x\n2,0.5,NA,y\n3,3,7,x\n4,2,9,\n5,2\n");
  EXPECT_EQ(t.rows, 4);
  EXPECT_EQ(t.left_out, 1) << "of another number of cells";
  ASSERT_EQ(t.columns.size(), 4U);
  const ColumnProfile &id = t.columns[0], &a = t.columns[1], &b = t.columns[2], &w = t.columns[3];
  EXPECT_TRUE(id.counts_up && id.is_whole && id.is_number());
  EXPECT_FALSE(a.counts_up || a.is_whole);
  EXPECT_EQ(a.least, 0.5);
  EXPECT_EQ(a.greatest, 3);
  EXPECT_DOUBLE_EQ(a.mean, 2);
  EXPECT_DOUBLE_EQ(a.deviation(), std::sqrt((0.25 + 2.25 + 1 + 0) / 4));
  EXPECT_TRUE(b.is_number());
  EXPECT_EQ(b.missing, 2);
  EXPECT_DOUBLE_EQ(b.mean, 8);
  EXPECT_FALSE(w.is_number());
  EXPECT_EQ(w.missing, 1);
  EXPECT_EQ(w.frequent().front(), std::pair(std::string("x"), std::int64_t{2}));
}

TEST_F(Profile, ColumnsWithoutNamesAreCalledByNumber) {
  const TableProfile t = of("1;2\n3;4\n", ';', "false");
  EXPECT_EQ(t.rows, 2);
  EXPECT_EQ(t.columns[1].name, "column 1");
  EXPECT_EQ(guess_delimiter(file_), ';');
  of("a\tb,c\td\n");
  EXPECT_EQ(guess_delimiter(file_), '\t');
  of("a b\n");
  EXPECT_EQ(guess_delimiter(file_), ',');
}

TEST_F(Profile, CountsDifferentCellsUpToABound) {
  std::string text = "n\n";
  for (std::size_t i = 0; i < ColumnProfile::kMostCounted + 5; ++i) text += std::to_string(i * 3) + "\n";
  const TableProfile t = of(text);
  EXPECT_TRUE(t.columns[0].has_more);
  EXPECT_EQ(t.columns[0].counts.size(), ColumnProfile::kMostCounted);
}

}  // namespace
}  // namespace varscope
