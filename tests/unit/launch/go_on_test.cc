// The command that goes on with a job.
#include "launch/process/go_on.h"

#include <gtest/gtest.h>

namespace varscope {
namespace {

TEST(ShellWord, IsQuotedWhereAShellWouldReadItOtherwise) {
  EXPECT_EQ(shell_word("train.epochs=3"), "train.epochs=3");
  EXPECT_EQ(shell_word("a b"), "'a b'");
  EXPECT_EQ(shell_word("it's"), "'it'\\''s'");
  EXPECT_EQ(shell_word(""), "''");
}

TEST(GoOnCommand, KeepsEveryWordButThoseOfTheStart) {
  EXPECT_EQ(
      go_on_command({"varscope", "train", "a.yaml", "--set", "job.run_dir=a b", "--fresh", "--profile"}),
      "varscope train a.yaml --set 'job.run_dir=a b' --profile --resume");
  EXPECT_EQ(go_on_command({"varscope", "train", "a.yaml", "--resume=runs/a"}),
            "varscope train a.yaml --resume");
  EXPECT_EQ(
      go_on_command({"mpirun", "-n", "3", "varscope", "train", "a.yaml", "--resume", "runs/a"}, "runs/a"),
      "mpirun -n 3 varscope train a.yaml --resume");
}

TEST(GoOnCommand, GivesEachPartOfAnMpirunItsResume) {
  EXPECT_EQ(go_on_command({"/usr/bin/mpirun", "-n", "1", "varscope", "train", "a.yaml", "--fresh", ":", "-n",
                           "2", "x", "varscope", "train", "a.yaml"}),
            "/usr/bin/mpirun -n 1 varscope train a.yaml --resume : -n 2 x varscope train a.yaml --resume");
  EXPECT_EQ(go_on_command({"mpirun", "--app", "file"}), "");
}

}  // namespace
}  // namespace varscope
