#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <string>
#include <system_error>

#include "common/status/file_error.h"
#include "common/status/grpc_status.h"
#include "common/status/printable.h"
#include "common/status/status_macros.h"
#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using testing::_;
using testing::HasSubstr;
using testing::Not;

absl::Status Refusal() { return absl::NotFoundError("no case 7"); }

TEST(StatusMacros, ReturnIfErrorLeavesTheFunctionOnlyOnAnError) {
  bool reached = false;
  const auto run = [&reached](const absl::Status& status) {
    RETURN_IF_ERROR(status);
    reached = true;
    return absl::OkStatus();
  };

  EXPECT_THAT(run(Refusal()), StatusIs(absl::StatusCode::kNotFound, "no case 7"));
  EXPECT_FALSE(reached);
  EXPECT_OK(run(absl::OkStatus()));
  EXPECT_TRUE(reached);
}

TEST(StatusMacros, AssignOrReturnMovesTheValueOut) {
  const auto run =
      [](absl::StatusOr<std::unique_ptr<int>> result) -> absl::StatusOr<std::unique_ptr<int>> {
    ASSIGN_OR_RETURN(std::unique_ptr<int> value, std::move(result));
    ++*value;
    return value;
  };

  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<int> value, run(std::make_unique<int>(4)));
  EXPECT_EQ(*value, 5);
  EXPECT_THAT(run(Refusal()), StatusIs(absl::StatusCode::kNotFound, "no case 7"));
}

TEST(StatusMatchers, TellCodesAndMessagesApart) {
  EXPECT_THAT(Refusal(), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(Refusal(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("case 7")));
  EXPECT_THAT(Refusal(), Not(StatusIs(absl::StatusCode::kNotFound, HasSubstr("case 8"))));
  EXPECT_THAT(Refusal(), Not(StatusIs(absl::StatusCode::kInternal, _)));
  EXPECT_THAT(Refusal(), Not(IsOk()));
  EXPECT_THAT(absl::StatusOr<int>(3), IsOkAndHolds(3));
  EXPECT_THAT(absl::StatusOr<int>(3), Not(IsOkAndHolds(4)));
  EXPECT_THAT(absl::StatusOr<int>(Refusal()), Not(IsOkAndHolds(_)));
  EXPECT_THAT(absl::StatusOr<std::string>("north"), IsOkAndHolds(HasSubstr("or")));
}

TEST(GrpcStatus, EveryCodeSurvivesTheWayThereAndBack) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "st-marys sent 57 tensors");
    EXPECT_EQ(FromGrpcStatus(ToGrpcStatus(status)), status) << status;
  }
}

TEST(GrpcStatus, BringsNothingThatCouldDriveATerminal) {
  EXPECT_THAT(FromGrpcStatus({grpc::StatusCode::NOT_FOUND, "no\x1b[2Jstudy\nerror: forged"}),
              StatusIs(absl::StatusCode::kNotFound, "no?[2Jstudy?error: forged"));
}

TEST(Printable, LeavesTextInEveryScriptAsItIs) {
  for (const std::string text : {"", "st-marys", "Charit\u00e9 \u2013 \u533b\u9662", "\u00a0"}) {
    EXPECT_EQ(Printable(text), text);
  }
}

TEST(Printable, ReplacesWhatForgesLinesDrivesTerminalsOrTurnsText) {
  EXPECT_EQ(Printable(std::string_view("a\0b\tc\r\nd\x7f", 9)), "a?b?c??d?");
  EXPECT_EQ(Printable("\u009b31m"), "?31m") << "the one-character form of ESC [";
  EXPECT_EQ(Printable("\u202eabc\u2066d\u2028e"), "?abc?d?e");
  EXPECT_EQ(Printable("cut \xe2\x80"), "cut \xe2\x80");
}

TEST(FileError, TellsWhatMayMendFromWhatIsDamagedOrMissing) {
  EXPECT_THAT(FileError("cannot write", "model", ENOSPC),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       "cannot write model: No space left on device; free some space and try "
                       "again"));
  EXPECT_THAT(FileError("cannot open", "model", EMFILE),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("Too many open files")));
  EXPECT_THAT(FileError("cannot read", "model", EIO),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("check the disk")));
  EXPECT_THAT(FileError("cannot open", "model", std::make_error_code(std::errc::is_a_directory)),
              StatusIs(absl::StatusCode::kNotFound, "cannot open model: Is a directory"));
}

TEST(GrpcStatus, CodesOfOneNameAreEqual) {
  EXPECT_EQ(ToGrpcStatus(absl::DataLossError("")).error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(ToGrpcStatus(absl::UnauthenticatedError("")).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(ToGrpcStatus(absl::AbortedError("")).error_code(), grpc::StatusCode::ABORTED);
}

}  // namespace
}  // namespace isoscan
