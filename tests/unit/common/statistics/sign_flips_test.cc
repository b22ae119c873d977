#include "common/statistics/sign_flips.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/random/philox.h"

namespace isoscan {
namespace {

constexpr std::uint64_t kSeed = 1;

std::vector<double> Differences(int n, double centre, std::uint64_t number) {
  RandomStream random(1, "differences", number);
  std::vector<double> differences(static_cast<std::size_t>(n));
  for (double& value : differences) value = centre + 0.03 * random.Normal();
  return differences;
}

TEST(SignFlipProbability, HalvesWithEachDifferenceThatIsAbove) {
  for (int n = 1; n <= 12; ++n) {
    EXPECT_EQ(SignFlipProbability(std::vector<double>(static_cast<std::size_t>(n), 0.1), 0, kSeed),
              std::ldexp(1, -n));
  }
}

TEST(SignFlipProbability, IsOneWithoutDifferencesOrWithNoneAbove) {
  EXPECT_EQ(SignFlipProbability({}, 0, kSeed), 1);
  EXPECT_EQ(SignFlipProbability(std::vector{0.0, 0.0, 0.0}, 0, kSeed), 1);
  EXPECT_EQ(SignFlipProbability(std::vector{-0.1, -0.2}, 0, kSeed), 1);
}

TEST(SignFlipProbability, CountsSumsAsEqualThatDifferByRounding) {
  // 0.1 + 0.2 is not 0.3 in binary: flipping all three gives the same size.
  EXPECT_EQ(SignFlipProbability(std::vector{0.1, 0.2, -0.3}, 0, kSeed), 5.0 / 8);
}

TEST(SignFlipProbability, DoesNotDependOnTheOrderOfCases) {
  std::vector<double> differences = Differences(11, 0.01, 1);
  const double p = SignFlipProbability(differences, 0, kSeed);
  std::sort(differences.begin(), differences.end());
  EXPECT_EQ(SignFlipProbability(differences, 0, kSeed), p);
}

TEST(SignFlipProbability, AgreesWithItselfWhereItStartsToSample) {
  const std::vector<double> exact = Differences(20, 0.012, 3);
  const double p = SignFlipProbability(exact, 0, kSeed);
  // A 21st difference of 0 changes no sum.
  std::vector<double> sampled = exact;
  sampled.push_back(0);
  const double estimate = SignFlipProbability(sampled, 0, kSeed);
  EXPECT_NEAR(estimate, p, 5 * std::sqrt(p * (1 - p) / 10'000) + 1e-4);
  EXPECT_NE(estimate, p);
  EXPECT_EQ(SignFlipProbability(sampled, 0, kSeed), estimate);
  EXPECT_NE(SignFlipProbability(sampled, 0, kSeed + 1), estimate);
}

TEST(SignFlipProbability, FallsAsTheOriginFalls) {
  const std::vector<double> differences = Differences(9, 0, 4);
  double last = 1;
  for (double origin = 0.1; origin > -0.1; origin -= 0.001) {
    const double p = SignFlipProbability(differences, origin, kSeed);
    EXPECT_LE(p, last);
    last = p;
  }
  EXPECT_EQ(last, std::ldexp(1, -9));
}

TEST(SignFlipInterval, HoldsExactlyTheOriginsThatAreNotRejected) {
  const std::vector<double> differences = Differences(8, 0.02, 5);
  for (const double level : {0.8, 0.95}) {
    const auto interval = SignFlipInterval(differences, level);
    ASSERT_TRUE(interval.has_value());
    const double tail = (1 - level) / 2;
    constexpr double kStep = 1e-9;
    EXPECT_LE(SignFlipProbability(differences, interval->low - kStep, kSeed), tail);
    EXPECT_GT(SignFlipProbability(differences, interval->low + kStep, kSeed), tail);

    std::vector<double> negated = differences;
    for (double& value : negated) value = -value;
    EXPECT_LE(SignFlipProbability(negated, -interval->high - kStep, kSeed), tail);
    EXPECT_GT(SignFlipProbability(negated, -interval->high + kStep, kSeed), tail);
  }
}

TEST(SignFlipInterval, OfSixCasesIsTheirRangeAndOfFiveThereIsNone) {
  const std::vector<double> six = {0.03, -0.01, 0.02, 0.05, 0.01, 0.04};
  const auto interval = SignFlipInterval(six, 0.95);
  ASSERT_TRUE(interval.has_value());
  EXPECT_EQ(interval->low, -0.01);
  EXPECT_EQ(interval->high, 0.05);
  EXPECT_FALSE(SignFlipInterval(std::vector(six.begin(), six.end() - 1), 0.95).has_value());
  EXPECT_FALSE(SignFlipInterval({}, 0.95).has_value());
}

TEST(SignFlipInterval, CoversTheCentreOfASymmetricDistributionAsOftenAsItSays) {
  constexpr int kDataSets = 4000;
  int held = 0;
  for (int data_set = 0; data_set < kDataSets; ++data_set) {
    const auto differences = Differences(7, 0.02, static_cast<std::uint64_t>(1000 + data_set));
    held += SignFlipInterval(differences, 0.9)->Holds(0.02);
  }
  // 6 of 128 sums on either side.
  const double coverage = 1 - 12.0 / 128;
  EXPECT_NEAR(held, coverage * kDataSets, 5 * std::sqrt(kDataSets * coverage * (1 - coverage)));
}

}  // namespace
}  // namespace isoscan
