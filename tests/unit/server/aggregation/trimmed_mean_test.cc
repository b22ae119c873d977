#include "server/aggregation/trimmed_mean.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <span>

#include "common/random/philox.h"

namespace isoscan {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::Pointwise;

// What a reducer makes of sites' rows of values.
std::vector<double> Reduced(const BlockReducer& reducer,
                            const std::vector<std::vector<float>>& rows) {
  const std::vector<std::span<const float>> updates(rows.begin(), rows.end());
  std::vector<double> output(rows.front().size());
  reducer.Reduce({.tensor = "w", .updates = updates, .model = {}, .state = {}},
                 {.model = output, .state = {}});
  return output;
}

std::vector<double> Median(const std::vector<std::vector<float>>& rows) {
  return Reduced(TrimmedMean(rows.size(), (rows.size() - 1) / 2), rows);
}

// By the principle that a network which sorts zeros and ones sorts everything.
TEST(SortingNetwork, SortsEveryRowOfZerosAndOnes) {
  for (std::size_t count = 0; count <= 14; ++count) {
    const auto network = SortingNetwork(count);
    for (unsigned bits = 0; bits < (1U << count); ++bits) {
      std::vector<int> values(count);
      for (std::size_t i = 0; i < count; ++i) values[i] = (bits >> i) & 1;
      for (const auto& [upper, lower] : network) {
        ASSERT_LT(upper, lower);
        if (values[lower] < values[upper]) std::swap(values[lower], values[upper]);
      }
      ASSERT_TRUE(std::is_sorted(values.begin(), values.end())) << count << " " << bits;
    }
  }
}

TEST(SortingNetwork, SortsTwoHundredValues) {
  RandomStream random(8, "values");
  std::vector<double> values(200);
  for (double& value : values) value = random.Normal();
  std::vector<double> expected = values;
  std::sort(expected.begin(), expected.end());
  for (const auto& [upper, lower] : SortingNetwork(values.size())) {
    if (values[lower] < values[upper]) std::swap(values[lower], values[upper]);
  }
  EXPECT_EQ(values, expected);
}

// Flower's FedMedian: .2, 1.0, .5 -> .5.
TEST(CoordinateMedian, GivesFlowersValue) {
  EXPECT_THAT(Median({{0.2F}, {1}, {0.5F}}), ElementsAre(0.5));
}

TEST(CoordinateMedian, IsTheMeanOfTheTwoInTheMiddle) {
  EXPECT_THAT(Median({{1, 9}, {4, 0}, {2, 1}, {100, 2}}), ElementsAre(3, 1.5));
  // In float the sum of the two would be infinite.
  EXPECT_THAT(Median({{3e38F}, {3e38F}}), ElementsAre(double{3e38F}));
}

// Flower's FedTrimmedAvg(.25), which counts every site the same: [.5] * 4, and 1.5 of four scalars.
TEST(TrimmedMean, GivesFlowersValues) {
  const TrimmedMean quarter(4, TrimmedOf(0.25, 4));
  EXPECT_THAT(Reduced(quarter, {{0.5F, 0.5F, 0.5F, 0.5F},
                                {1, 0.2F, 0.5F, 1},
                                {0.2F, 0.5F, 1, 0.2F},
                                {0.5F, 1, 0.2F, 0.5F}}),
              ElementsAre(0.5, 0.5, 0.5, 0.5));
  EXPECT_THAT(Reduced(quarter, {{0.5F}, {1}, {2}, {100}}), ElementsAre(1.5));
}

TEST(TrimmedMean, TrimsWholeUpdatesAsSciPy) {
  EXPECT_EQ(TrimmedOf(0.1, 10), 1U);
  EXPECT_EQ(TrimmedOf(0.1, 9), 0U);
  EXPECT_EQ(TrimmedOf(0.29, 100), 29U);  // 28.999999999999996 in double.
  EXPECT_EQ(TrimmedOf(0.49, 3), 1U);
  EXPECT_EQ(TrimmedOf(0.4999999999, 2), 0U);
  EXPECT_EQ(TrimmedOf(0, 7), 0U);
}

TEST(TrimmedMean, IsThatOfSortedValuesForAnyNumberOfSites) {
  RandomStream random(9, "values");
  for (std::size_t sites = 1; sites <= 33; ++sites) {
    std::vector<std::vector<float>> rows(sites, std::vector<float>(700));
    for (auto& row : rows) random.FillNormal(row, 1);
    for (std::size_t trimmed = 0; trimmed <= (sites - 1) / 2; ++trimmed) {
      std::vector<double> expected;
      for (std::size_t i = 0; i < rows.front().size(); ++i) {
        std::vector<double> column;
        for (const auto& row : rows) column.push_back(row[i]);
        std::sort(column.begin(), column.end());
        const std::span kept = std::span(column).subspan(trimmed, sites - 2 * trimmed);
        expected.push_back(std::accumulate(kept.begin(), kept.end(), 0.0) /
                           static_cast<double>(kept.size()));
      }
      EXPECT_THAT(Reduced(TrimmedMean(sites, trimmed), rows),
                  Pointwise(DoubleNear(1e-12), expected))
          << sites << " " << trimmed;
    }
  }
}

// Flower's test of Bulyan's second half, whose reference is the median here: 1, 2 and .5 with two
// nearest give .75; and all of them their mean.
TEST(MeanAroundMedian, GivesFlowersValues) {
  EXPECT_THAT(Reduced(MeanAroundMedian(3, 2), {{1}, {2}, {0.5F}}), ElementsAre(0.75));
  EXPECT_THAT(Reduced(MeanAroundMedian(3, 3), {{1}, {2}, {0.75F}}), ElementsAre(1.25));
  EXPECT_THAT(Reduced(MeanAroundMedian(3, 1), {{1}, {-0.5F}, {10}}), ElementsAre(1));
}

TEST(MeanAroundMedian, TakesTheSmallerOfTwoThatAreAsNear) {
  EXPECT_THAT(Reduced(MeanAroundMedian(3, 2), {{3}, {2}, {1}}), ElementsAre(1.5));
}

TEST(MeanAroundMedian, TakesTheNearestByDistanceForAnyNumberOfSites) {
  RandomStream random(10, "values");
  for (std::size_t sites = 1; sites <= 12; ++sites) {
    std::vector<std::vector<float>> rows(sites, std::vector<float>(500));
    for (auto& row : rows) random.FillNormal(row, 1);
    for (std::size_t nearest = 1; nearest <= sites; ++nearest) {
      std::vector<double> expected;
      for (std::size_t i = 0; i < rows.front().size(); ++i) {
        std::vector<double> column;
        for (const auto& row : rows) column.push_back(row[i]);
        std::sort(column.begin(), column.end());
        const double median = (column[(sites - 1) / 2] + column[sites / 2]) / 2;
        std::stable_sort(column.begin(), column.end(), [&](double a, double b) {
          return std::abs(a - median) < std::abs(b - median);
        });
        expected.push_back(std::accumulate(column.begin(),
                                           column.begin() + static_cast<std::ptrdiff_t>(nearest),
                                           0.0) /
                           static_cast<double>(nearest));
      }
      EXPECT_THAT(Reduced(MeanAroundMedian(sites, nearest), rows),
                  Pointwise(DoubleNear(1e-12), expected))
          << sites << " " << nearest;
    }
  }
}

}  // namespace
}  // namespace isoscan
