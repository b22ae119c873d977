#include "deploy/sandbox/comparison.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using ::testing::HasSubstr;

TEST(Comparison, KnowsItsArms) {
  EXPECT_THAT(ParseArm("pooled"), IsOkAndHolds(Arm::kPooled));
  EXPECT_THAT(ParseArm("central"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("central")));
}

TEST(SandboxSite, IsANameAndAFolder) {
  EXPECT_THAT(ParseSandboxSite("north"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("NAME=FOLDER")));
  EXPECT_THAT(ParseSandboxSite("North Pole=/"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("lower-case")));
  EXPECT_THAT(ParseSandboxSite("north=/no/such/folder"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such/folder")));
}

}  // namespace
}  // namespace isoscan
