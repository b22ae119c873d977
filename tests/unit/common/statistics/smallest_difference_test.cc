#include "common/statistics/smallest_difference.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "common/random/philox.h"
#include "common/statistics/bootstrap_means.h"
#include "common/statistics/distributions.h"

namespace isoscan {
namespace {

std::vector<double> NormalCases(std::size_t n, double mean, double sd, RandomStream& random) {
  std::vector<double> cases(n);
  for (double& value : cases) value = mean + sd * random.Normal();
  return cases;
}

constexpr int kStudies = 4000;
// Five standard errors of a share of 0.8.
constexpr double kFiveErrors = 5 * 0.4 / 63.2;

TEST(SmallestPairedDifference, IsFoundInFourStudiesOfFive) {
  for (const std::size_t n : {5U, 15U, 60U}) {
    const double difference =
        *SmallestPairedDifference({.n = static_cast<std::int64_t>(n), .sd = 0.03});
    const double critical = StudentTQuantile(0.975, static_cast<double>(n - 1));
    int found = 0;
    for (int study = 0; study < kStudies; ++study) {
      RandomStream random(1, "paired", static_cast<std::uint64_t>(study),
                          static_cast<std::uint32_t>(n));
      const CaseSample sample = SampleOf(NormalCases(n, difference, 0.03, random));
      found +=
          std::fabs(sample.mean) > critical * sample.sd / std::sqrt(static_cast<double>(sample.n));
    }
    EXPECT_NEAR(found / double{kStudies}, 0.8, kFiveErrors) << n;
  }
}

TEST(SmallestDifference, IsFoundInFourStudiesOfFive) {
  const CaseSpread first{.n = 8, .sd = 0.1};
  const CaseSpread second{.n = 40, .sd = 0.04};
  const double difference = *SmallestDifference(first, second);
  int found = 0;
  for (int study = 0; study < kStudies; ++study) {
    RandomStream random(1, "unpaired", static_cast<std::uint64_t>(study));
    const CaseSample a = SampleOf(NormalCases(8, 0.9, first.sd, random));
    const CaseSample b = SampleOf(NormalCases(40, 0.9 - difference, second.sd, random));
    const double of_a = a.sd * a.sd / 8;
    const double of_b = b.sd * b.sd / 40;
    const double degrees = (of_a + of_b) * (of_a + of_b) / (of_a * of_a / 7 + of_b * of_b / 39);
    found += std::fabs(a.mean - b.mean) > StudentTQuantile(0.975, degrees) * std::sqrt(of_a + of_b);
  }
  EXPECT_NEAR(found / double{kStudies}, 0.8, kFiveErrors);
}

TEST(SmallestDifference, ApproachesTheNormalFormulaForManyCases) {
  // (1.96 + 0.84) standard errors.
  const CaseSpread many{.n = 100'000, .sd = 0.05};
  EXPECT_NEAR(*SmallestDifference(many, many) / (2.8015852 * 0.05 * std::sqrt(2e-5)), 1, 1e-5);
  // Two sites of 15 cases: 0.051 by that formula, somewhat more by the exact one.
  const CaseSpread few{.n = 15, .sd = 0.05};
  EXPECT_NEAR(*SmallestDifference(few, few), 0.053, 0.0005);
}

TEST(SmallestDifference, IsUnknownWithoutSpread) {
  const CaseSpread usual{.n = 10, .sd = 0.1};
  EXPECT_FALSE(SmallestPairedDifference({.n = 1, .sd = 0}).has_value());
  EXPECT_FALSE(SmallestPairedDifference({.n = 10, .sd = 0}).has_value());
  EXPECT_FALSE(SmallestDifference(usual, {.n = 1, .sd = 0}).has_value());
  EXPECT_FALSE(SmallestDifference({.n = 5, .sd = 0}, {.n = 5, .sd = 0}).has_value());
  // One side without spread is a comparison with a constant.
  EXPECT_NEAR(*SmallestDifference(usual, {.n = 1000, .sd = 0}), *SmallestPairedDifference(usual),
              1e-12);
}

TEST(SmallestDifference, GrowsWithPowerAndLevelAndFallsWithCases) {
  const CaseSpread cases{.n = 10, .sd = 0.1};
  EXPECT_LT(*SmallestPairedDifference(cases, 0.95, 0.8),
            *SmallestPairedDifference(cases, 0.95, 0.9));
  EXPECT_LT(*SmallestPairedDifference(cases, 0.9, 0.8),
            *SmallestPairedDifference(cases, 0.95, 0.8));
  EXPECT_GT(*SmallestPairedDifference(cases), *SmallestPairedDifference({.n = 11, .sd = 0.1}));
}

}  // namespace
}  // namespace isoscan
