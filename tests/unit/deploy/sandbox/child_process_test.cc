#include "deploy/sandbox/child_process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <utility>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"
#include <signal.h>

namespace isoscan {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

Command Shell(const TemporaryDirectory& folder, const std::string& script) {
  return {.title = "the script",
          .arguments = {"/bin/sh", "-c", script},
          .log = folder.path() / "log",
          .environment = {}};
}

TEST(ChildProcess, ThatEndsWellIsOk) {
  const TemporaryDirectory folder;

  EXPECT_OK(RunToEnd(Shell(folder, "exit 0"), {}));
}

TEST(ChildProcess, ThatFailsTellsItsCodeAndTheEndOfItsLog) {
  const TemporaryDirectory folder;

  EXPECT_THAT(RunToEnd(Shell(folder, "echo the disk is full; exit 7"), {}),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       ::testing::AllOf(HasSubstr("the script"), HasSubstr("exit code 7"),
                                        HasSubstr("the disk is full"))));
}

TEST(ChildProcess, ThatEndsWithAnErrorTellsThatAlone) {
  const TemporaryDirectory folder;

  EXPECT_THAT(RunToEnd(Shell(folder, "echo a summary; echo error: no case in /mri; exit 3"), {}),
              StatusIs(absl::StatusCode::kNotFound,
                       "the script ended with exit code 3: no case in /mri (its log: " +
                           (folder.path() / "log").string() + ")"));
}

TEST(ChildProcess, ThatCannotBeStartedFails) {
  const TemporaryDirectory folder;
  const Command command{.title = "nothing",
                        .arguments = {"/no/such/program"},
                        .log = folder.path() / "log",
                        .environment = {}};

  EXPECT_THAT(RunToEnd(command, {}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("exit code 127")));
}

TEST(ChildProcess, SeesTheEnvironmentItIsGiven) {
  const TemporaryDirectory folder;
  Command command = Shell(folder, "test \"$ISOSCAN_TEST\" = yes && test -z \"$HOME\"");
  command.environment = {{"ISOSCAN_TEST", "yes"}, {"HOME", ""}};

  EXPECT_OK(RunToEnd(command, {}));
}

TEST(ChildProcess, IsStoppedWhenItsOwnerGoes) {
  const TemporaryDirectory folder;
  pid_t id = 0;
  {
    auto child = ChildProcess::Start(Shell(folder, "exec sleep 600"));
    ASSERT_OK(child);
    id = child->id();
    EXPECT_FALSE(child->WaitFor(milliseconds(10), {}));
    EXPECT_EQ(::kill(id, 0), 0);
  }
  EXPECT_EQ(::kill(id, 0), -1);
}

TEST(ChildProcess, WaitingEndsWhenAskedTo) {
  const TemporaryDirectory folder;
  std::stop_source stop;
  stop.request_stop();

  EXPECT_THAT(RunToEnd(Shell(folder, "exec sleep 600"), stop.get_token()),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("interrupted")));
}

TEST(ChildProcess, ReportsItsPeakMemoryWhileItRuns) {
  const TemporaryDirectory folder;
  auto child = ChildProcess::Start(Shell(folder, "exec sleep 600"));
  ASSERT_OK(child);

  EXPECT_GT(child->PeakMemoryBytes(), 0);
}

}  // namespace
}  // namespace isoscan
