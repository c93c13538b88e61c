// Tables that are kept once their text is read: the same table, and made anew whenever it would not be.
#include "worker/data/table_cache.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <atomic>
#include <fstream>
#include <mutex>
#include <random>
#include <sstream>
#include <thread>

#include "tests/support/case_stride.h"
#include "tests/support/references/source_test.h"
#include "tests/support/thrown.h"
#include "worker/data/csv.h"
#include "worker/data/table_builder.h"

namespace varscope {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::thrown;

// Every kind of column: numbers with and without values, words by vocabulary and by hash, crosses, bags with
// weights, weights of rows, records that are left out.
constexpr const char* kEverything =
    "files: a.csv, bad_records: skip, max_bad_share: 1, schema: {label: {column: y}, weight: {column: w}, "
    "features: {"
    "n: {columns: [a, b], missing: mean, indicator: true, transform: [log1p, standardize]}, "
    "v: {columns: c, vocabulary: {size: 3}}, h: {columns: c, hash: 5}, k: {cross: [c, d], hash: 7}, "
    "g: {columns: t, split: '|', weights: true, vocabulary: {}}}}";

std::string everything(int rows) {
  std::string text = "a,b,c,d,t,w,y\n";
  const char* const words[] = {"x", "y", "z", "u"};
  for (int i = 0; i < rows; ++i) {
    text +=
        fmt::format("{},{},{},{},{}:0.5|{},{},{}\n", i % 7 == 0 ? "" : std::to_string(i), i * 0.25,
                    words[i % 4], words[i % 3], words[i % 2], words[i % 4], i % 5, i % 2 == 0 ? "no" : "yes");
  }
  return text + "bad\n";
}

class TableCache : public testing::SourceTest {
 protected:
  TableCache() : SourceTest("type: csv, ") { lines.clear(); }

  SourceContext context(std::int64_t least_bytes = 0) {
    return {.root = dir_,
            .cache = {.folder = dir_ / "cache", .least_bytes = least_bytes},
            .tell = [this](const std::string& line) { lines.push_back(line); }};
  }
  std::unique_ptr<Dataset> open_kept(const std::string& keys) {
    return open_source(config(keys).train, context());
  }
  // The one folder of a table.
  fs::path kept() const {
    fs::path found;
    for (const auto& entry : fs::directory_iterator(dir_ / "cache")) {
      if (entry.is_directory()) found = entry.path();
    }
    return found;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& entry : fs::directory_iterator(dir_ / "cache"))
      all.push_back(entry.path().filename().string());
    return all;
  }
  // Opens a table of two columns, and counts how often its text is read.
  std::unique_ptr<TableDataset> open_counting() {
    const DataSourceConfig source = config("files: a.csv, schema: {label: {column: y}}").train;
    return open_table({"keys", {dir_ / "a.csv"}}, context(), [&](const fs::path& folder) {
      ++n_read;
      SourceContext plain{.root = dir_};
      TableBuilder builder(
          resolve_schema(*source.get<CsvSource>()->schema, std::vector<std::string>{"x", "y"}), false,
          TableBuilder::WithoutWeight::left_out, folder);
      std::ifstream in(dir_ / "a.csv");
      std::string line;
      while (std::getline(in, line)) {
        const std::size_t comma = line.find(',');
        const std::string x = line.substr(0, comma), y = line.substr(comma + 1);
        builder.add(std::vector<std::string_view>{x, y});
      }
      return builder.build({}, {});
    });
  }

  std::vector<std::string> lines;  // that were told
  std::atomic<int> n_read = 0;
};

TEST_F(TableCache, KeepsTheTableThatTheTextGives) {
  write("a.csv", everything(300));
  const auto read = open(kEverything);
  const auto made = open_kept(kEverything), mapped = open_kept(kEverything);
  for (const Dataset* data : {made.get(), mapped.get()}) {
    EXPECT_EQ(data->identity(), read->identity());
    EXPECT_EQ(data->schema(), read->schema());
    EXPECT_EQ(data->inputs(), read->inputs());
    EXPECT_EQ(data->warnings(), read->warnings());
    EXPECT_EQ(data->left_out().first, read->left_out().first);
    EXPECT_EQ(data->unknown_words().n, read->unknown_words().n);
    EXPECT_EQ(data->unknown_words().of, read->unknown_words().of);
    EXPECT_EQ(data->files(), read->files());
    EXPECT_EQ(data->class_names(), read->class_names());
    EXPECT_EQ(data->weights().size(), read->weights().size());
    for (std::size_t input = 0; input <= read->inputs().size(); ++input)
      EXPECT_EQ(all(*data, input), all(*read, input)) << input;
  }
  EXPECT_GT(read->n_bytes(), 0);
  EXPECT_EQ(mapped->n_bytes(), 0);
  EXPECT_THAT(lines, IsEmpty());
}

TEST_F(TableCache, OfLibsvmToo) {
  std::string text, weights;
  for (int i = 0; i < 100; ++i) {
    text += fmt::format("{} {}:{} {}:1\n", i % 3, 1 + i % 5, i * 0.5, 6 + i % 4);
    weights += fmt::format("{}\n", i % 4);
  }
  write("a.svm", text);
  write("a.weights", weights);
  for (const char* more : {"", ", bags: true", ", label: number"}) {
    DataConfig data =
        parse_job(read_yaml_text(fmt::format("job: {{name: t}}\ndata: {{train: {{type: libsvm, files: "
                                             "a.svm, weights: a.weights{}}}}}\nmodel: {{loss: "
                                             "softmax_cross_entropy, layers: [{{type: dense, "
                                             "units: 2}}]}}\n",
                                             more),
                                 "job.yaml"),
                  "job.yaml")
            .data;
    const auto read = open_source(data.train, {.root = dir_});
    open_source(data.train, context());
    const auto mapped = open_source(data.train, context());
    EXPECT_EQ(mapped->identity(), read->identity()) << more;
    EXPECT_EQ(read->size(), 75);
    for (std::size_t input = 0; input <= read->inputs().size(); ++input)
      EXPECT_EQ(all(*mapped, input), all(*read, input)) << more;
  }
}

// A table that an older program has kept is another one when its text would be read in another way today:
// whoever changes these bytes raises kTableFormat.
TEST_F(TableCache, TheFormatSaysWhatATextBecomes) {
  write("a.csv", everything(40));
  EXPECT_EQ(kTableFormat, 1);
  EXPECT_EQ(open(kEverything)->content().hex(), "a7b5a055c48f619ab028bd95e8a6d6c3");
}

TEST_F(TableCache, OfRecordsThatAreNoTextToo) {
  write("a.csv", "a,y\n1,u\n\xe9,u\n3,v\n");
  const std::string keys = "files: a.csv, bad_records: skip, max_bad_share: 1, schema: {label: {column: y}}";
  EXPECT_EQ(open_kept(keys)->left_out().n, 1);
  const auto kept = open_kept(keys);
  EXPECT_EQ(kept->size(), 2);
  EXPECT_EQ(kept->left_out().n, 1);
}

TEST_F(TableCache, ATextIsReadOnce) {
  write("a.csv", "1,a\n2,b\n");
  EXPECT_EQ(open_counting()->size(), 2);
  EXPECT_EQ(open_counting()->size(), 2);
  EXPECT_EQ(n_read, 1);
}

TEST_F(TableCache, OfSmallTextsNothingIsKept) {
  write("a.csv", "x,y\n1,a\n2,b\n");
  EXPECT_EQ(open_source(config("files: a.csv, schema: {label: {column: y}}").train, context(1000))->size(),
            2);
  EXPECT_FALSE(fs::exists(dir_ / "cache"));
}

// Whatever tells of the change: the size, the time, or only the bytes.
TEST_F(TableCache, AChangedFileIsReadAgain) {
  const fs::path file = write("a.csv", "1,a\n2,b\n");
  struct stat before {};
  ::stat(file.c_str(), &before);
  EXPECT_THAT(all(*open_counting()), ElementsAre(1, 2));
  write("a.csv", "1,a\n3,b\n");
  const timespec times[] = {before.st_atim, before.st_mtim};
  ASSERT_EQ(::utimensat(AT_FDCWD, file.c_str(), times, 0), 0);
  EXPECT_THAT(all(*open_counting()), ElementsAre(1, 3));
  EXPECT_THAT(lines, ElementsAre(AllOf(HasSubstr("a.csv has changed since it was kept in "),
                                       HasSubstr("; its text is read anew"))));
  EXPECT_EQ(n_read, 2);
  write("a.csv", "1,a\n3,b\n4,b\n");
  EXPECT_EQ(open_counting()->size(), 3);
}

TEST_F(TableCache, AFileWithAnotherTimeIsNot) {
  write("a.csv", "1,a\n2,b\n");
  open_counting();
  write("a.csv", "1,a\n2,b\n");
  open_counting();
  EXPECT_EQ(n_read, 1);
}

TEST_F(TableCache, ADamagedTableIsMadeAnew) {
  write("a.csv", "1,a\n2,b\n");
  const Digest content = open_counting()->content();
  int expected = 1;
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(kept())) files.push_back(entry.path().filename().string());
  EXPECT_THAT(
      files, ::testing::UnorderedElementsAre("ids", "labels", "numbers", "table.json", "targets", "weights"));
  const auto expect_made_anew = [&](const std::string& what) {
    EXPECT_EQ(open_counting()->content(), content) << what;
    EXPECT_EQ(n_read, ++expected) << what;
  };
  for (const std::string& name : files) {
    std::string bytes;
    {
      std::ifstream in(kept() / name, std::ios::binary);
      std::stringstream text;
      text << in.rdbuf();
      bytes = text.str();
    }
    for (std::size_t at = 0; at < bytes.size(); at += 7 * testing::kCaseStride) {
      std::string flipped = bytes;
      flipped[at] = static_cast<char>(flipped[at] ^ 1 << at % 8);
      std::ofstream(kept() / name, std::ios::binary) << flipped;
      expect_made_anew(fmt::format("bit {} of {}", at, name));
    }
    if (!bytes.empty()) {
      fs::resize_file(kept() / name, bytes.size() - 1);
      expect_made_anew(name + " cut");
    }
    fs::remove(kept() / name);
    expect_made_anew(name + " gone");
  }
  EXPECT_THAT(lines, ::testing::Contains(HasSubstr("is damaged; its text is read anew")));
  open_counting();
  EXPECT_EQ(n_read, expected);
}

TEST_F(TableCache, WhatAProcessLeftThatDiedIsRemoved) {
  write("a.csv", "1,a\n2,b\n");
  open_counting();
  const fs::path folder = kept();
  fs::rename(folder, folder.string() + ".new");
  std::ofstream(folder.string() + ".new/more") << "x";
  open_counting();
  EXPECT_EQ(n_read, 2);
  EXPECT_THAT(names(), ::testing::UnorderedElementsAre(folder.filename().string(),
                                                       folder.filename().string() + ".lock"));
  EXPECT_FALSE(fs::exists(folder / "more"));
}

TEST_F(TableCache, OneMakesItWhileOthersWait) {
  write("a.csv", "1,a\n2,b\n");
  std::vector<std::thread> threads;
  std::atomic<int> n_opened = 0;
  std::mutex mutex;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      SourceContext mine = context();
      mine.tell = {};
      const auto table = open_table({"keys", {dir_ / "a.csv"}}, mine, [&](const fs::path& folder) {
        const std::lock_guard lock(mutex);
        ++n_read;
        TableBuilder builder(TableSchema{.inputs = {{.columns = {{.name = "x", .index = 0}}}},
                                         .label = {.columns = {{.name = "y", .index = 1}}}},
                             false, TableBuilder::WithoutWeight::left_out, folder);
        builder.add(std::vector<std::string_view>{"1", "a"});
        return builder.build({}, {});
      });
      n_opened += static_cast<int>(table->size());
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(n_read, 1);
  EXPECT_EQ(n_opened, 8);
}

TEST_F(TableCache, AFileThatChangesWhileItIsReadIsAnError) {
  write("a.csv", "1,a\n2,b\n");
  EXPECT_THAT(thrown([&] {
                open_table({"keys", {dir_ / "a.csv"}}, context(), [&](const fs::path& folder) {
                  write("a.csv", "1,a\n2,b\n3,c\n");
                  TableBuilder builder(TableSchema{.inputs = {{.columns = {{.name = "x", .index = 0}}}},
                                                   .label = {.columns = {{.name = "y", .index = 1}}}},
                                       false, TableBuilder::WithoutWeight::left_out, folder);
                  builder.add(std::vector<std::string_view>{"1", "a"});
                  return builder.build({}, {});
                });
              }),
              HasSubstr("a.csv: has changed while it was read; start again when nobody writes it"));
  EXPECT_EQ(names().size(), 1U) << "the lock";
}

TEST_F(TableCache, WithoutAFolderTheTableIsInMemory) {
  write("a.csv", "1,a\n2,b\n");
  write("cache", "a file");
  const auto table = open_counting();
  EXPECT_EQ(table->size(), 2);
  EXPECT_GT(table->n_bytes(), 0);
  ASSERT_EQ(table->warnings().size(), 1U);
  EXPECT_THAT(
      table->warnings()[0],
      AllOf(HasSubstr("the table of "),
            HasSubstr("a.csv is kept in memory, and is read again at each start: "),
            HasSubstr("cache: cannot be made: "), HasSubstr("; data.cache says where there is room")));
}

// As on a full disk: the system refuses to write more.
TEST_F(TableCache, WithoutRoomTheTableIsInMemoryAndNothingIsLeft) {
  std::string text;
  for (int i = 0; i < 20000; ++i) text += fmt::format("{},{}\n", i, i % 2);
  write("a.csv", text);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit little = before;
  little.rlim_cur = 100'000;
  const auto old = ::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &little), 0);
  std::unique_ptr<TableDataset> table;
  std::string error = thrown([&] { table = open_counting(); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, old);
  ASSERT_EQ(error, "no error");
  EXPECT_EQ(table->size(), 20000);
  ASSERT_EQ(table->warnings().size(), 1U);
  EXPECT_THAT(table->warnings()[0], HasSubstr("cannot be written: File too large"));
  EXPECT_EQ(names().size(), 1U) << "the lock";
}

#ifndef VARSCOPE_SANITIZED
// Of this process, at most since reset_peak().
std::int64_t peak_memory() {
  std::ifstream in("/proc/self/status");
  std::string line;
  while (std::getline(in, line)) {
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) << 10;
  }
  return 0;
}
void reset_peak() { std::ofstream("/proc/self/clear_refs") << 5; }

TEST_F(TableCache, MemoryDoesNotGrowWithTheRows) {
  constexpr int kRows = 1'000'000, kColumns = 40;  // 320 MB of numbers
  std::string header;
  for (int c = 0; c < kColumns; ++c) header += fmt::format("c{},", c);
  {
    std::ofstream out(dir_ / "a.csv");
    out << header << "y\n";
    std::string line;
    for (int i = 0; i < kRows; ++i) {
      line.clear();
      for (int c = 0; c < kColumns; ++c) line += {static_cast<char>('0' + (i + c) % 10), ','};
      out << line << (i % 2 == 0 ? "a\n" : "b\n");
    }
  }
  constexpr std::int64_t kMost = std::int64_t{256} << 20, kBatch = 20'000;
  reset_peak();
  const auto data = open_kept(
      "files: a.csv, schema: {label: {column: y}, features: {x: {columns: 'c0..c39', "
      "transform: standardize}}}");
  EXPECT_LT(peak_memory(), kMost) << "while it is made";
  const Batch batch(data->spec(), DType::float32, kBatch);
  std::mt19937_64 random(1);
  std::vector<std::int64_t> rows(kBatch);
  reset_peak();
  for (int i = 0; i < 50; ++i) {
    for (std::int64_t& row : rows) row = static_cast<std::int64_t>(random() % kRows);
    data->read(rows, batch.view(kBatch));
  }
  EXPECT_LT(peak_memory(), kMost) << "while it is read in any order";
  reset_peak();
  data->content();
  EXPECT_LT(peak_memory(), kMost) << "while it is checked";
}
#endif

}  // namespace
}  // namespace varscope
