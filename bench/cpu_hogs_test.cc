#include "bench/cpu_hogs.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>

#include "tests/support/jobs/processes.h"

namespace varscope::bench {
namespace {

// Until three ticks of 10 ms have gone to its own code; ctest's limit ends a test in which that never comes.
void wait_until_it_burns(pid_t pid) {
  for (long user = 0; user < 3;) {
    const std::string stat = testing::stat_after_name(pid);
    ASSERT_EQ(std::sscanf(stat.c_str(), "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld", &user), 1);
  }
}

TEST(CpuHogs, RunUntilTheDestructorHasReapedThem) {
  std::vector<pid_t> pids;
  {
    const CpuHogs hogs(2);
    pids = hogs.pids();
    ASSERT_EQ(pids.size(), 2U);
    for (pid_t pid : pids) EXPECT_EQ(kill(pid, 0), 0);
  }
  for (pid_t pid : pids) {
    EXPECT_EQ(kill(pid, 0), -1);
    EXPECT_EQ(errno, ESRCH);
  }
}

TEST(CpuHogs, BurnWhatTheCpuGivesThem) {
  const CpuHogs hogs(2);
  for (pid_t pid : hogs.pids()) wait_until_it_burns(pid);
}

TEST(CpuHogs, AreOfThisSessionOrOfOneOfTheirOwn) {
  const CpuHogs ours(1), own(2, HogSession::own);
  EXPECT_EQ(getsid(ours.pids()[0]), getsid(0));
  for (pid_t pid : own.pids()) {
    while (getsid(pid) == getsid(0)) sched_yield();  // it has just been started
    EXPECT_EQ(getsid(pid), pid);
  }
}

TEST(CpuHogs, DieWithAnOwnerThatIsKilled) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);  // so that the orphans become our children
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t owner = fork();
  if (owner == 0) {
    const CpuHogs hogs(2);
    const bool told = write(ends[1], hogs.pids().data(), 2 * sizeof(pid_t)) == 2 * sizeof(pid_t);
    if (told) pause();
    _exit(1);
  }
  pid_t pids[2];
  ASSERT_EQ(read(ends[0], pids, sizeof pids), static_cast<ssize_t>(sizeof pids));
  for (pid_t pid : pids) wait_until_it_burns(pid);
  kill(owner, SIGKILL);
  int status = 0;
  ASSERT_EQ(waitpid(owner, &status, 0), owner);
  for (pid_t pid : pids) {
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
  }
  close(ends[0]);
  close(ends[1]);
}

}  // namespace
}  // namespace varscope::bench
