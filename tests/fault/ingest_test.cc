// `varscope ingest` as it is used: pipes, FIFOs, TCP; killed, stopped, on a full disk, with a slow reader.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <regex>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/fs/small_disk.h"
#include "tests/support/jobs/job.h"
#include "tests/support/jobs/tcp_client.h"

namespace varscope::testing {
namespace {

using ::testing::HasSubstr;

constexpr double kSoon = 60 * kSlowness;

Command ingest(const std::string& from, const std::string& dir, const Args& more = {}) {
  return varscope(Args{"ingest", "--from", from, "--to", dir} + more);
}

// A process that listens on a port of its own.
class Listening {
 public:
  Listening(const std::string& dir, const Args& more, Command command)
      : dir_(dir),
        job_((command.argv = command.argv + Args{"ingest", "--from", "tcp:127.0.0.1:0", "--to", dir} + more,
              command)) {}
  explicit Listening(const std::string& dir, const Args& more = {}) : Listening(dir, more, varscope({})) {}

  // Of the port; "" when the process has ended before.
  std::string address() {
    static const std::regex words("ingest: ([0-9.]+:[0-9]+) -> .*");
    std::smatch found;
    std::string out;
    job_.wait_until(
        [&] {
          out = job_.out();
          return out.find('\n') != std::string::npos;
        },
        kSoon);
    const std::string line = out.substr(0, out.find('\n'));
    return std::regex_match(line, found, words) ? found[1].str() : "";
  }
  Ended stop() {
    job_.send_signal(SIGTERM);
    return job_.wait(kSoon);
  }
  Job& operator*() { return job_; }
  Job* operator->() { return &job_; }

 private:
  std::string dir_;
  Job job_;
};

std::vector<std::string> data_files(const std::string& dir) {
  std::vector<std::string> names = names_in(dir);
  std::erase_if(names, [](const std::string& name) { return name.starts_with('.') || name == "END"; });
  return names;
}

// All files of a directory, one behind another.
std::string text_of(const std::string& dir) {
  std::string text;
  for (const std::string& name : data_files(dir)) text += read_text(dir + "/" + name);
  return text;
}

std::string record_of(const std::string& stream, unsigned long long n) {
  return stream + "," + std::to_string(n) + "\n";
}

std::string records(const std::string& stream, unsigned long long from, unsigned long long to) {
  std::string text;
  for (unsigned long long n = from; n <= to; ++n) text += record_of(stream, n);
  return text;
}

// Connects, asks how far the stream has come, sends the records from there to `to`, until they are durable
// or the other side is gone. Returns the number that is durable for certain.
unsigned long long produce(const std::string& address, const std::string& stream, unsigned long long to) {
  try {
    TcpClient client(address);
    client.send("STREAM " + stream + "\n");
    if (!client.line()) return 0;
    for (unsigned long long n = client.newest() + 1; n <= to; ++n) {
      if (!client.send(record_of(stream, n))) break;
    }
    while (client.newest() < to && client.line()) {
    }
    return client.newest();
  } catch (const std::runtime_error&) {
    return 0;  // it was gone before
  }
}

// --- kill -9

Command killed_at(int moment) {
  return {{VARSCOPE_KILLED_BINARY}, {{"VARSCOPE_KILL_AT", std::to_string(moment)}}};
}

// Returns whether the process was alive to the end.
bool kill_and_go_on(int moment) {
  constexpr unsigned long long kRecords = 7;
  const ScratchDir scratch;
  const std::string dir = scratch / "new/stream";
  const Args files = {"--max-records", "3", "--max-seconds", "0.05"};
  unsigned long long told = 0;
  bool is_alive = false;
  {
    Listening first(dir, files, killed_at(moment));
    if (const std::string address = first.address(); !address.empty()) told = produce(address, "s", kRecords);
    is_alive = told == kRecords && first.stop().code == 75;
    const Ended ended = first->wait(kSoon);
    EXPECT_EQ(ended.code, is_alive ? 75 : 128 + SIGKILL) << ended.all();
  }
  Listening second(dir, files);
  const std::string address = second.address();
  TcpClient client(address);
  client.send("STREAM s\n");
  EXPECT_TRUE(client.line());
  EXPECT_GE(client.newest(), told);
  EXPECT_EQ(produce(address, "s", kRecords), kRecords);
  const Ended ended = second.stop();
  EXPECT_EQ(ended.code, 75) << ended.all();
  EXPECT_EQ(text_of(dir), records("s", 1, kRecords));
  for (const std::string& name : names_in(dir)) EXPECT_FALSE(name.starts_with(".tmp-")) << name;
  return is_alive;
}

TEST(IngestKill, EveryRecordIsThereOnceWhereverItIsKilled) {
  const int step = kSlowness > 1 ? 7 : 1;
  int moment = 1;
  while (moment < 200 && !kill_and_go_on(moment)) {
    ASSERT_FALSE(HasFailure()) << "moment " << moment;
    moment += step;
  }
  EXPECT_GT(moment, 50) << "each file takes some fifteen";
  EXPECT_LT(moment, 200);
}

// At any byte: two producers side by side, and a kill whenever they have got some way.
TEST(IngestKill, TwoProducersSideBySideGoOnFromWhatIsDurable) {
  constexpr unsigned long long kRecords = 20'000;
  const ScratchDir scratch;
  const std::string dir = scratch / "stream";
  for (int round = 0; round < 6; ++round) {
    Listening process(dir, {"--max-records", "1000", "--max-seconds", "0.2"});
    const std::string address = process.address();
    ASSERT_NE(address, "") << process->wait(0).all();
    const std::size_t n_before = data_files(dir).size();
    std::thread a([&] { produce(address, "a", kRecords); }), b([&] { produce(address, "b", kRecords); });
    if (round < 5) {
      process->wait_until([&] { return data_files(dir).size() > n_before + static_cast<std::size_t>(round); },
                          kSoon);
      process->send_signal(SIGKILL);
    }
    a.join();
    b.join();
    if (round < 5) continue;
    EXPECT_EQ(process.stop().code, 75);
  }
  std::map<std::string, std::string> of;
  for (const std::string& line : lines_of(text_of(dir))) of[line.substr(0, 1)] += line + "\n";
  EXPECT_EQ(of["a"], records("a", 1, kRecords));
  EXPECT_EQ(of["b"], records("b", 1, kRecords));
  EXPECT_EQ(of.size(), 2U);
}

// --- pipes

TEST(IngestPipe, StandardInputBecomesFilesAndEnd) {
  const ScratchDir scratch;
  write_text(scratch / "in", "a,b\n1,\"x\ny\"\n2,z\n3,w");
  const Ended ended =
      run({{"/bin/sh", "-c",
            std::string(VARSCOPE_BINARY) +
                " ingest --from - --to \"$1\" --header --records csv --max-records 2 --end < \"$2\"",
            "sh", scratch / "s", scratch / "in"}});
  EXPECT_EQ(ended.code, 0) << ended.all();
  EXPECT_EQ(ended.err, "");
  EXPECT_EQ(names_in(scratch / "s"),
            (Args{".ingest", ".ingest-lock", "000000000001.csv", "000000000002.csv", "END"}));
  EXPECT_EQ(text_of(scratch / "s"), "a,b\n1,\"x\ny\"\n2,z\na,b\n3,w\n");
  EXPECT_THAT(ended.out, HasSubstr("ingest: 3 records in 2 files\n"));
}

TEST(IngestPipe, AFifoOutlivesItsWriters) {
  const ScratchDir scratch;
  const std::string fifo = scratch / "fifo", dir = scratch / "s";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  Job job(ingest("fifo:" + fifo, dir, {"--max-seconds", "0.05", "--suffix", ".libsvm"}));
  std::string expected;
  for (const char* record : {"1 1:2\n", "0 2:3", "1 4:5\n"}) {
    std::ofstream(fifo) << record;
    expected += record;
    if (expected.back() != '\n') expected += '\n';  // its writer has ended: it is a record
    EXPECT_TRUE(job.wait_until([&] { return text_of(dir) == expected; }, kSoon)) << job.wait(0).all();
  }
  // At once, though the next record has time.
  job.send_signal(SIGTERM);
  const Ended ended = job.wait(kSoon);
  EXPECT_EQ(ended.code, 75) << ended.all();
  EXPECT_THAT(ended.out, HasSubstr("; stopped by a signal\n"));
  EXPECT_EQ(data_files(dir).at(0), "000000000001.libsvm");
}

TEST(IngestPipe, SigtermFinishesTheFileAtOnce) {
  const ScratchDir scratch;
  const std::string fifo = scratch / "fifo", dir = scratch / "s";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    std::filesystem::remove_all(dir);
    Job job(ingest("fifo:" + fifo, dir, {"--max-seconds", "3600"}));
    std::ofstream writer(fifo);
    writer << "1\n2\nunfinis" << std::flush;
    // Whether it has read that already or not.
    job.send_signal(signal);
    const Ended ended = job.wait(kSoon);
    EXPECT_EQ(ended.code, 75) << ended.all();
    EXPECT_EQ(text_of(dir), "1\n2\n");
    EXPECT_THAT(
        ended.err,
        HasSubstr("varscope: warning: 7 bytes of a record that was not read to its end are left out"));
  }
}

TEST(IngestPipe, EachWriterOfAFifoMayBringTheHeader) {
  const ScratchDir scratch;
  const std::string fifo = scratch / "fifo", dir = scratch / "s";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  {
    Job job(ingest("fifo:" + fifo, dir, {"--header", "--max-records", "1"}));
    for (const char* text : {"a,b\n1,2\n", "a,b\n3,4\n", "5,6\n", "a,b\r\n7,8\n"})
      std::ofstream(fifo) << text;
    EXPECT_TRUE(
        job.wait_until([&] { return text_of(dir) == "a,b\n1,2\na,b\n3,4\na,b\n5,6\na,b\n7,8\n"; }, kSoon))
        << text_of(dir);
    job.send_signal(SIGTERM);
    EXPECT_EQ(job.wait(kSoon).code, 75);
  }
  Job job(ingest("fifo:" + fifo, dir, {"--header"}));
  std::ofstream(fifo) << "5,6\n";
  const Ended ended = job.wait(kSoon);
  EXPECT_EQ(ended.code, 3) << ended.all();
  EXPECT_THAT(ended.err,
              HasSubstr(fifo + ": the header is \"5,6\", and the files of " + dir + " begin with \"a,b\""));
}

TEST(IngestPipe, ATooLongRecordIsNamed) {
  const ScratchDir scratch;
  write_text(scratch / "in", "1\n2\n" + std::string(std::size_t{17} << 20, 'x'));
  const Ended ended =
      run({{"/bin/sh", "-c", std::string(VARSCOPE_BINARY) + " ingest --from - --to \"$1\" < \"$2\"", "sh",
            scratch / "s", scratch / "in"}});
  EXPECT_EQ(ended.code, 3) << ended.all();
  EXPECT_THAT(ended.err, HasSubstr("varscope: standard input: record 3 is longer than 16.0 MiB"));
  EXPECT_EQ(text_of(scratch / "s"), "1\n2\n");
}

// --- TCP

TEST(IngestTcp, TellsHowManyRecordsAreDurable) {
  const ScratchDir scratch;
  const std::string dir = scratch / "s";
  Listening process(dir, {"--max-records", "2", "--max-seconds", "3600"});
  TcpClient named(process.address()), unnamed(process.address());
  named.send("STREAM clicks\n");
  EXPECT_EQ(named.line(), "0");
  named.send("a\nb\n");
  EXPECT_EQ(named.line(), "2");
  EXPECT_EQ(text_of(dir), "a\nb\n") << "what it was told of is there";
  unnamed.send("c\n");
  named.send("d\n");
  EXPECT_EQ(unnamed.line(), "1");
  EXPECT_EQ(named.line(), "3");
  // The end of a connection is no end of a file; the last line without its end is no record.
  unnamed.send("e\nhalf");
  unnamed.end_sending();
  EXPECT_TRUE(
      process->wait_until([&] { return process->err().find("4 bytes") != std::string::npos; }, kSoon));
  named.send("f\n");
  EXPECT_EQ(named.line(), "4");
  EXPECT_EQ(unnamed.line(), "2");
  EXPECT_EQ(unnamed.line(), std::nullopt) << "closed when it knows all";
  const Ended ended = process.stop();
  EXPECT_EQ(ended.code, 75) << ended.all();
  EXPECT_EQ(lines_of(ended.err).size(), 1U) << ended.err;
  EXPECT_THAT(ended.err,
              HasSubstr("has ended within record 3: its 4 bytes without a line feed are left out"));
}

TEST(IngestTcp, SigtermMakesEverythingDurableAndSaysSo) {
  const ScratchDir scratch;
  Listening process(scratch / "s", {"--max-seconds", "3600"});
  TcpClient client(process.address());
  client.send("STREAM s\n");
  EXPECT_EQ(client.line(), "0");
  // All of it was read when the next connection of the stream is answered.
  client.send(records("s", 1, 100));
  EXPECT_EQ(produce(process.address(), "s", 0), 100U);
  TcpClient other(process.address());
  other.send("STREAM t\n");
  EXPECT_EQ(other.line(), "0");
  other.send("1\n");
  process->send_signal(SIGTERM);
  EXPECT_EQ(process->wait(kSoon).code, 75);
  while (other.line()) {
  }
  EXPECT_EQ(text_of(scratch / "s"), records("s", 1, 100) + (other.newest() == 1 ? "1\n" : ""));
}

TEST(IngestTcp, ANewConnectionTakesTheStreamOver) {
  const ScratchDir scratch;
  const std::string dir = scratch / "s";
  Listening process(dir, {"--max-seconds", "3600"});
  TcpClient lost(process.address());
  lost.send("STREAM s\n1\n2\nha");
  EXPECT_EQ(lost.line(), "0");
  TcpClient next(process.address());
  next.send("STREAM s\n");
  EXPECT_EQ(next.line(), "2");
  EXPECT_TRUE(lost.wait_for("2"));
  const auto why = lost.line();
  ASSERT_TRUE(why);
  EXPECT_THAT(*why, HasSubstr("ERROR stream s goes on in another connection, of 127.0.0.1:"));
  next.send("3\n");
  TcpClient last(process.address());
  last.send("STREAM s\n");
  EXPECT_EQ(last.line(), "3");
  EXPECT_EQ(process.stop().code, 75);
  EXPECT_EQ(text_of(dir), "1\n2\n3\n");
}

TEST(IngestTcp, WhatIsWrongEndsTheConnectionAlone) {
  const ScratchDir scratch;
  const std::string dir = scratch / "s";
  Listening process(dir, {"--header", "--max-seconds", "0.05"});
  TcpClient good(process.address()), other(process.address()), bad_name(process.address()),
      endless(process.address());
  good.send("STREAM s\na,b\n1,2\n");
  EXPECT_TRUE(good.wait_for("1"));
  other.send("a,c\n1,2\n");
  EXPECT_EQ(other.line(), "ERROR the header is \"a,c\", and the files of " + dir +
                              " begin with \"a,b\"; send the same header, or write to another directory");
  EXPECT_EQ(other.line(), std::nullopt);
  bad_name.send("STREAM no name\n");
  EXPECT_THAT(bad_name.line().value_or(""), HasSubstr("ERROR \"no name\" is no name of a stream"));
  endless.send("a,b\n" + std::string(std::size_t{17} << 20, 'x'));
  EXPECT_THAT(endless.line().value_or(""), HasSubstr("ERROR record 1 is longer than 16.0 MiB"));
  good.send("3,4\n");
  EXPECT_TRUE(good.wait_for("2"));
  const Ended ended = process.stop();
  EXPECT_EQ(ended.code, 75) << ended.all();
  EXPECT_EQ(text_of(dir), "a,b\n1,2\na,b\n3,4\n");
  for (const char* words : {"is disconnected: the header is \"a,c\"", "is disconnected: \"no name\"",
                            "is disconnected: record 1"})
    EXPECT_THAT(ended.err, HasSubstr(words));
}

TEST(IngestTcp, MoreProducersThanItTakesAreToldSo) {
  const ScratchDir scratch;
  Listening process(scratch / "s");
  std::vector<std::unique_ptr<TcpClient>> clients;
  for (int i = 0; i < 32; ++i) {
    clients.push_back(std::make_unique<TcpClient>(process.address()));
    clients.back()->send("STREAM s" + std::to_string(i) + "\n");
    EXPECT_EQ(clients.back()->line(), "0");
  }
  TcpClient more(process.address());
  EXPECT_EQ(more.line(), "ERROR 32 producers are connected, and no more may be");
  clients.pop_back();
  std::optional<std::string> answer;
  EXPECT_TRUE(process->wait_until(
      [&] {
        TcpClient again(process.address());
        again.send("STREAM again\n");
        answer = again.line();
        return answer == "0";
      },
      kSoon));
}

TEST(IngestTcp, SaysWhyItCannotListen) {
  const ScratchDir scratch;
  Listening process(scratch / "s");
  const std::string address = process.address();
  const Ended ended = run(ingest("tcp:" + address, scratch / "t"));
  EXPECT_EQ(ended.code, 11) << ended.all();
  EXPECT_THAT(ended.err,
              HasSubstr("cannot listen on " + address +
                        ": Address already in use; another program has this port: stop it (ss -ltnp shows "
                        "which it is), or choose another port"));
  const Ended foreign = run(ingest("tcp:192.0.2.1:9", scratch / "t"));
  EXPECT_EQ(foreign.code, 11) << foreign.all();
  EXPECT_THAT(foreign.err, HasSubstr("no network of this host has this address"));
}

TEST(IngestTcp, AnOpenPortIsToldOf) {
  const ScratchDir scratch;
  Job job(ingest("tcp:0.0.0.0:0", scratch / "s"));
  EXPECT_TRUE(job.wait_until([&] { return !job.out().empty(); }, kSoon));
  EXPECT_TRUE(std::regex_match(job.err(),
                               std::regex("varscope: warning: 0\\.0\\.0\\.0:[0-9]+ is open to the network, "
                                          "unencrypted and without a password\n")))
      << job.err();
}

// --- backlog and disk

std::size_t resident_kib(pid_t pid) {
  const std::string status = read_text("/proc/" + std::to_string(pid) + "/status");
  return std::stoul(status.substr(status.find("VmRSS:") + 6));
}

// Of a lock's holder: "pid 17 host h".
pid_t pid_in(const std::string& holder) { return std::atoi(holder.c_str() + 4); }

TEST(IngestBacklog, ASlowReaderMakesTheProducerWaitInFlatMemory) {
  const ScratchDir scratch;
  const std::string dir = scratch / "s";
  Listening process(dir, {"--max-records", "1000", "--max-backlog-mib", "2", "--max-seconds", "0.1"});
  TcpClient client(process.address());
  const std::string record = std::string(1023, 'x') + "\n";
  std::size_t sent = 0;
  const std::size_t total = std::size_t{12} << 20;
  std::map<std::string, std::string> read;
  const auto send_while_taken = [&] {
    std::size_t n = 1;
    while (sent < total && n > 0) {
      const std::size_t at = sent % record.size();
      n = client.send_some(std::string_view(record).substr(at, std::min(record.size() - at, total - sent)));
      sent += n;
    }
  };
  const auto say = [&](const char* words) { return process->err().find(words) != std::string::npos; };
  EXPECT_TRUE(process->wait_until(
      [&] {
        send_while_taken();
        return say(
            "that nobody has read and removed, and the limit is 2.0 MiB (--max-backlog-mib): reading stops until");
      },
      kSoon));
  EXPECT_LT(sent, total) << "the producer was held up";
  const pid_t pid = pid_in(read_text(dir + "/.ingest-lock"));
  const std::size_t resident = resident_kib(pid);
  std::size_t most = 0, most_resident = 0;
  EXPECT_TRUE(process->wait_until(
      [&] {
        send_while_taken();
        std::size_t bytes = 0;
        for (const std::string& name : data_files(dir)) {
          const std::string text = read_text(dir + "/" + name);
          bytes += text.size();
          read[name] = text;
        }
        most = std::max(most, bytes);
        most_resident = std::max(most_resident, resident_kib(pid));
        if (say("reading stops until") && bytes >= (std::size_t{2} << 20)) {
          for (const std::string& name : data_files(dir)) std::filesystem::remove(dir + "/" + name);
        }
        std::size_t all = 0;
        for (const auto& [name, text] : read) all += text.size();
        return all == total;
      },
      kSoon));
  EXPECT_LE(most, (std::size_t{2} << 20) + (std::size_t{1} << 20) + 65536);
  EXPECT_LE(most_resident, resident + 3 * 1024 * static_cast<std::size_t>(kSlowness));
  const Ended ended = process.stop();
  EXPECT_EQ(ended.code, 75) << ended.all();
  EXPECT_THAT(ended.err, HasSubstr(": reading goes on\n"));
  for (const auto& [name, text] : read) EXPECT_EQ(text.size() % record.size(), 0U) << name;
}

TEST(IngestDisk, AFullDiskHoldsTheStreamUpAndLosesNothing) {
  const ScratchDir scratch;
  const auto disk = SmallDisk::in_memory(scratch / "disk", 8);
  if (!disk->problem().empty()) GTEST_SKIP() << disk->problem();
  const std::string dir = disk->path() + "/s";
  Listening process(dir, {"--max-records", "1000"});
  const std::string address = process.address();
  disk->fill_up(16 << 10);
  unsigned long long told = 0;
  std::thread producer([&] { told = produce(address, "s", 20'000); });
  EXPECT_TRUE(process->wait_until(
      [&] { return process->err().find("tried again each second") != std::string::npos; }, kSoon))
      << process->err();
  disk->make_room();
  producer.join();
  EXPECT_EQ(told, 20'000U);
  const Ended ended = process.stop();
  EXPECT_EQ(ended.code, 75) << ended.all();
  EXPECT_EQ(text_of(dir), records("s", 1, 20'000));
  EXPECT_EQ(ended.messages().size(), 2U) << ended.err;
  EXPECT_THAT(
      ended.err,
      HasSubstr("No space left on device; free some space or choose another directory; reading stops"));
  EXPECT_THAT(ended.err, HasSubstr("can be written to again; nothing was lost"));
}

TEST(IngestDisk, StoppedOnAFullDiskItSaysWhatIsInNoFile) {
  const ScratchDir scratch;
  const auto disk = SmallDisk::in_memory(scratch / "disk", 8);
  if (!disk->problem().empty()) GTEST_SKIP() << disk->problem();
  Listening process(disk->path() + "/s", {"--max-records", "5"});
  const std::string address = process.address();
  disk->fill_up(0);
  TcpClient client(address);
  client.send(records("s", 1, 5));
  EXPECT_TRUE(process->wait_until(
      [&] { return process->err().find("tried again each second") != std::string::npos; }, kSoon));
  const Ended ended = process.stop();
  EXPECT_EQ(ended.code, 11) << ended.all();
  EXPECT_THAT(ended.err, HasSubstr("; 5 records are in no file"));
}

// --- words

TEST(IngestWords, ASecondOneOfADirectoryNamesTheFirst) {
  const ScratchDir scratch;
  Listening process(scratch / "s");
  // The same command line again: it is not the port that is told of.
  const Ended ended = run(ingest("tcp:" + process.address(), scratch / "s"));
  EXPECT_EQ(ended.code, 4) << ended.all();
  EXPECT_TRUE(std::regex_search(ended.err,
                                std::regex("another varscope ingest \\(pid [0-9]+ host [^)]+\\) writes to ")))
      << ended.err;
  EXPECT_THAT(ended.err, HasSubstr("; stop it first, or write to another directory"));
}

TEST(IngestWords, ACommandLineThatCannotBeMeantIsRefused) {
  const ScratchDir scratch;
  write_text(scratch / "file", "1\n");
  const std::map<std::string, Args> wrong = {
      {"--from file: expected - (standard input), fifo:PATH or tcp:ADDRESS:PORT", {"--from", "file"}},
      {"--from tcp:9000: expected an address of this host and a port", {"--from", "tcp:9000"}},
      {"--from tcp:127.0.0.1:70000: expected an address", {"--from", "tcp:127.0.0.1:70000"}},
      {"--from tcp:some.host:9000: expected an address", {"--from", "tcp:some.host:9000"}},
      {"there is no such file; make it with mkfifo", {"--from", "fifo:" + (scratch / "none")}},
      {"this is no FIFO; make one with mkfifo, or read a file by --from - < ",
       {"--from", "fifo:" + (scratch / "file")}},
      {"--end: connections of --from tcp:127.0.0.1:0 have no common end",
       {"--from", "tcp:127.0.0.1:0", "--end"}},
      {"--suffix csv: expected a dot and letters", {"--from", "-", "--suffix", "csv"}},
      {"--suffix ./a: expected a dot and letters", {"--from", "-", "--suffix", "./a"}},
      {"--delimiter ab: expected one character, or tab",
       {"--from", "-", "--records", "csv", "--delimiter", "ab"}},
      {"--delimiter requires --records", {"--from", "-", "--delimiter", ";"}},
      {"--records", {"--from", "-", "--records", "json"}},
      {"--max-records", {"--from", "-", "--max-records", "0"}},
      {"--max-seconds", {"--from", "-", "--max-seconds", "nan"}},
      {"--to is required", {"--from", "-"}}};
  for (const auto& [words, args] : wrong) {
    const bool has_dir = words != "--to is required";
    const Ended ended =
        run(varscope(Args{"ingest"} + args + (has_dir ? Args{"--to", scratch / "s"} : Args{})));
    EXPECT_EQ(ended.code, 2) << words << ended.all();
    EXPECT_THAT(ended.err, HasSubstr(words));
    EXPECT_EQ(ended.messages().size(), 1U) << ended.err;
  }
  EXPECT_FALSE(std::filesystem::exists(scratch / "s")) << "nothing was made";
}

}  // namespace
}  // namespace varscope::testing
