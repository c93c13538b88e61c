#include "worker/data/find_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/config/source_keys.h"

namespace varscope {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class FindFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("find_files." + std::to_string(::getpid()));
    for (const char* folder : {"config", "data"}) fs::create_directories(root_ / folder);
    folders_ = {root_ / "config", root_ / "data"};
  }
  void TearDown() override { fs::remove_all(root_); }
  void touch(const std::string& file) const { std::ofstream(root_ / file) << "x\n"; }
  // The files of a table, as they are found.
  std::vector<std::string> found(ConfigNode files, MissingFile missing = MissingFile::is_error) const {
    CsvSource csv;
    csv.files = std::move(files);
    const DataSourceConfig source = find_files(DataSourceConfig("csv", csv), folders_, missing);
    const ConfigNode& node = source.get<CsvSource>()->files;
    std::vector<std::string> texts;
    if (node.is_scalar()) texts.push_back(node.scalar);
    for (const ConfigNode& item : node.items) texts.push_back(item.scalar);
    return texts;
  }
  std::vector<std::string> found(const std::string& file) const { return found(ConfigNode::text(file)); }

  fs::path root_;
  std::array<fs::path, 2> folders_;
};

TEST_F(FindFiles, LooksBesideTheConfigFirst) {
  touch("config/a.csv"), touch("data/a.csv"), touch("data/b.csv"), touch("data/part-1.csv");
  EXPECT_EQ(found("a.csv").front(), root_ / "config/a.csv");
  EXPECT_EQ(found("b.csv").front(), root_ / "data/b.csv");
  EXPECT_EQ(found("part-*.csv").front(), root_ / "data/part-*.csv");
  EXPECT_EQ(found("/absolute/none.csv").front(), "/absolute/none.csv");
  ConfigNode list = ConfigNode::list();
  list.items = {ConfigNode::text("b.csv"), ConfigNode::text("a.csv")};
  EXPECT_EQ(found(list), (std::vector<std::string>{root_ / "data/b.csv", root_ / "config/a.csv"}));
}

TEST_F(FindFiles, NamesBothPlacesOfWhatIsInNeither) {
  try {
    found("none.csv");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::data);
    EXPECT_THAT(e.what(), AllOf(HasSubstr("files: none.csv: no such file"),
                                HasSubstr((root_ / "config/none.csv").string() + " and " +
                                          (root_ / "data/none.csv").string()),
                                HasSubstr("VARSCOPE_DATA")));
  }
  EXPECT_EQ(found(ConfigNode::text("none.csv"), MissingFile::stays).front(), "none.csv");
}

TEST_F(FindFiles, LooksForTheFilesOfEverySource) {
  touch("config/i"), touch("data/l"), touch("data/t");
  IdxSource idx;
  idx.images = "i", idx.labels = "l";
  const DataSourceConfig images = find_files(DataSourceConfig("idx", idx), folders_, MissingFile::is_error);
  EXPECT_EQ(images.get<IdxSource>()->images, root_ / "config/i");
  EXPECT_EQ(images.get<IdxSource>()->labels, root_ / "data/l");
  TextSource text;
  text.file = "t";
  EXPECT_EQ(
      find_files(DataSourceConfig("text", text), folders_, MissingFile::is_error).get<TextSource>()->file,
      root_ / "data/t");
}

}  // namespace
}  // namespace varscope
