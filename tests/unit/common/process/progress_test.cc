#include "common/process/progress.h"

#include <gtest/gtest.h>

namespace isoscan {
namespace {

TEST(Progress, SaysNothingAboutShortWork) {
  testing::internal::CaptureStderr();
  {
    Progress progress("reading cases", 3);
    for (int done = 1; done <= 3; ++done) progress.Advance(done);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace isoscan
