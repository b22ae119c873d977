#include "server/aggregation/geometric_median.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "common/random/philox.h"

namespace isoscan {
namespace {

using testing::DoubleNear;
using testing::Each;
using testing::ElementsAre;

using Points = std::vector<std::vector<double>>;

Distances Of(const Points& points) {
  Distances distances(points.size());
  for (std::size_t i = 0; i < points.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      double square = 0;
      for (std::size_t axis = 0; axis < points[i].size(); ++axis) {
        square += std::pow(points[i][axis] - points[j][axis], 2);
      }
      distances.Set(i, j, square);
    }
  }
  return distances;
}

std::vector<double> Equal(std::size_t count) {
  return std::vector<double>(count, 1 / static_cast<double>(count));
}

std::vector<double> MedianOf(const Points& points, const std::vector<double>& shares) {
  const std::vector<double> weights = GeometricMedianWeights(Of(points), shares);
  EXPECT_NEAR(std::accumulate(weights.begin(), weights.end(), 0.0), 1, 1e-12);
  std::vector<double> median(points.front().size(), 0.0);
  for (std::size_t k = 0; k < points.size(); ++k) {
    for (std::size_t axis = 0; axis < median.size(); ++axis) {
      median[axis] += weights[k] * points[k][axis];
    }
  }
  return median;
}

double SumOfDistances(const Points& points, const std::vector<double>& shares,
                      const std::vector<double>& from) {
  double sum = 0;
  for (std::size_t k = 0; k < points.size(); ++k) {
    double square = 0;
    for (std::size_t axis = 0; axis < from.size(); ++axis) {
      square += std::pow(points[k][axis] - from[axis], 2);
    }
    sum += shares[k] * std::sqrt(square);
  }
  return sum;
}

// Fermat's point: from it every side of a triangle is seen under 120 degrees. Of (0, 0), (1, 0),
// (0, 1) both coordinates are 1 / (3 + sqrt 3).
TEST(GeometricMedian, IsFermatsPointOfATriangle) {
  const double place = 1 / (3 + std::sqrt(3.0));
  EXPECT_THAT(MedianOf({{0, 0}, {1, 0}, {0, 1}}, Equal(3)),
              ElementsAre(DoubleNear(place, 1e-9), DoubleNear(place, 1e-9)));
}

TEST(GeometricMedian, IsTheCornerThatSeesTheOthersUnderMoreThan120Degrees) {
  EXPECT_THAT(MedianOf({{0, 0}, {10, 1}, {-10, 1}}, Equal(3)),
              ElementsAre(DoubleNear(0, 1e-4), DoubleNear(0, 1e-4)));
}

TEST(GeometricMedian, IsTheMedianOnALineAndHearsWeights) {
  EXPECT_THAT(MedianOf({{0.2}, {1.0}, {0.5}}, Equal(3)), ElementsAre(DoubleNear(0.5, 1e-5)));
  EXPECT_THAT(MedianOf({{0}, {1}, {100}}, {0.2, 0.2, 0.6}), ElementsAre(DoubleNear(100, 1e-3)));
}

TEST(GeometricMedian, IsWhereHalfOfTheWeightLies) {
  EXPECT_THAT(GeometricMedianWeights(Of({{7}, {1}, {7}, {7}}), {0.2, 0.4, 0.2, 0.2}),
              ElementsAre(DoubleNear(1 / 3.0, 1e-15), 0, DoubleNear(1 / 3.0, 1e-15),
                          DoubleNear(1 / 3.0, 1e-15)));
  EXPECT_THAT(GeometricMedianWeights(Of({{3, 4}}), {1}), ElementsAre(1));
}

TEST(GeometricMedian, HasTheLeastSumOfDistances) {
  RandomStream random(11, "points");
  for (int turn = 0; turn < 50; ++turn) {
    const auto count = static_cast<std::size_t>(3 + random.Below(10));
    Points points(count, std::vector<double>(5));
    std::vector<double> shares(count);
    double sum = 0;
    for (std::size_t k = 0; k < count; ++k) {
      for (double& value : points[k]) value = random.Normal();
      sum += shares[k] = random.Uniform(0.5, 2);
    }
    for (double& share : shares) share /= sum;
    const std::vector<double> median = MedianOf(points, shares);
    const double least = SumOfDistances(points, shares, median);
    for (int step = 0; step < 40; ++step) {
      std::vector<double> beside = median;
      for (double& value : beside) value += 1e-3 * random.Normal();
      EXPECT_LE(least, SumOfDistances(points, shares, beside) + 1e-9);
    }
  }
}

// Whatever a minority sends, also the largest floats: the point stays with the others.
TEST(GeometricMedian, StaysWithTheMajorityHoweverFarTheOthersAre) {
  RandomStream random(12, "points");
  for (const double far : {1e3, 1e8, 1e16, 1e30, 1e38}) {
    Points points(9, std::vector<double>(4));
    for (std::size_t k = 0; k < 9; ++k) {
      for (double& value : points[k]) value = random.Normal() * (k < 3 ? far : 1);
    }
    EXPECT_THAT(MedianOf(points, Equal(9)), Each(DoubleNear(0, 10))) << far;
    for (std::size_t k = 0; k < 3; ++k) points[k] = {far, far, far, far};  // All of one mind.
    EXPECT_THAT(MedianOf(points, Equal(9)), Each(DoubleNear(0, 10))) << far;
  }
}

// An update so far away that its distances to the others differ by their rounding alone: what looks
// like an inner product of 1e44 is none.
TEST(GeometricMedian, IsNotMovedByTheRoundingOfDistancesToOneThatIsFarAway) {
  constexpr double kFar = 1e30;
  Points points(7, std::vector<double>(2));
  RandomStream random(13, "points");
  for (auto& point : points) {
    for (double& value : point) value = random.Normal();
  }
  points[6] = {kFar, 0};
  Distances distances = Of(points);
  for (std::size_t k = 0; k < 6; k += 2) {
    distances.Set(6, k, std::nextafter(distances.Between(6, k), HUGE_VAL));
  }
  const std::vector<double> weights = GeometricMedianWeights(distances, Equal(7));
  EXPECT_LT(weights[6] * kFar, 10);
  for (std::size_t k = 0; k < 6; ++k) {
    EXPECT_GT(weights[k], 0.02) << k;
    EXPECT_LT(weights[k], 0.5) << k;
  }
}

}  // namespace
}  // namespace isoscan
