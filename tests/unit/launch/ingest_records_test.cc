// How a stream becomes records and files: `varscope ingest` without processes.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <random>
#include <string>
#include <thread>
#include <vector>

#include "launch/ingest/backlog.h"
#include "launch/ingest/ingest_loop.h"
#include "launch/ingest/record_cutter.h"
#include "launch/ingest/record_log.h"
#include "launch/ingest/record_sink.h"
#include "launch/ingest/stream_reader.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/jobs/tcp_client.h"
#include "tests/support/temp_dir.h"
#include "tests/support/thrown.h"
#include "worker/data/csv_reader.h"

namespace varscope::testing {
namespace {

using Records = std::vector<std::string>;

// The records of a text that comes in pieces of this size, and what is left.
Records cut(RecordRules rules, std::string_view text, std::size_t piece, char delimiter = ',') {
  RecordCutter cutter(rules, delimiter);
  Records records;
  for (std::size_t at = 0; at < text.size(); at += piece) {
    EXPECT_TRUE(cutter.feed(text.substr(at, piece), [&](std::string_view record) {
      records.emplace_back(record);
      return true;
    }));
  }
  records.emplace_back(cutter.rest());
  return records;
}

TEST(RecordCutter, CutsLinesWhateverThePiecesAre) {
  const Records expected = {"a\n", "\n", "b\"\r\n", "\"c\n", "d"};
  for (const std::size_t piece : {1, 2, 3, 100})
    EXPECT_EQ(cut(RecordRules::lines, "a\n\nb\"\r\n\"c\nd", piece), expected) << piece;
  EXPECT_EQ(cut(RecordRules::lines, "", 1), Records{""});
}

TEST(RecordCutter, QuotesJoinLinesOfCsv) {
  const std::string text = "1,\"a\nb\"\n \"x\"\"\n,\",2\n5\"\n\",3\nq,\"open\n";
  const Records expected = {"1,\"a\nb\"\n", " \"x\"\"\n,\",2\n", "5\"\n", "\",3\nq,\"open\n", ""};
  for (const std::size_t piece : {1, 2, 5, 100})
    EXPECT_EQ(cut(RecordRules::csv, text, piece), expected) << piece;
  EXPECT_EQ(cut(RecordRules::csv, "a;\"\n\"\nb,\"\n", 100, ';'), (Records{"a;\"\n\"\n", "b,\"\n", ""}));
}

// Any text: where CsvReader begins a record, the cutter does.
TEST(RecordCutter, AgreesWithTheReaderOfCsv) {
  const TempDir dir;
  std::mt19937 random(7);
  const std::string_view letters = "a\",;\n \r\"\n";
  for (int round = 0; round < 300; ++round) {
    const char delimiter = ",; "[round % 3];
    std::string text = "x";
    for (int i = 0; i < 40; ++i) text += letters[random() % letters.size()];
    text += "\n";
    const Records records = cut(RecordRules::csv, text, 1 + round % 9, delimiter);
    if (!records.back().empty()) continue;  // an open quote: the reader refuses it
    write_whole_file(*std::make_unique<PosixFs>(), dir / fmt::format("{}.csv", round), text);
    CsvReader reader(dir / fmt::format("{}.csv", round), delimiter);
    std::vector<std::int64_t> expected, found;
    CsvRecord record;
    while (reader.next(record)) expected.push_back(record.line);
    std::int64_t line = 1;
    for (const std::string& r : records) {
      if (!r.empty() && r != "\n" && r != "\r\n") found.push_back(line);  // the reader passes over these
      line += std::count(r.begin(), r.end(), '\n');
    }
    EXPECT_EQ(found, expected) << text;
  }
}

TEST(RecordCutter, LeavesOutAByteOrderMarkAtTheBeginning) {
  for (const std::size_t piece : {1, 2, 3, 100}) {
    EXPECT_EQ(cut(RecordRules::lines,
                  "\xef\xbb\xbf"
                  "a\n\xef\xbb\xbf"
                  "b\n",
                  piece),
              (Records{"a\n",
                       "\xef\xbb\xbf"
                       "b\n",
                       ""}));
    EXPECT_EQ(cut(RecordRules::csv, "\xef\xbb\xbf\"a\n\"\n", piece), (Records{"\"a\n\"\n", ""}));
    EXPECT_EQ(cut(RecordRules::lines,
                  "\xef\xbb"
                  "a\n",
                  piece),
              (Records{"\xef\xbb"
                       "a\n",
                       ""}));
  }
}

TEST(RecordCutter, TakesRecordsUpToTheLimit) {
  RecordCutter cutter(RecordRules::lines);
  const auto take = [](std::string_view) { return true; };
  const std::string longest(RecordCutter::kMostRecordBytes - 1, 'x');
  EXPECT_TRUE(cutter.feed(longest, take));
  EXPECT_TRUE(cutter.feed("\n", take));
  EXPECT_TRUE(cutter.feed(longest, take));
  EXPECT_TRUE(cutter.feed("y", take));
  EXPECT_FALSE(cutter.feed("\n", take));
}

// --- files

std::string text_of(const std::string& path) {
  PosixFs fs;
  return read_whole_file(fs, path, 1 << 20);
}

TEST(RecordLog, GoesOnBehindTheHighestNumber) {
  const TempDir dir;
  PosixFs fs;
  write_whole_file(fs, dir / "000000000041.txt", "by somebody else\n");
  write_whole_file(fs, dir / "99.csv", "not by us\n");
  for (const int n : {42, 43}) {
    RecordLog log(fs, dir.path(), ".csv");
    EXPECT_EQ(log.next_name(), fmt::format("{:012}.csv", n));
    log.add("", "1\n");
    log.add("", "2\n");
    EXPECT_EQ(log.commit(), 4U);
    EXPECT_EQ(text_of(dir / fmt::format("{:012}.csv", n)), "1\n2\n");
  }
  // Readers remove what they have read; the numbers go on all the same.
  for (const std::string& name : fs.list(dir.path())) {
    if (!name.starts_with('.')) fs.remove_all(dir / name);
  }
  RecordLog log(fs, dir.path(), ".libsvm");
  EXPECT_EQ(log.next_name(), "000000000044.libsvm");
  EXPECT_EQ(log.total_records(), 4U);
  EXPECT_EQ(log.commit(), 0U) << "no empty files";
  EXPECT_EQ(log.next_name(), "000000000044.libsvm");
}

TEST(RecordLog, TheSecondIngestOfADirectoryIsRefused) {
  const TempDir dir;
  PosixFs fs;
  const RecordLog first(fs, dir / "new/stream", ".csv");
  const std::string pid = fmt::format("(pid {} host ", ::getpid());
  EXPECT_THAT_THROWN(
      RecordLog(fs, dir / "new/stream", ".csv"), ErrorKind::checkpoint,
      {"another varscope ingest", pid.c_str(), "stop it first, or write to another directory"});
}

TEST(RecordLog, AnEndedStreamIsNotWrittenTo) {
  const TempDir dir;
  PosixFs fs;
  RecordLog(fs, dir.path(), ".csv").write_end();
  EXPECT_EQ(text_of(dir / "END"), "");
  EXPECT_THAT_THROWN(
      RecordLog(fs, dir.path(), ".csv"), ErrorKind::config,
      {"has a file END: its stream has ended", "remove ", " to go on, or write to another directory"});
}

TEST(RecordLog, FilesKeepTheirHeader) {
  const TempDir dir;
  PosixFs fs;
  {
    RecordLog log(fs, dir.path(), ".csv");
    log.expect_header(true);
    EXPECT_TRUE(log.take_header("a,b\r\n"));
    EXPECT_TRUE(log.take_header("a,b\n"));
    log.add("", "1,2\n");
    log.commit();
  }
  RecordLog log(fs, dir.path(), ".csv");
  log.expect_header(true);
  EXPECT_FALSE(log.take_header("a,c\n"));
  EXPECT_TRUE(log.take_header("a,b\n"));
  log.add("", "3,4\n");
  log.commit();
  EXPECT_EQ(text_of(dir / "000000000001.csv"), "a,b\r\n1,2\n");
  EXPECT_EQ(text_of(dir / "000000000002.csv"), "a,b\r\n3,4\n");
  EXPECT_THAT_THROWN(log.expect_header(false), ErrorKind::config,
                     {"begin with a header; say --header, and begin the stream with that line"});
}

TEST(RecordLog, FilesWithoutHeaderStaySo) {
  const TempDir dir;
  PosixFs fs;
  RecordLog log(fs, dir.path(), ".csv");
  log.add("", "1\n");
  log.commit();
  log.expect_header(false);
  EXPECT_THAT_THROWN(log.expect_header(true), ErrorKind::config, {"have no header; leave out --header"});
}

TEST(RecordLog, LeavesTemporaryFilesOfOthersAlone) {
  const TempDir dir;
  PosixFs fs;
  for (const char* name : {".tmp-000000000007.csv", ".tmp-END", ".tmp-.ingest", ".tmp-theirs"})
    write_whole_file(fs, dir / name, "half");
  const RecordLog log(fs, dir.path(), ".csv");
  EXPECT_EQ(fs.list(dir.path()), (Records{".ingest-lock", ".tmp-theirs"}));
  EXPECT_EQ(log.next_name(), "000000000001.csv");
}

TEST(RecordLog, SaysWhatADamagedStateMeans) {
  const TempDir dir;
  PosixFs fs;
  {
    RecordLog log(fs, dir.path(), ".csv");
    log.add("a", "1\n");
    log.commit();
  }
  const std::string whole = text_of(dir / ".ingest");
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    fs.remove_all(dir / ".ingest");
    write_whole_file(fs, dir / ".ingest", damaged);
    EXPECT_THAT_THROWN(RecordLog(fs, dir.path(), ".csv"), ErrorKind::checkpoint,
                       {".ingest", "remove it only where no producer asks for that"});
  }
}

TEST(RecordLog, ATemporaryFileThatCountsAndWasChangedIsToldOf) {
  const TempDir dir;
  PosixFs fs;
  {
    RecordLog log(fs, dir.path(), ".csv");
    log.add("a", "12\n");
    log.commit();
  }
  fs.remove_all(dir / "000000000001.csv");
  write_whole_file(fs, dir / ".tmp-000000000001.csv", "13\n");
  EXPECT_THAT_THROWN(RecordLog(fs, dir.path(), ".csv"), ErrorKind::checkpoint,
                     {".tmp-000000000001.csv is not as it was written", "its records are lost"});
}

TEST(RecordLog, HasALastNumber) {
  const TempDir dir;
  PosixFs fs;
  write_whole_file(fs, dir / "999999999999.csv", "");
  RecordLog log(fs, dir.path(), ".csv");
  log.add("", "1\n");
  EXPECT_THAT_THROWN(log.commit(), ErrorKind::config,
                     {"number 999999999999, the last one there can be; use another directory"});
}

TEST(RecordLog, TakesNothingBetweenACommitThatFailedAndTheNext) {
  const TempDir dir;
  PosixFs posix;
  FaultFs fs(posix);
  RecordLog log(fs, dir.path(), ".csv");
  log.add("a", "1\n");
  fs.fail_nth(FsOp::replace, 1, EIO);
  EXPECT_THAT_THROWN(log.commit(), ErrorKind::io, {"cannot replace"});
  EXPECT_THAT_THROWN(log.add("a", "2\n"), ErrorKind::argument, {"call it again before add()"});
  EXPECT_EQ(log.commit(), 2U);
  log.add("a", "2\n");
  EXPECT_EQ(log.count("a"), 2U);
}

TEST(Backlog, CountsFilesUntilTheyAreRemoved) {
  const TempDir dir;
  PosixFs posix;
  FaultFs fs(posix);
  write_whole_file(posix, dir / "1.csv", std::string(60, 'x'));
  write_whole_file(posix, dir / ".tmp-2.csv", std::string(60, 'x'));
  write_whole_file(posix, dir / "END", std::string(60, 'x'));
  Backlog backlog(fs, dir.path(), 100);
  EXPECT_FALSE(backlog.is_full(39));
  EXPECT_TRUE(backlog.is_full(40));
  write_whole_file(posix, dir / "2.csv", std::string(40, 'x'));
  backlog.wrote(40);
  EXPECT_TRUE(backlog.is_full(0));
  EXPECT_EQ(backlog.bytes(), 100U);
  posix.remove_all(dir / "1.csv");
  EXPECT_FALSE(backlog.is_full(0));
  const int n = fs.count(FsOp::list);
  EXPECT_FALSE(backlog.is_full(0));
  EXPECT_EQ(fs.count(FsOp::list), n) << "nothing that was written has changed the answer";
  Backlog none(fs, dir.path(), 0);
  EXPECT_FALSE(none.is_full(1 << 30));
}

// --- when a file ends, and what is told

class SinkTest : public ::testing::Test {
 protected:
  RecordSink sink(SinkLimits limits, std::uint64_t max_backlog = 0) {
    return RecordSink(io, log, limits, max_backlog, stop,
                      [this](const std::string& line) { said.push_back(line); });
  }
  std::vector<std::string> files() {
    std::vector<std::string> names = posix.list(dir.path());
    std::erase_if(names, [](const std::string& name) { return name.starts_with('.'); });
    return names;
  }
  static constexpr std::int64_t kLong = std::int64_t{3600} * 1'000'000'000;

  TempDir dir;
  PosixFs posix;
  FaultFs io{posix};
  RecordLog log{io, dir.path(), ".csv"};
  int stop = ::eventfd(0, EFD_CLOEXEC);
  std::vector<std::string> said;
};

TEST_F(SinkTest, AFileEndsWithItsLastRecord) {
  RecordSink s = sink({2, kLong});
  int n_durable = 0;
  s.on_durable = [&] { ++n_durable; };
  for (const char* record : {"1\n", "2\n", "3\n"}) s.add("a", record);
  s.commit_if_due();
  EXPECT_EQ(files(), Records{"000000000001.csv"});
  EXPECT_EQ(n_durable, 1);
  s.commit();
  s.commit();
  EXPECT_EQ(files().size(), 2U);
  EXPECT_EQ(n_durable, 2);
  EXPECT_EQ(said, Records{});
}

TEST_F(SinkTest, TimeCountsFromTheFirstRecord) {
  RecordSink s = sink({100, 1});  // a nanosecond
  s.commit_if_due();
  EXPECT_EQ(s.wait_ms(), -1) << "nothing is due where nothing is there";
  s.add("", "1\n");
  EXPECT_GE(s.wait_ms(), 0);
  while (!log.is_empty()) s.commit_if_due();
  EXPECT_EQ(files(), Records{"000000000001.csv"});
  EXPECT_EQ(s.wait_ms(), -1);
}

TEST_F(SinkTest, AFileEndsWhenItIsLarge) {
  RecordSink s = sink({1 << 20, kLong});
  const std::string record = std::string((1 << 24) - 1, 'x') + "\n";
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(files().size(), 0U);
    s.add("", record);
  }
  EXPECT_EQ(files().size(), 1U);
}

TEST_F(SinkTest, AFullDiskIsTriedAgainWithOneLine) {
  RecordSink s = sink({100, kLong});
  s.add("a", "1\n");
  io.fail_nth(FsOp::write, 1, ENOSPC);
  s.commit();
  EXPECT_EQ(files(), Records{"000000000001.csv"});
  ASSERT_EQ(said.size(), 2U);
  EXPECT_NE(said[0].find("warning: cannot write "), std::string::npos) << said[0];
  EXPECT_NE(said[0].find("; reading stops, and it is tried again each second"), std::string::npos) << said[0];
  EXPECT_NE(said[1].find(" can be written to again; nothing was lost"), std::string::npos) << said[1];
}

TEST_F(SinkTest, AFullDiskDoesNotHoldTheEndUp) {
  RecordSink s = sink({100, kLong});
  s.add("a", "1\n");
  io.fail_nth(FsOp::write, 1, ENOSPC);
  ::eventfd_write(stop, 1);
  EXPECT_THAT_THROWN(s.commit(), ErrorKind::io, {"No space left on device", "; 1 records are in no file"});
}

TEST_F(SinkTest, ADirectoryThatIsGoneEndsIt) {
  RecordSink s = sink({100, kLong});
  s.add("a", "1\n");
  posix.remove_all(dir.path());
  EXPECT_THAT_THROWN(s.commit(), ErrorKind::io, {"cannot create ", "No such file or directory"});
}

TEST_F(SinkTest, TellsWhenReadingStopsAndGoesOn) {
  RecordSink s = sink({1, kLong}, 4);
  EXPECT_TRUE(s.may_read());
  s.add("", "123\n");
  EXPECT_FALSE(s.may_read());
  EXPECT_FALSE(s.may_read());
  EXPECT_GE(s.wait_ms(), 0) << "it looks again";
  posix.remove_all(dir / "000000000001.csv");
  while (!s.may_read()) {
  }
  ASSERT_EQ(said.size(), 2U);
  EXPECT_NE(
      said[0].find(
          "holds 4 B that nobody has read and removed, and the limit is 4 B (--max-backlog-mib): reading "
          "stops until it is less"),
      std::string::npos)
      << said[0];
  EXPECT_NE(said[1].find("holds 0 B: reading goes on"), std::string::npos) << said[1];
}

// --- streams

class StreamTest : public SinkTest {
 protected:
  StreamReader reader(bool has_header, StreamReader::OnName on_name, RecordRules rules = RecordRules::lines) {
    return StreamReader(log, sink_, {RecordCutter(rules), has_header, false}, std::move(on_name));
  }
  RecordSink sink_ = sink({1000, kLong});
};

TEST_F(StreamTest, AFirstLineMayNameTheStream) {
  std::string name;
  StreamReader named = reader(true, [&](const std::string& n) {
    name = n;
    return StreamReader::Answer{"", 7};
  });
  EXPECT_EQ(named.feed("STREAM clicks-1\r\nh\n1\nSTREAM 2\n3"), "");
  EXPECT_EQ(name, "clicks-1");
  EXPECT_EQ(named.name(), "clicks-1");
  EXPECT_EQ(named.n_records(), 9U);
  EXPECT_EQ(named.n_rest(), 1U);
  StreamReader unnamed = reader(true, [](const std::string&) {
    return StreamReader::Answer{"not called", 0};
  });
  EXPECT_EQ(unnamed.feed("h\nSTREAM x\n"), "");
  sink_.commit();
  EXPECT_EQ(text_of(dir / "000000000001.csv"), "h\n1\nSTREAM 2\nSTREAM x\n");
  EXPECT_EQ(log.count("clicks-1"), 2U);
}

TEST_F(StreamTest, SaysWhatIsWrong) {
  const auto on_name = [](const std::string&) { return StreamReader::Answer{"", 0}; };
  EXPECT_EQ(reader(false, on_name).feed("STREAM a b\n1\n"),
            "\"a b\" is no name of a stream: 1 to 128 letters, digits, '.', '_', '-' and ':'");
  EXPECT_NE(reader(false, on_name).feed("STREAM \n"), "");
  EXPECT_NE(reader(false, on_name).feed("STREAM " + std::string(129, 'a') + "\n"), "");
  EXPECT_EQ(reader(false, on_name).feed("STREAM " + std::string(128, 'a') + "\n"), "");
  EXPECT_EQ(reader(true, nullptr).feed("a,b\n"), "");
  EXPECT_EQ(reader(true, nullptr).feed("a,c\n"),
            "the header is \"a,c\", and the files of " + dir.path() +
                " begin with \"a,b\"; send the same header, or write to another directory");
  EXPECT_EQ(log.n_records(), 0U);
  StreamReader open = reader(false, nullptr, RecordRules::csv);
  EXPECT_EQ(open.feed("1\n\"2"), "");
  EXPECT_EQ(open.finish(),
            "record 2 has a quote that is not closed by the end of the stream; close it, or write it twice");
  StreamReader endless = reader(false, nullptr);
  EXPECT_EQ(endless.feed("1\n" + std::string(RecordCutter::kMostRecordBytes, 'x')), "");
  EXPECT_EQ(endless.feed("x"),
            "record 2 is longer than 16.0 MiB: are records lines that end with a line feed?");
}

TEST_F(StreamTest, TheLastLineOfAPipeNeedsNoLineFeed) {
  StreamReader pipe = reader(false, nullptr);
  EXPECT_EQ(pipe.feed("1\n2"), "");
  EXPECT_EQ(pipe.finish(), "");
  EXPECT_EQ(pipe.finish(), "");
  sink_.commit();
  EXPECT_EQ(text_of(dir / "000000000001.csv"), "1\n2\n");
}

TEST(IngestLoop, ADirectoryKnowsSoManyStreams) {
  const TempDir dir;
  PosixFs fs;
  {
    RecordLog log(fs, dir.path(), ".csv");
    for (std::size_t i = 0; i < RecordLog::kMostStreams; ++i) log.add(fmt::format("s{}", i), "1\n");
    EXPECT_FALSE(log.has_room_for_stream());
    log.commit();
  }
  IngestOptions options;
  options.from = "tcp:127.0.0.1:0";
  options.to = dir.path();
  const int stop = ::eventfd(0, EFD_CLOEXEC);
  IngestLoop loop(fs, options, stop, [](const std::string&) {});
  std::thread running([&] { EXPECT_EQ(loop.run(), IngestEnd::stopped); });
  TcpClient known(loop.source()), more(loop.source());
  known.send("STREAM s4095\n");
  EXPECT_EQ(known.line(), "1");
  more.send("STREAM more\n");
  EXPECT_EQ(more.line(),
            "ERROR " + dir.path() +
                " has 4096 streams, as many as it may; use a name again, or write to another directory");
  ::eventfd_write(stop, 1);
  running.join();
  ::close(stop);
}

}  // namespace
}  // namespace varscope::testing
