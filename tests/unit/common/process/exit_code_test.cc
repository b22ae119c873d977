#include "common/process/exit_code.h"

#include <gtest/gtest.h>

namespace isoscan {
namespace {

TEST(ExitCode, FollowsTheTableOfTheOperationsManual) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), ExitCode::kSuccess);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("")), ExitCode::kUsage);
  EXPECT_EQ(ExitCodeOf(absl::OutOfRangeError("")), ExitCode::kUsage);
  EXPECT_EQ(ExitCodeOf(absl::NotFoundError("")), ExitCode::kData);
  EXPECT_EQ(ExitCodeOf(absl::DataLossError("")), ExitCode::kData);
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("")), ExitCode::kUnreachable);
  EXPECT_EQ(ExitCodeOf(absl::DeadlineExceededError("")), ExitCode::kUnreachable);
  EXPECT_EQ(ExitCodeOf(absl::UnauthenticatedError("")), ExitCode::kRefused);
  EXPECT_EQ(ExitCodeOf(absl::PermissionDeniedError("")), ExitCode::kRefused);
  EXPECT_EQ(ExitCodeOf(absl::FailedPreconditionError("")), ExitCode::kWrongState);
  EXPECT_EQ(ExitCodeOf(absl::AlreadyExistsError("")), ExitCode::kWrongState);
  EXPECT_EQ(ExitCodeOf(absl::AbortedError("")), ExitCode::kWrongState);
  EXPECT_EQ(ExitCodeOf(absl::ResourceExhaustedError("")), ExitCode::kResources);
  EXPECT_EQ(ExitCodeOf(absl::UnimplementedError("")), ExitCode::kVersion);
  EXPECT_EQ(ExitCodeOf(absl::CancelledError("")), ExitCode::kInterrupted);
  EXPECT_EQ(ExitCodeOf(absl::InternalError("")), ExitCode::kInternal);
  EXPECT_EQ(ExitCodeOf(absl::UnknownError("")), ExitCode::kInternal);
}

TEST(StatusCodeOf, LeadsBackToTheSameExitCode) {
  for (const int exit_code : {0, 1, 2, 3, 4, 5, 6, 7, 8, 130}) {
    EXPECT_EQ(static_cast<int>(ExitCodeOf(absl::Status(StatusCodeOf(exit_code), ""))), exit_code);
  }
  EXPECT_EQ(StatusCodeOf(127), absl::StatusCode::kNotFound);
  EXPECT_EQ(StatusCodeOf(137), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(StatusCodeOf(139), absl::StatusCode::kInternal);
}

TEST(UsageError, NamesWhatWasMistypedBeforeWhatIsMissing) {
  EXPECT_EQ(UsageError("isoscan-admin", "--config is required", {}),
            "error: --config is required; see isoscan-admin --help\n");
  EXPECT_EQ(UsageError("isoscan-client", "A subcommand is required", {"chekc", "x"}),
            "error: chekc is no command or option; see isoscan-client --help\n");
}

TEST(Report, PrintsTheErrorAndAnswersWithItsNumber) {
  testing::internal::CaptureStderr();
  const int number = Report(absl::NotFoundError("there is no file client.toml"));

  EXPECT_EQ(number, 3);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "error: there is no file client.toml\n");
}

TEST(Report, KeepsTheLinesOfAMessageAndNothingThatDrivesATerminal) {
  testing::internal::CaptureStderr();
  Report(absl::NotFoundError("study \x1b[2J is absent; the log's end:\n  one\n  two\r"));

  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "error: study ?[2J is absent; the log's end:\n  one\n  two?\n");
}

TEST(Report, PrintsNothingForSuccess) {
  testing::internal::CaptureStderr();
  const int number = Report(absl::OkStatus());

  EXPECT_EQ(number, 0);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace isoscan
