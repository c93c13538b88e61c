#include "common/transport/mpi/mpi_job.h"

#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdlib>
#include <string_view>

#include "tests/support/jobs/mpi_main.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::mpi_job;
using testing::mpi_rank;
using testing::mpi_size;
using testing::thrown;

constexpr const char* kYieldVariable = "OMPI_MCA_mpi_yield_when_idle";

TEST(MpiJob, KnowsThatItWasLaunched) {
  EXPECT_TRUE(launched_by_mpi());
  EXPECT_GE(mpi_rank(), 0);
  EXPECT_LT(mpi_rank(), mpi_size());
  EXPECT_FALSE(mpi_job().host().empty());
}

// As MPI itself has it, whatever the number of ranks: mpirun turns it on when they outnumber the cores.
TEST(MpiJob, KeepsOpenMpiFromYieldingInEachPoll) {
  int index = -1, n = 0, on = 0, provided = 0;  // one byte of `on` is written
  MPI_T_cvar_handle handle = MPI_T_CVAR_HANDLE_NULL;
  ASSERT_EQ(MPI_T_init_thread(MPI_THREAD_SINGLE, &provided), MPI_SUCCESS);
  ASSERT_EQ(MPI_T_cvar_get_index("mpi_yield_when_idle", &index), MPI_SUCCESS);
  ASSERT_EQ(MPI_T_cvar_handle_alloc(index, nullptr, &handle, &n), MPI_SUCCESS);
  ASSERT_EQ(MPI_T_cvar_read(handle, &on), MPI_SUCCESS);
  EXPECT_EQ(on != 0, std::string_view(std::getenv(kYieldVariable)) == "1");
  MPI_T_cvar_handle_free(&handle);
  MPI_T_finalize();
}

TEST(MpiJob, LeavesTheUsersChoiceOfYieldsAlone) {
  const std::string kept = std::getenv(kYieldVariable);
  unsetenv(kYieldVariable);
  set_mpi_defaults();
  EXPECT_STREQ(std::getenv(kYieldVariable), "0");
  setenv(kYieldVariable, "1", 1);
  set_mpi_defaults();
  EXPECT_STREQ(std::getenv(kYieldVariable), "1");
  setenv(kYieldVariable, kept.c_str(), 1);
}

TEST(MpiJob, BroadcastBringsRank0sBytes) {
  for (std::size_t n : {0, 1, 1000, 3'000'000}) {
    std::string bytes =
        mpi_rank() == 0 ? std::string(n, 'x') + '\0' : std::string(static_cast<std::size_t>(mpi_rank()), 'y');
    mpi_job().broadcast(bytes);
    EXPECT_EQ(bytes.size(), n + 1);
    EXPECT_EQ(bytes, std::string(n, 'x') + '\0');
  }
}

TEST(MpiJob, AllGatherIsInRankOrder) {
  const auto of = [](int rank) {
    return std::string(static_cast<std::size_t>(rank * 1000), static_cast<char>('a' + rank));
  };
  const std::vector<std::string> all = mpi_job().all_gather(of(mpi_rank()));
  ASSERT_EQ(all.size(), static_cast<std::size_t>(mpi_size()));
  for (int r = 0; r < mpi_size(); ++r) EXPECT_EQ(all[static_cast<std::size_t>(r)], of(r)) << r;
}

TEST(MpiJob, AgreeWithoutErrorsGoesOn) {
  EXPECT_EQ(thrown([] { mpi_job().agree({}); }), "no error");
}

TEST(MpiJob, AgreeTellsTheLowestFailingRanksMessageToAll) {
  for (int lowest = 0; lowest < mpi_size(); ++lowest) {
    std::optional<Error> mine;
    if (mpi_rank() >= lowest) {
      mine.emplace(mpi_rank() == lowest ? ErrorKind::stall : ErrorKind::io,
                   fmt::format("trouble on {}", mpi_rank()));
    }
    const std::string error = thrown([&] { mpi_job().agree(mine); });
    const std::string who = lowest == 0 ? "" : fmt::format("rank {}: ", lowest);
    EXPECT_EQ(error, fmt::format("stall: {}trouble on {}", who, lowest));
  }
}

TEST(MpiJob, AgreeKeepsEveryKindAndEmptyMessages) {
  for (int k = 0; k <= static_cast<int>(ErrorKind::stall); ++k) {
    std::optional<Error> mine;
    if (mpi_rank() == mpi_size() - 1) mine.emplace(static_cast<ErrorKind>(k), "");
    const std::string who = mpi_size() == 1 ? "" : fmt::format("rank {}: ", mpi_size() - 1);
    EXPECT_EQ(thrown([&] { mpi_job().agree(mine); }),
              fmt::format("{}: {}", to_string(static_cast<ErrorKind>(k)), who));
  }
}

}  // namespace
}  // namespace varscope
