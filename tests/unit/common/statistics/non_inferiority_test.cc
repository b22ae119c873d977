#include "common/statistics/non_inferiority.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "common/random/philox.h"

namespace isoscan {
namespace {

using testing::ElementsAre;

constexpr double kMargin = 0.01;

Comparison Compare(const std::vector<double>& differences, double margin = kMargin) {
  const std::vector<std::vector<double>> series = {differences};
  return CompareWithMargin(BootstrapMeans::Draw(series, "site", {.replicates = 2000}), 0, margin);
}

std::vector<double> Differences(int n, double centre, double sd = 0.01) {
  RandomStream random(1, "differences", static_cast<std::uint64_t>(n));
  std::vector<double> differences(static_cast<std::size_t>(n));
  for (double& value : differences) value = centre + sd * random.Normal();
  return differences;
}

Verdict VerdictOf(const std::vector<double>& differences, double margin = kMargin) {
  return Verdicts(std::vector{Compare(differences, margin)}).front();
}

TEST(Verdicts, NamesWhatManyCasesShow) {
  EXPECT_EQ(VerdictOf(Differences(40, 0.02)), Verdict::kBetter);
  EXPECT_EQ(VerdictOf(Differences(40, 0.0)), Verdict::kNotWorse);
  EXPECT_EQ(VerdictOf(Differences(40, -0.01)), Verdict::kCannotTell);
  EXPECT_EQ(VerdictOf(Differences(40, -0.03)), Verdict::kHarmed);
  EXPECT_EQ(VerdictOf(Differences(40, 0.0, 0.2)), Verdict::kCannotTell);
}

TEST(Verdicts, NamesWhatFewCasesShow) {
  EXPECT_EQ(VerdictOf(Differences(8, 0.03)), Verdict::kBetter);
  EXPECT_EQ(VerdictOf(Differences(8, -0.05)), Verdict::kHarmed);
  EXPECT_EQ(VerdictOf({0.0, 0.002, -0.001, 0.001, -0.003, 0.0}), Verdict::kNotWorse);
  EXPECT_EQ(VerdictOf({0.02, 0.03, -0.04, 0.01, -0.02, 0.0}), Verdict::kCannotTell);
}

TEST(Verdicts, CannotTellFromFiveCasesWhateverTheySay) {
  const Comparison five = Compare({0.2, 0.3, 0.25, 0.4, 0.3});
  EXPECT_EQ(five.p_better, 1.0 / 32);
  EXPECT_FALSE(five.interval.has_value());
  EXPECT_THAT(Verdicts(std::vector{five}), ElementsAre(Verdict::kCannotTell));
  EXPECT_THAT(Verdicts(std::vector{Compare({0.3})}), ElementsAre(Verdict::kCannotTell));
  EXPECT_THAT(Verdicts(std::vector{Compare({})}), ElementsAre(Verdict::kCannotTell));
  EXPECT_EQ(Compare({}).p_harmed, 1);
}

TEST(Verdicts, CanTellFromSixCasesOnlyOfASingleSite) {
  const Comparison six = Compare({0.2, 0.3, 0.25, 0.4, 0.3, 0.1});
  EXPECT_EQ(six.p_better, 1.0 / 64);
  EXPECT_THAT(Verdicts(std::vector{six}), ElementsAre(Verdict::kBetter));
  EXPECT_THAT(Verdicts(std::vector{six, Compare({})}),
              ElementsAre(Verdict::kCannotTell, Verdict::kCannotTell));
  // One site's clear answer leaves the other its own level.
  EXPECT_THAT(Verdicts(std::vector{six, Compare(Differences(40, 0.05))}),
              ElementsAre(Verdict::kBetter, Verdict::kBetter));
}

TEST(Verdicts, FollowTheMargin) {
  const std::vector<double> differences = Differences(30, -0.015);
  EXPECT_EQ(VerdictOf(differences, 0), Verdict::kHarmed);
  EXPECT_EQ(VerdictOf(differences, 0.015), Verdict::kCannotTell);
  EXPECT_EQ(VerdictOf(differences, 0.05), Verdict::kNotWorse);
  double last = 1;
  for (double margin = 0; margin < 0.05; margin += 0.001) {
    const Comparison comparison = Compare(differences, margin);
    EXPECT_LE(comparison.p_not_worse, last);
    EXPECT_LE(comparison.p_not_worse, comparison.p_better);
    last = comparison.p_not_worse;
  }
}

TEST(Verdicts, OfModelsThatAgreeOnEveryCaseDependOnTheMargin) {
  for (const std::size_t n : {10U, 40U}) {
    const std::vector<double> none(n, 0.0);
    EXPECT_FALSE(Compare(none).interval.has_value());
    EXPECT_EQ(VerdictOf(none), Verdict::kNotWorse) << n;
    EXPECT_EQ(VerdictOf(none, 0), Verdict::kCannotTell) << n;
  }
}

TEST(CompareWithMargin, UsesSignFlipsBelowFifteenCases) {
  EXPECT_EQ(Compare(Differences(14, 0)).interval->method, IntervalMethod::kSignFlips);
  EXPECT_EQ(Compare(Differences(15, 0)).interval->method, IntervalMethod::kStudentised);
}

TEST(CompareWithMargin, AgreesWithItsInterval) {
  for (const int n : {8, 14, 15, 60}) {
    for (const double centre : {-0.02, -0.01, 0.0, 0.006, 0.02}) {
      const Comparison comparison = Compare(Differences(n, centre));
      ASSERT_TRUE(comparison.interval.has_value());
      EXPECT_EQ(comparison.p_better <= 0.025, comparison.interval->low > 0) << n << ' ' << centre;
      EXPECT_EQ(comparison.p_not_worse <= 0.025, comparison.interval->low > -kMargin)
          << n << ' ' << centre;
      EXPECT_EQ(comparison.p_harmed <= 0.025, comparison.interval->high < -kMargin)
          << n << ' ' << centre;
    }
  }
}

TEST(CompareWithMargin, MirrorsBetterAndHarmed) {
  for (const int n : {9, 25}) {
    std::vector<double> differences = Differences(n, 0.004);
    const Comparison comparison = Compare(differences, 0);
    for (double& value : differences) value = -value;
    const Comparison mirrored = Compare(differences, 0);
    EXPECT_EQ(comparison.p_better, mirrored.p_harmed);
    EXPECT_EQ(comparison.p_harmed, mirrored.p_better);
  }
}

TEST(WordsForVerdict, AreTheReportsOwn) {
  EXPECT_EQ(WordsFor(Verdict::kBetter), "better");
  EXPECT_EQ(WordsFor(Verdict::kNotWorse), "not worse");
  EXPECT_EQ(WordsFor(Verdict::kCannotTell), "cannot tell");
  EXPECT_EQ(WordsFor(Verdict::kHarmed), "harmed");
}

}  // namespace
}  // namespace isoscan
