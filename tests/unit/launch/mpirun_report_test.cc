// What a launch script tells of a job from what its mpirun printed. The words are those of Open MPI 4.1.
#include "launch/process/mpirun_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/process/launcher.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

const std::string kFrame = std::string(74, '-') + "\n";
std::string block(const std::string& text) { return kFrame + text + "\n" + kFrame; }

std::vector<std::string> lines_of(const std::vector<MpirunReport::Shown>& shown) {
  std::vector<std::string> lines;
  for (const auto& s : shown) lines.push_back((s.is_progress ? "progress " : "") + s.text);
  return lines;
}

// The message of a job that printed this and ended with this code.
std::string message(const std::string& printed, int code, bool is_refusal) {
  MpirunReport report;
  EXPECT_THAT(report.take(printed), IsEmpty());
  const MpirunReport::End end = report.end({code, false, false, false});
  EXPECT_EQ(end.is_refusal, is_refusal) << end.message;
  return end.message;
}

TEST(MpirunReport, ShowsLinesAsTheyCome) {
  MpirunReport report;
  EXPECT_THAT(lines_of(report.take("step 1/2  ep")), IsEmpty());
  EXPECT_THAT(lines_of(report.take("och 1\nvarscope: warning: w\nlast")),
              ElementsAre("step 1/2  epoch 1", "varscope: warning: w"));
  EXPECT_THAT(lines_of(report.take_rest()), ElementsAre("last"));
  EXPECT_EQ(report.end({0, false, false, false}).message, "");
}

TEST(MpirunReport, TellsProgressFromLines) {
  MpirunReport report;
  EXPECT_THAT(lines_of(report.take("\r\x1b[Kstep 1\r\r\x1b[Kst")), ElementsAre("progress step 1"));
  EXPECT_THAT(lines_of(report.take("ep 2\r")), ElementsAre("progress step 2"));
  EXPECT_THAT(lines_of(report.take("\r\x1b[K")), ElementsAre("progress "));
  EXPECT_THAT(lines_of(report.take("\r\x1b[Kstep 3\r\r\x1b[Kvarscope: warning: w\n")),
              ElementsAre("progress step 3", "progress ", "varscope: warning: w"));
}

const std::string kDeath =
    block(
        "Primary job  terminated normally, but 1 process returned\na non-zero exit code. Per user-direction, the job "
        "has been aborted.") +
    block("mpirun noticed that process rank 1 with PID 0 on node n3 exited on signal 9 (Killed).");

TEST(MpirunReport, NamesTheRankThatDied) {
  const std::string roles = roles_line({"server 0 on n1", "worker 0 on n3"});
  const std::string sigterm =
      "varscope: rank 0 (server 0 on n1): got SIGTERM: a rank on another host has died, or the job is to end\n";
  EXPECT_THAT(message(roles + sigterm + kDeath, 137, false),
              AllOf(HasSubstr("rank 1 (worker 0 on n3) was killed by signal 9 (Killed)"),
                    HasSubstr("out of memory"), Not(HasSubstr("SIGTERM"))));
  // Before training starts nobody has a role.
  EXPECT_THAT(message(kDeath, 137, false), HasSubstr("rank 1 (on n3) was killed by signal 9 (Killed)"));
  const std::string crash = block(
      "mpirun noticed that process rank 0 with PID 12 on node n1 exited on signal 11 (Segmentation fault).");
  EXPECT_EQ(message(roles + crash, 139, false),
            "rank 0 (server 0 on n1) was killed by signal 11 (Segmentation fault)");
}

TEST(MpirunReport, SaysNothingWhereARankHasSaidWhy) {
  MpirunReport report;
  EXPECT_THAT(report.take("varscope: rank 1 (worker 0 on n3): no sign of life\n" + kDeath),
              ElementsAre(MpirunReport::Shown{false, "varscope: rank 1 (worker 0 on n3): no sign of life"}));
  EXPECT_EQ(report.end({13, false, false, false}).message, "");
}

TEST(MpirunReport, SaysNothingOfAJobThatStoppedOrEndedWell) {
  for (const int code : {0, 75}) EXPECT_EQ(message(kDeath, code, false), "") << code;
}

TEST(MpirunReport, TellsOfASigtermThatOnlyOneRankGot) {
  EXPECT_EQ(message("varscope: rank 2 (worker 1 on n1): got SIGTERM: the job is to end\n", 75, false),
            "rank 2 (worker 1 on n1): got SIGTERM: the job is to end");
}

TEST(MpirunReport, NamesTheHostThatIsLost) {
  EXPECT_THAT(
      message(
          roles_line({"server 0 on n1", "worker 0 on n3"}) +
              block(
                  "ORTE has lost communication with a remote daemon.\n\n  HNP daemon   : [[1,0],0] on node n1\n"
                  "  Remote daemon: [[1,0],2] on node n3\n\nThis is usually due to"),
          205, false),
      AllOf(HasSubstr("lost the host n3"), HasSubstr("rank 1 (worker 0 on n3)")));
}

TEST(MpirunReport, TranslatesWhatMpirunRefuses) {
  EXPECT_THAT(
      message("ssh: Could not resolve hostname n9: Name or service not known\r\n" +
                  block("ORTE was unable to reliably start one or more daemons.\nThis usually is caused by:"),
              255, true),
      AllOf(HasSubstr("could not start its daemon on a host: ssh: Could not resolve hostname n9"),
            HasSubstr("`ssh HOST true`")));
  EXPECT_THAT(
      message(block("There are not enough slots available in the system to satisfy the 50\nslots that were "
                    "requested by the application:\n\n  varscope\n\nEither request fewer slots"),
              1, true),
      AllOf(HasSubstr("satisfy the 50 slots"), HasSubstr("more slots= in the hostfile"),
            Not(HasSubstr("Either"))));
  EXPECT_THAT(
      message(
          block(
              "mpirun was unable to launch the specified application as it could not access\nor execute an "
              "executable:\n\nExecutable: /x/varscope\nNode: n3\n\nwhile attempting to start process rank 0.") +
              "2 total processes failed to start\n",
          132, true),
      AllOf(HasSubstr("Executable: /x/varscope Node: n3"), HasSubstr("at the same path on every host")));
  EXPECT_THAT(message("mpirun: Error: unknown option \"--foo\"\nType 'mpirun --help' for usage.\n", 1, true),
              AllOf(HasSubstr("unknown option \"--foo\""), HasSubstr("VARSCOPE_MPIRUN_ARGS"),
                    Not(HasSubstr("usage"))));
}

TEST(MpirunReport, ShowsWhatMpiInitSays) {
  EXPECT_THAT(
      message(
          block("A requested component was not found\n\nComponent: nosuch") +
              block("It looks like MPI_INIT failed for some reason") +
              "[n1:617] *** An error occurred in MPI_Init_thread\n[n1:617] *** Unknown error\n"
              "[n1:608] 1 more process has sent help message help-mca-base.txt / find-available:not-valid\n"
              "[n1:608] Set MCA parameter \"orte_base_help_aggregate\" to 0 to see all help / error messages\n",
          1, true),
      AllOf(HasSubstr("MPI could not be initialised"), HasSubstr("\n  Component: nosuch"),
            HasSubstr("OMPI_MCA_"), Not(HasSubstr("aggregate"))));
}

TEST(MpirunReport, NeverLeavesAFailureWithoutAWord) {
  EXPECT_THAT(message("", 1, true), HasSubstr("mpirun ended with code 1 and said nothing"));
  MpirunReport report;
  EXPECT_THAT(report.end({137, true, false, false}).message, HasSubstr("mpirun was killed by signal 9"));
  // Its own words are shown: no more is needed.
  EXPECT_EQ(report.take("varscope: error while loading shared libraries: x\n").size(), 1U);
  EXPECT_EQ(report.end({127, false, false, false}).message, "");
}

}  // namespace
}  // namespace varscope
