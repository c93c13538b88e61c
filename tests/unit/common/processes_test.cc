// What the tests of the real program ask about processes, which may be gone at any moment.
#include "tests/support/jobs/processes.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <cstdlib>
#include <thread>

namespace varscope::testing {
namespace {

pid_t start_sleeper() {
  const pid_t pid = fork();
  if (pid == 0) {
    pause();
    _exit(0);
  }
  return pid;
}

void kill_and_reap(pid_t pid) {
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
}

TEST(Processes, AreAliveUntilTheyHaveEnded) {
  const pid_t pid = start_sleeper();
  EXPECT_TRUE(is_alive(pid));
  EXPECT_EQ(std::atoi(stat_after_name(pid).substr(2).c_str()), getpid());
  kill(pid, SIGSTOP);
  waitpid(pid, nullptr, WUNTRACED);
  EXPECT_EQ(state_of(pid), 'T');
  EXPECT_TRUE(is_alive(pid));
  kill(pid, SIGKILL);
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT);
  EXPECT_EQ(state_of(pid), 'Z');
  EXPECT_FALSE(is_alive(pid));
  waitpid(pid, nullptr, 0);
  EXPECT_EQ(state_of(pid), 'X');
  EXPECT_FALSE(is_alive(pid));
}

TEST(Processes, OneThatDiesBetweenOpenAndReadHasAnEmptyFile) {
  const pid_t pid = start_sleeper();
  const int descriptor = open(("/proc/" + std::to_string(pid) + "/stat").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(descriptor, 0);
  kill_and_reap(pid);
  EXPECT_EQ(read_to_end(descriptor, "stat"), "");
  close(descriptor);
}

TEST(Processes, ThatDieWhileWatchedAreNoError) {
  for (int i = 0; i < 300; ++i) {
    const pid_t pid = start_sleeper();
    std::thread reaper([&] { kill_and_reap(pid); });
    while (is_alive(pid)) std::this_thread::yield();
    reaper.join();
    ASSERT_EQ(state_of(pid), 'X');
  }
}

TEST(TextFiles, AreReadWholeAndMissingOnesAreEmpty) {
  EXPECT_EQ(read_text("/nonexistent/file"), "");
  EXPECT_GT(read_text("/proc/self/exe").size(), 100'000U);  // more than one buffer
  EXPECT_THROW(read_text("/"), std::runtime_error);
}

}  // namespace
}  // namespace varscope::testing
