// What a crash of the program or of the host leaves of a RecordLog, at any operation and in any state that
// the disk may then have: two producers that send again what is not durable, and a reader that removes what
// it has read, see every record once.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "launch/ingest/record_log.h"
#include "tests/support/fs/crash_states.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/fs/memory_fs.h"

namespace varscope::testing {
namespace {

constexpr const char* kDir = "/stream";
constexpr const char* kHeader = "who,n\n";
constexpr std::uint64_t kRecords = 12;  // of each producer
const std::string kProducers[] = {"a", "b"};

std::string record_of(const std::string& producer, std::uint64_t n) {
  return fmt::format("{},{}\n", producer, n);
}

// What is certain at a moment.
struct Promise {
  std::map<std::string, std::uint64_t> told, sent;  // to producers; by them
  std::map<std::string, std::string> read;          // files that the reader has, and may have removed
};

// MemoryFs, whose n-th change of a kind is done, and reported as failed all the same.
class LateErrorFs : public MemoryFs {
 public:
  void fail_after(DiskOpKind kind, int n) { kind_ = kind, left_ = n; }
  void rename(const std::string& from, const std::string& to) override {
    MemoryFs::rename(from, to);
    done(DiskOpKind::rename, to);
  }
  void replace_file(const std::string& from, const std::string& to) override {
    MemoryFs::replace_file(from, to);
    done(DiskOpKind::replace, to);
  }
  void sync_dir(const std::string& path) override {
    MemoryFs::sync_dir(path);
    done(DiskOpKind::sync_dir, path);
  }
  bool has_failed() const { return left_ == 0; }

 private:
  void done(DiskOpKind kind, const std::string& path) {
    if (kind != kind_ || left_ <= 0) return;
    --left_;
    if (left_ == 0) fail_io("change", path, EIO);
  }
  DiskOpKind kind_ = DiskOpKind::note;
  int left_ = -1;
};

std::map<std::string, std::string> files_in(Fs& fs) {
  std::map<std::string, std::string> files;
  for (const std::string& name : fs.list(kDir)) {
    if (!name.starts_with('.')) files[name] = read_whole_file(fs, join_path(kDir, name), 1 << 20);
  }
  return files;
}

// Two starts of the program, which send all records, and a reader beside them.
class Session {
 public:
  explicit Session(bool has_reader = true) {
    fs.make_dir(kDir);
    start = fs.disk();
    fs.log().clear();
    note();
    if (has_reader) io.before_change = [this] { read(); };
  }

  // The second start goes on with what is not durable. Errors of the disk: tried again, or a start's end.
  enum class OnError { retry, die };
  void run(OnError on_error = OnError::retry) {
    for (int tries = 0; tries < 4; ++tries) {
      try {
        RecordLog log(io, kDir, ".csv");
        log.take_header(kHeader);
        send(log, tries == 0 ? kRecords / 2 : kRecords, on_error);
        if (tries > 0) return;
      } catch (const Error& e) {
        if (on_error == OnError::retry) throw;
        io.clear_faults();
      }
    }
    FAIL() << "more than one operation failed";
  }

  LateErrorFs fs;
  FaultFs io{fs};
  Disk start;
  std::vector<Promise> promises;

 private:
  void note() {
    fs.note(promises.size());
    promises.push_back(now_);
  }
  // Reads and removes all files but the newest one that is there, whatever the log is doing.
  void read() {
    if (is_reading_) return;
    is_reading_ = true;
    const auto files = files_in(fs);
    for (const auto& [name, text] : files) {
      if (name == files.rbegin()->first && n_read_++ % 2 == 0) continue;
      const auto [known, is_new] = now_.read.emplace(name, text);
      EXPECT_EQ(known->second, text) << name;
      note();
      fs.remove_all(join_path(kDir, name));
    }
    is_reading_ = false;
  }
  void send(RecordLog& log, std::uint64_t up_to, OnError on_error) {
    for (std::uint64_t n = 1; n <= up_to; ++n) {
      for (const std::string& producer : kProducers) {
        if (log.count(producer) >= n) continue;
        log.add(producer, record_of(producer, n));
        now_.sent[producer] = std::max(now_.sent[producer], n);
        note();
        if (log.n_records() == 3) commit(log, on_error);
      }
    }
    commit(log, on_error);
  }
  void commit(RecordLog& log, OnError on_error) {
    for (int tries = 0; tries < 3; ++tries) {
      try {
        log.commit();
        break;
      } catch (const Error&) {
        if (on_error == OnError::die || tries == 2) throw;
      }
    }
    for (const std::string& producer : kProducers) now_.told[producer] = log.count(producer);
    note();
  }
  Promise now_;
  bool is_reading_ = false;
  int n_read_ = 0;
};

// Every record once, each producer's in order, in the order of names; "" or what is wrong.
std::string broken_records(const std::map<std::string, std::string>& files) {
  std::map<std::string, std::uint64_t> seen;
  for (const auto& [name, text] : files) {
    std::string_view rest = text;
    if (!rest.starts_with(kHeader)) return name + " does not begin with the header: " + text;
    for (rest.remove_prefix(std::string_view(kHeader).size()); !rest.empty();) {
      const std::string producer(rest.substr(0, 1));
      const std::string expected = record_of(producer, seen[producer] + 1);
      if (!rest.starts_with(expected)) return fmt::format("{} has no {} but {}", name, expected, rest);
      ++seen[producer];
      rest.remove_prefix(expected.size());
    }
  }
  for (const std::string& producer : kProducers) {
    if (seen[producer] != kRecords) return fmt::format("{} of {} are there", seen[producer], producer);
  }
  return "";
}

// Starts again on this disk, lets the producers go on, and reads; "" or what is wrong.
std::string broken_promise(Disk disk, const Promise& promise) {
  try {
    MemoryFs fs(std::move(disk));
    RecordLog log(fs, kDir, ".csv");
    log.take_header(kHeader);
    for (const std::string& producer : kProducers) {
      const std::uint64_t n = log.count(producer);
      const auto told = promise.told.find(producer), sent = promise.sent.find(producer);
      if (told != promise.told.end() && n < told->second)
        return fmt::format("{} was told {}, has {}", producer, told->second, n);
      if (n > (sent == promise.sent.end() ? 0 : sent->second))
        return fmt::format("{} has not sent {}", producer, n);
      for (std::uint64_t next = n + 1; next <= kRecords; ++next) log.add(producer, record_of(producer, next));
    }
    log.commit();
    std::map<std::string, std::string> files = files_in(fs);
    for (const auto& [name, text] : promise.read) {
      const auto [known, is_new] = files.emplace(name, text);
      if (known->second != text)
        return fmt::format("{} was read as {}, and is {}", name, text, known->second);
    }
    for (const std::string& name : fs.list(kDir)) {
      if (name.starts_with(kTmpPrefix)) return name + " is left";
    }
    return broken_records(files);
  } catch (const Error& e) {
    return fmt::format("the next start throws: {}", e.what());
  }
}

struct Tried {
  std::size_t states = 0;
  std::string violation;
};

// A crash after every operation of the log, in each state that the disk may have then.
Tried try_crashes(const Session& session, const std::vector<DiskOp>& log) {
  Tried tried;
  CrashStates states(session.start);
  std::set<std::pair<std::size_t, Digest>> seen;
  std::size_t promise = 0;
  for (const DiskOp& op : log) {
    if (op.kind == DiskOpKind::note) promise = op.note;
    states.advance(op);
    const bool all_good = states.for_each([&](const Digest& digest, const auto& make_disk) {
      if (!seen.insert({promise, digest}).second) return true;
      tried.violation = broken_promise(make_disk(), session.promises[promise]);
      return tried.violation.empty();
    });
    tried.states = seen.size();
    if (all_good) continue;
    tried.violation += ", after " + op.path;
    return tried;
  }
  return tried;
}

std::string broken_end(Session& session) {
  return broken_promise(session.fs.disk(), session.promises.back());
}

TEST(IngestCrash, EveryRecordIsThereOnceWhereverTheHostLosesItsPower) {
  for (const bool has_reader : {true, false}) {
    Session session(has_reader);
    session.run();
    const Tried tried = try_crashes(session, session.fs.log());
    EXPECT_EQ(tried.violation, "");
    EXPECT_GT(tried.states, 100U);
    EXPECT_EQ(broken_end(session), "");
  }
}

// Without any of the fsyncs the same check finds what breaks.
TEST(IngestCrash, EveryFsyncIsNeeded) {
  Session session;
  session.run();
  const auto breaks_without = [&](const std::function<bool(const DiskOp&)>& is_left_out) {
    std::vector<DiskOp> log = session.fs.log();
    EXPECT_GT(std::erase_if(log, is_left_out), 0U);
    return !try_crashes(session, log).violation.empty();
  };
  EXPECT_TRUE(breaks_without([](const DiskOp& op) { return op.kind == DiskOpKind::sync_dir; }));
  EXPECT_TRUE(breaks_without([](const DiskOp& op) {
    return op.kind == DiskOpKind::sync && op.path.find(kIngestStateName) != std::string::npos;
  }));
  EXPECT_TRUE(breaks_without([](const DiskOp& op) {
    return op.kind == DiskOpKind::sync && op.path.find(kIngestStateName) == std::string::npos;
  }));
  // Of the three fsyncs of the directory in each commit the first and the second; the third only lets a
  // reader see after a crash what it saw before.
  for (const int which : {0, 1}) {
    int n = 0;
    EXPECT_TRUE(breaks_without([&](const DiskOp& op) {
      return op.kind == DiskOpKind::sync_dir && n++ % 3 == which;
    })) << which;
  }
}

TEST(IngestCrash, AnErrorOfTheDiskLosesNothingWhenItIsTriedAgain) {
  for (const FsOp op : kMutatingOps) {
    for (int n = 1; n < 100; ++n) {
      for (const auto on_error : {Session::OnError::retry, Session::OnError::die}) {
        Session session;
        session.io.fail_nth(op, n, ENOSPC);
        try {
          session.run(on_error);
        } catch (const Error&) {
          // Where it begins there is nothing to be tried again.
          EXPECT_EQ(on_error, Session::OnError::retry);
          continue;
        }
        if (session.io.struck() == 0) n = 100;
        EXPECT_EQ(broken_end(session), "") << to_string(op) << " " << n;
      }
    }
  }
}

TEST(IngestCrash, ATornWriteLosesNothing) {
  for (int n = 1; n < 100; ++n) {
    for (const std::size_t keep : {0, 1, 7}) {
      Session session;
      session.io.tear_nth_write(n, keep, ENOSPC);
      session.run();
      if (session.io.struck() == 0) return;
      EXPECT_EQ(broken_end(session), "") << n;
    }
  }
  FAIL() << "a session has fewer writes";
}

// A network file system may report the failure of what it has done.
TEST(IngestCrash, WhatWasDoneAndReportedAsFailedIsNotDoneTwice) {
  for (const DiskOpKind kind : {DiskOpKind::rename, DiskOpKind::replace, DiskOpKind::sync_dir}) {
    for (int n = 1; n < 100; ++n) {
      Session session;
      session.fs.fail_after(kind, n);
      session.run();
      EXPECT_EQ(broken_end(session), "") << static_cast<int>(kind) << " " << n;
      if (!session.fs.has_failed()) break;
      const Tried tried = n % 3 == 0 ? try_crashes(session, session.fs.log()) : Tried{};
      EXPECT_EQ(tried.violation, "") << static_cast<int>(kind) << " " << n;
    }
  }
}

}  // namespace
}  // namespace varscope::testing
