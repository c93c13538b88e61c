// What the tests of the real program take for lines of its own in what a job printed.
#include "tests/support/jobs/job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
