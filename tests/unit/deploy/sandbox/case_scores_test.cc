#include "deploy/sandbox/case_scores.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

TEST(CaseScores, CountEachCaseOnceWhateverItsSite) {
  EXPECT_DOUBLE_EQ(MeanOf(CaseScores{{"north", {0.9, 0.9, 0.9}}, {"south", {0.5}}}), 0.8);
}

TEST(CaseScores, NeverCountACaseWithoutLabels) {
  EXPECT_DOUBLE_EQ(MeanOf(std::vector<double>{0.5, kNone, 0.7}), 0.6);
  EXPECT_TRUE(std::isnan(MeanOf(std::vector<double>{kNone})));
}

TEST(CaseScores, AverageTheRepetitionsCaseByCase) {
  const CaseScores mean = *MeanOverRepetitions(
      {{{"north", {0.2, 0.4}}, {"south", {1.0}}}, {{"north", {0.4, kNone}}, {"south", {0.5}}}});

  EXPECT_THAT(mean.at("north"), ElementsAre(DoubleEq(0.3), DoubleEq(0.4)));
  EXPECT_THAT(mean.at("south"), ElementsAre(DoubleEq(0.75)));
}

TEST(CaseScores, RefuseRepetitionsOfOtherCases) {
  EXPECT_THAT(MeanOverRepetitions({{{"north", {0.2, 0.4}}}, {{"north", {0.2}}}}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("north scored 1 cases in repetition 2 and 2 in the first")));
  EXPECT_THAT(MeanOverRepetitions({{{"north", {0.2}}}, {{"south", {0.2}}}}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("north scored 0")));
}

TEST(CaseScores, CountTheCasesThatHaveADice) {
  EXPECT_EQ(CasesWithDice({{"north", {0.2, kNone}}, {"south", {0.9}}}), 2);
}

TEST(BootstrapInterval, HasNoWidthWhereEachSitesCasesAreAlike) {
  const CaseScores scores{{"north", {0.9, 0.9, 0.9}}, {"south", {0.5, 0.5}}};

  const Interval interval = BootstrapInterval(scores);

  EXPECT_NEAR(interval.low, MeanOf(scores), 1e-12);
  EXPECT_NEAR(interval.high, MeanOf(scores), 1e-12);
}

/// The mean of n draws has the deviation sd / sqrt(n); 1.96 of them on either side hold 95 %.
TEST(BootstrapInterval, IsAsWideAsTheNormalApproximationSays) {
  CaseScores scores;
  for (int index = 0; index < 100; ++index) {
    scores["north"].push_back(index % 2 == 0 ? 0.4 : 0.8);
  }

  const Interval interval = BootstrapInterval(scores);

  EXPECT_NEAR(interval.low, 0.6 - 1.96 * 0.02, 0.005);
  EXPECT_NEAR(interval.high, 0.6 + 1.96 * 0.02, 0.005);
}

TEST(PairedDifference, HasNoWidthWhereEveryCaseDiffersByTheSame) {
  const Difference difference = *PairedDifference({{{"north", {0.9, 0.2, 0.6}}, {"south", {0.5}}}},
                                                  {{{"north", {0.8, 0.1, 0.5}}, {"south", {0.4}}}});

  EXPECT_NEAR(difference.mean, 0.1, 1e-12);
  EXPECT_NEAR(difference.interval.low, 0.1, 1e-12);
  EXPECT_NEAR(difference.interval.high, 0.1, 1e-12);
}

TEST(PairedDifference, HoldsWhatOtherSeedsWouldHaveGiven) {
  const CaseScores low{{"north", {0.4, 0.4}}};
  const CaseScores high{{"north", {0.6, 0.6}}};

  const Difference difference = *PairedDifference({low, high}, {low, high});

  EXPECT_NEAR(difference.mean, 0, 1e-12);
  // Both draws of one arm low and of the other high: one sample in sixteen.
  EXPECT_NEAR(difference.interval.low, -0.2, 1e-12);
  EXPECT_NEAR(difference.interval.high, 0.2, 1e-12);
}

TEST(PairedDifference, CountsACaseThatBothArmsScored) {
  const Difference difference =
      *PairedDifference({{{"north", {0.9, 0.5}}}}, {{{"north", {kNone, 0.4}}}});

  EXPECT_NEAR(difference.mean, 0.1, 1e-12);
}

TEST(PairedDifference, RefusesArmsOfOtherCases) {
  EXPECT_THAT(PairedDifference({{{"north", {0.9, 0.5}}}}, {{{"north", {0.4}}}}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("north scored 2 cases in one arm and 1 in another")));
}

}  // namespace
}  // namespace isoscan
