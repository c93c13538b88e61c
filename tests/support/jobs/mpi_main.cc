// The main of tests that run under mpirun.
//
// Rank 0 alone prints progress. Any rank's failure is printed at once, in one write, prefixed "[rank r/n]". A
// fatal failure or an exception ends the whole job when there are other ranks: one of them may wait for this
// one for ever. At the end of each test the ranks agree, so that a failure on one of them fails the test on
// all. A watchdog thread prints "STUCK in Suite.Test" on every rank and ends the job when 3/4 of the test's
// time-out have passed: before ctest kills mpirun, which would leave no word of where it was.
// (gtest-mpi-listener is no alternative: it hangs silently when one rank's ASSERT precedes a barrier.)
#include "tests/support/jobs/mpi_main.h"

#include <gtest/gtest.h>
#include <mpi.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>

#include "common/transport/mpi/mpi_wait.h"

namespace varscope::testing {
namespace {

constexpr int kFailedExitCode = 1;
constexpr int kStuckExitCode = 124;  // as timeout(1) says it

MpiJob* the_job = nullptr;
std::atomic<const ::testing::TestInfo*> current_test{nullptr};

// One write, so that lines of several ranks do not mix; every line has the prefix.
void print(const std::string& text) {
  const std::string prefix = fmt::format("[rank {}/{}] ", mpi_rank(), mpi_size());
  std::string out = prefix;
  for (std::size_t i = 0; i < text.size(); ++i) {
    out += text[i];
    if (text[i] == '\n' && i + 1 < text.size()) out += prefix;
  }
  if (out.back() != '\n') out += '\n';
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, out.data(), out.size());
}

std::string test_name() {
  const ::testing::TestInfo* test = current_test.load();
  return test == nullptr ? "no test" : fmt::format("{}.{}", test->test_suite_name(), test->name());
}

// Generates no failures itself (GoogleTest does not allow it in a listener that sees them).
class Reporter : public ::testing::EmptyTestEventListener {
  void OnTestStart(const ::testing::TestInfo& test) override {
    current_test = &test;
    if (mpi_rank() == 0) say("[ RUN      ]", test);
  }
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (result.skipped() && mpi_rank() == 0) {  // as GoogleTest says it: tools/check_skips reads it
      std::printf("%s:%d: Skipped\n%s\n\n", result.file_name(), result.line_number(), result.message());
    }
    if (!result.failed()) return;
    print(fmt::format("{}:{}: failure in {}\n{}", result.file_name() == nullptr ? "?" : result.file_name(),
                      result.line_number(), test_name(), result.message()));
    if (result.fatally_failed() && mpi_size() > 1) MpiJob::abort(kFailedExitCode);
  }
  void OnTestEnd(const ::testing::TestInfo& test) override {
    current_test = nullptr;
    if (mpi_rank() != 0) return;
    say(test.result()->Failed()    ? "[  FAILED  ]"
        : test.result()->Skipped() ? "[  SKIPPED ]"
                                   : "[       OK ]",
        test, fmt::format(" ({} ms)", test.result()->elapsed_time()));
  }
  static void say(const char* what, const ::testing::TestInfo& test, const std::string& time = "") {
    std::printf("%s %s.%s%s\n", what, test.test_suite_name(), test.name(), time.c_str());
    std::fflush(stdout);
  }
};

// Collective over the job at the end of each test.
class Agreement : public ::testing::EmptyTestEventListener {
  void OnTestEnd(const ::testing::TestInfo& test) override {
    const int mine = test.result()->Failed() ? 1 : 0;
    int failed = 0;
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Iallreduce(&mine, &failed, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD, &request);
    wait_for(request, "MPI_Iallreduce");
    if (failed > 0 && mine == 0) ADD_FAILURE() << "failed on " << failed << " of " << mpi_size() << " ranks";
  }
};

class Watchdog {
 public:
  explicit Watchdog(double seconds) : thread_([this, seconds] { watch(seconds); }) {}
  ~Watchdog() {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

 private:
  void watch(double seconds) {
    std::unique_lock lock(mutex_);
    if (wake_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return done_; })) return;
    print("STUCK in " + test_name());
    // The other ranks' watchdogs speak at about the same time; the first exit ends them all. MPI is the main
    // thread's.
    std::this_thread::sleep_for(std::chrono::seconds(1));
    std::_Exit(kStuckExitCode);
  }
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
  std::thread thread_;
};

double timeout_s() {
  const char* text = std::getenv("VARSCOPE_TEST_TIMEOUT_S");
  return text == nullptr ? 60 : std::atof(text);
}

}  // namespace

MpiJob& mpi_job() { return *the_job; }

int run_all(int* argc, char** argv) {
  MpiJob job(argc, &argv);
  the_job = &job;
  ::testing::InitGoogleTest(argc, argv);
  ::testing::TestEventListeners& listeners = ::testing::UnitTest::GetInstance()->listeners();
  delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new Reporter);   // GoogleTest owns it
  listeners.Append(new Agreement);  // last: at the end of a test the last listener comes first
  const Watchdog watchdog(0.75 * timeout_s());
  const int code = RUN_ALL_TESTS();
  const auto* unit = ::testing::UnitTest::GetInstance();
  if (job.rank() == Rank(0)) {
    std::printf("%d of %d tests passed on %d ranks\n", unit->successful_test_count(),
                unit->test_to_run_count(), job.size());
  }
  return code;
}

}  // namespace varscope::testing

int main(int argc, char** argv) { return varscope::testing::run_all(&argc, argv); }
