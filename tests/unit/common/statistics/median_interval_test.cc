#include "common/statistics/median_interval.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "common/random/philox.h"

namespace isoscan {
namespace {

std::vector<double> Ranks(int n) {
  std::vector<double> ranks;
  for (int i = 1; i <= n; ++i) ranks.push_back(i);
  return ranks;
}

TEST(MedianInterval, NeedsSixCasesAtNinetyFivePerCent) {
  // Of 5 cases one in 16 has all on one side of the median.
  EXPECT_FALSE(MedianInterval(Ranks(5), 0.95).has_value());
  EXPECT_FALSE(MedianInterval({}, 0.95).has_value());
  const auto interval = MedianInterval(Ranks(6), 0.95);
  ASSERT_TRUE(interval.has_value());
  EXPECT_EQ(interval->low, 1);
  EXPECT_EQ(interval->high, 6);
  EXPECT_TRUE(MedianInterval(Ranks(5), 0.9).has_value());
}

TEST(MedianInterval, TakesTheInnermostPairThatCoversItsLevel) {
  // Published tables for n = 20: the 6th and the 15th case, 95.9 %.
  const auto interval = MedianInterval(Ranks(20), 0.95);
  ASSERT_TRUE(interval.has_value());
  EXPECT_EQ(interval->low, 6);
  EXPECT_EQ(interval->high, 15);
}

TEST(MedianInterval, CoversTheMedianOfASkewedDistribution) {
  constexpr int kDataSets = 4000;
  int held = 0;
  for (int data_set = 0; data_set < kDataSets; ++data_set) {
    RandomStream random(1, "median", static_cast<std::uint64_t>(data_set));
    std::vector<double> values(20);
    for (double& value : values) value = -NaturalLogarithm(1 - random.Uniform());
    std::sort(values.begin(), values.end());
    held += MedianInterval(values, 0.95)->Holds(0.6931471805599453);
  }
  EXPECT_NEAR(held, 0.9586 * kDataSets, 5 * 12.6);
}

TEST(MedianInterval, OfEqualCasesIsTheirValue) {
  const auto interval = MedianInterval(std::vector<double>(9, 0.5), 0.95);
  ASSERT_TRUE(interval.has_value());
  EXPECT_EQ(interval->low, 0.5);
  EXPECT_EQ(interval->high, 0.5);
}

}  // namespace
}  // namespace isoscan
