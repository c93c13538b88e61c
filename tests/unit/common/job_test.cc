// What the tests of the real program take for lines of its own in what a job printed.
#include "tests/support/jobs/job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

namespace varscope::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(OpenMpisLines, AreThoseOfAJobThatEnds) {
  for (
      const char* line :
      {"[n1:4711] Read -1, expected 10280, errno = 3",
       "[warn] Epoll MOD(1) on fd 32 failed.  Old events were 6; read change was 0 (none); write change was 2 "
       "(del); close change was 0 (none): Bad file descriptor",
       "[warn] Epoll ADD(4) on fd 55 failed. Old events were 0; read change was 0 (none); write change was 1 (add): "
       "Bad file descriptor"}) {
    EXPECT_TRUE(is_line_of_open_mpi(line)) << line;
    EXPECT_FALSE(is_line_of_open_mpi(std::string("x") + line)) << line;
    EXPECT_FALSE(is_line_of_open_mpi(line + std::string(" 7"))) << line;
  }
  for (const char* line : {"", "[warn] something else", "[warn] Epoll MOD(1) on fd 32 failed", "Read -1",
                           "[n1:4711] *** Process received signal ***"}) {
    EXPECT_FALSE(is_line_of_open_mpi(line)) << line;
  }
}

// Spinning children, ended by the destructor.
class Burners {
 public:
  explicit Burners(unsigned n) : pids_(n) {
    for (pid_t& pid : pids_) {
      pid = fork();
      if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        volatile bool on = true;
        while (on) continue;
      }
    }
  }
  ~Burners() {
    for (const pid_t pid : pids_) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
  }
  Burners(const Burners&) = delete;
  Burners& operator=(const Burners&) = delete;

 private:
  std::vector<pid_t> pids_;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Until the scheduler has spread the others over the processors.
bool becomes_slow() {
  const auto start = std::chrono::steady_clock::now();
  while (slowness_now() < 2) {
    if (seconds_since(start) > 10) return false;
  }
  return true;
}

TEST(Slowness, GrowsWithThoseWhoWantTheProcessors) {
  EXPECT_GE(slowness_now(), 1);
  const Burners burners(4 * std::thread::hardware_concurrency());
  EXPECT_TRUE(becomes_slow());
}

// A job that does nothing for ever: what is waited for does not come.
TEST(Job, IsGivenUpAfterTheSecondsOfAQuietMachineAndNotBefore) {
  Job job({{"/bin/sleep", "100"}});
  const auto seconds_waited = [&] {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_FALSE(job.wait_until([] { return false; }, 0.2));
    return seconds_since(start);
  };
  EXPECT_GE(seconds_waited(), 0.2);
  const Burners burners(4 * std::thread::hardware_concurrency());
  ASSERT_TRUE(becomes_slow());
  EXPECT_GE(seconds_waited(), 0.3);
}

TEST(Ended, TellsOursFromNoise) {
  Ended ended;
  ended.err =
      "step 10  loss 2.1\n"
      "varscope: warning: a warning\n"
      "  that goes on\n"
      "[n1:4711] Read -1, expected 10280, errno = 3\n"
      "[warn] Epoll MOD(1) on fd 32 failed.  Old events were 6; read change was 0 (none); write change was 2 (del); "
      "close change was 0 (none): Bad file descriptor\n"
      "varscope: rank 1: an error\n";
  EXPECT_THAT(ended.noise(), IsEmpty());
  EXPECT_THAT(ended.messages(), ElementsAre("varscope: warning: a warning", "varscope: rank 1: an error"));
  EXPECT_THAT(ended.errors(), ElementsAre("varscope: rank 1: an error"));
  ended.err += "[n1:4711] *** Process received signal ***\n";
  EXPECT_THAT(ended.noise(), ElementsAre("[n1:4711] *** Process received signal ***"));
}

}  // namespace
}  // namespace varscope::testing
