// Tests that fail on purpose: mpi_main's promises about failures are tests as well (tests/CMakeLists.txt runs
// each alone and requires the words and the exit code).
#include <gtest/gtest.h>

#include <chrono>
#include <stdexcept>
#include <thread>

#include "tests/support/jobs/mpi_main.h"

namespace varscope {
namespace {

using testing::mpi_job;
using testing::mpi_rank;

TEST(MpiMain, FailureOfOneRank) { EXPECT_NE(mpi_rank(), 1) << "on purpose"; }

TEST(MpiMain, FatalFailureBeforeABarrier) {
  ASSERT_NE(mpi_rank(), 1) << "on purpose";
  mpi_job().barrier();
}

TEST(MpiMain, ExceptionBeforeABarrier) {
  if (mpi_rank() == 1) throw std::runtime_error("on purpose");
  mpi_job().barrier();
}

TEST(MpiMain, Hang) {
  for (;;) std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

}  // namespace
}  // namespace varscope
