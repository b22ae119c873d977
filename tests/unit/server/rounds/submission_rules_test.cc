#include "server/rounds/submission_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class CertificateRules : public testing::Test {
 protected:
  CertificateRules() {
    cohort_.name = "berlin";
    cohort_.held_out_cases = 5;
    certificate_.cases = 5;
    certificate_.voxels_compared = 100;
    certificate_.curves = {{Perturbation::kGamma, {{0.5, 5, 0.2, 0.7}, {1, 5, 0, 0.8}}}};
  }
  DegradationPoint& point() { return certificate_.curves[0].points[0]; }
  absl::Status Check() const { return CheckCertificate(cohort_, certificate_); }

  SiteRecord cohort_;
  InvarianceCertificate certificate_;
};

TEST_F(CertificateRules, TakeMeansOverEnoughCases) {
  EXPECT_OK(Check());
  point().dice = std::nan("");
  certificate_.largest_logit_change = std::numeric_limits<double>::infinity();
  EXPECT_OK(Check()) << "no case has a Dice, and a mapped scan was refused";
}

TEST_F(CertificateRules, RefuseMeansThatAreNearlyACasesOwnNumber) {
  point().cases = 2;
  EXPECT_THAT(Check(), StatusIs(kInvalid, HasSubstr("berlin, certificate, gamma 0.5: a mean over "
                                                    "2 cases")));
  point().cases = 5;
  certificate_.cases = 2;
  EXPECT_THAT(Check(), StatusIs(kInvalid, HasSubstr("2 cases, allowed are 3 to the 5")));
}

TEST_F(CertificateRules, RefuseMoreCasesThanWereDeclared) {
  certificate_.cases = 6;
  EXPECT_THAT(Check(), StatusIs(kInvalid, HasSubstr("6 cases")));
}

TEST_F(CertificateRules, RefuseAmountsThatNobodyAskedForOrThatComeTwice) {
  point().amount = 0.6;
  EXPECT_THAT(Check(), StatusIs(kInvalid, HasSubstr("gamma 0.6 is not asked for")));
  point().amount = 1;
  EXPECT_THAT(Check(), StatusIs(kInvalid, HasSubstr("gamma 1 is there twice")));
}

TEST_F(CertificateRules, RefuseSharesThatAreNone) {
  point().flipped = 1.5;
  EXPECT_THAT(Check(), StatusIs(kInvalid, HasSubstr("1.5 of the voxels flip")));
  point().flipped = std::nan("");
  EXPECT_THAT(Check(), StatusIs(kInvalid, HasSubstr("of the voxels flip")));
  point() = {0.5, 5, 0.1, -0.1};
  EXPECT_THAT(Check(), StatusIs(kInvalid, HasSubstr("Dice is -0.1")));
}

TEST_F(CertificateRules, RefuseNumbersThatCannotBe) {
  certificate_.largest_logit_change = std::nan("");
  EXPECT_THAT(Check(), StatusIs(kInvalid, HasSubstr("a change of nan")));
  certificate_.largest_logit_change = 0;
  certificate_.voxels_changed = 101;
  EXPECT_THAT(Check(), StatusIs(kInvalid, HasSubstr("101 of 100 compared voxels")));
}

}  // namespace
}  // namespace isoscan
