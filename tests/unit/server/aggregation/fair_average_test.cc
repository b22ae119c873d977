#include "server/aggregation/fair_average.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using testing::DoubleEq;
using testing::DoubleNear;
using testing::ElementsAre;
using testing::Pair;

// w = [1, 2], L = 10; clients [0.5, 2.5] with loss 0.4 and [0, 1] with loss 0.9.
std::vector<double> Result(double q) {
  const auto factors = FairFactors(q, 10, {{0.5, 0.4, 0.5}, {0.5, 0.9, 2}});
  EXPECT_OK(factors);
  if (!factors.ok()) return {};
  const std::vector<double>& f = *factors;
  return {1 + f[0] * -0.5 + f[1] * -1, 2 + f[0] * 0.5 + f[1] * -1};
}

TEST(FairFactors, GivePublishedNumbers) {
  const auto near = [](double value) { return DoubleNear(value, 6e-13); };
  EXPECT_THAT(Result(0), ElementsAre(near(0.25), near(1.75)));
  EXPECT_THAT(Result(0.1), ElementsAre(near(0.724171492660), near(1.898253803468)));
  EXPECT_THAT(Result(1), ElementsAre(near(0.958174904943), near(1.973384030418)));
  EXPECT_THAT(Result(5), ElementsAre(near(0.991090448825), near(1.991243625911)));
}

// Flower adds 1e-10 to each loss.
TEST(FairFactors, AreFlowersUpToWhatItAddsToTheLoss) {
  EXPECT_THAT(Result(0.1),
              ElementsAre(DoubleNear(0.724171492633, 1e-10), DoubleNear(1.898253803459, 1e-10)));
}

TEST(FairFactors, AreTheSharesWhereFairnessIsNotAskedFor) {
  ASSERT_OK_AND_ASSIGN(const auto factors,
                       FairFactors(0, 3, {{0.1, 7, 1}, {0.2, 0, 5}, {0.7, 1e-3, 0}}));
  EXPECT_THAT(factors, ElementsAre(DoubleEq(0.1), DoubleEq(0.2), DoubleEq(0.7)));
}

// However far the losses are apart, numbers come out, and the worst site counts most.
TEST(FairFactors, StayNumbersForLargePowersAndSmallLosses) {
  for (const double q : {0.0, 0.01, 1.0, 100.0}) {
    ASSERT_OK_AND_ASSIGN(const auto factors,
                         FairFactors(q, 100, {{0.5, 0, 1}, {0.25, 1e9, 1}, {0.25, 3, 0}}));
    for (const double factor : factors) EXPECT_TRUE(factor >= 0 && std::isfinite(factor)) << q;
    EXPECT_LE(std::accumulate(factors.begin(), factors.end(), 0.0), 1 + 1e-12);
    if (q >= 1) {
      EXPECT_GT(factors[1], factors[2]);
    }
  }
}

TEST(FairFactors, RefuseNumbersThatAreNone) {
  for (const double bad : {-1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    EXPECT_THAT(FairFactors(1, 1, {{0.5, bad, 1}}),
                StatusIs(absl::StatusCode::kInvalidArgument, testing::HasSubstr("a loss of")));
  }
}

TEST(NearestOnSimplex, LeavesWhatLiesThereAndMovesTheRestStraight) {
  EXPECT_THAT(NearestOnSimplex({0.2, 0.3, 0.5}),
              ElementsAre(DoubleEq(0.2), DoubleEq(0.3), DoubleEq(0.5)));
  EXPECT_THAT(NearestOnSimplex({0.5, 0.5, 0.3}),
              ElementsAre(DoubleNear(0.4, 1e-12), DoubleNear(0.4, 1e-12), DoubleNear(0.2, 1e-12)));
  EXPECT_THAT(NearestOnSimplex({2, 0.5, -1}), ElementsAre(DoubleEq(1), 0, 0));
  EXPECT_THAT(NearestOnSimplex({-7}), ElementsAre(DoubleEq(1)));
}

// Of many points of the simplex none is nearer.
TEST(NearestOnSimplex, IsTheNearest) {
  const std::vector<double> point = {0.9, -0.2, 0.6};
  const std::vector<double> nearest = NearestOnSimplex(point);
  const auto distance = [&](const std::vector<double>& other) {
    double sum = 0;
    for (std::size_t i = 0; i < 3; ++i) sum += (point[i] - other[i]) * (point[i] - other[i]);
    return sum;
  };
  EXPECT_DOUBLE_EQ(std::accumulate(nearest.begin(), nearest.end(), 0.0), 1);
  for (double a = 0; a <= 1; a += 0.01) {
    for (double b = 0; a + b <= 1; b += 0.01) {
      EXPECT_GE(distance({a, b, 1 - a - b}), distance(nearest) - 1e-12);
    }
  }
}

TEST(LambdaFor, StartsWithTheShares) {
  const SiteShares shares = {{"a", 0.25}, {"b", 0.75}};
  EXPECT_EQ(LambdaFor({}, shares), shares);
  EXPECT_EQ(LambdaFor({{"gone", 1}}, shares), shares);
}

TEST(LambdaFor, MakesRoomForASiteThatComesLateAndDividesWhatOneLeaves) {
  EXPECT_THAT(LambdaFor({{"a", 0.5}, {"b", 0.5}}, {{"a", 0.4}, {"b", 0.4}, {"late", 0.2}}),
              ElementsAre(Pair("a", DoubleNear(0.4, 1e-12)), Pair("b", DoubleNear(0.4, 1e-12)),
                          Pair("late", DoubleNear(0.2, 1e-12))));
  EXPECT_THAT(LambdaFor({{"a", 0.2}, {"b", 0.3}, {"gone", 0.5}}, {{"a", 0.5}, {"b", 0.5}}),
              ElementsAre(Pair("a", DoubleNear(0.4, 1e-12)), Pair("b", DoubleNear(0.6, 1e-12))));
}

// Only differences of losses count, so a site that sent none stays where it is beside the mean.
TEST(LambdaAfter, MovesTowardsTheSitesWithTheLargerLoss) {
  const SiteShares lambda = {{"a", 0.2}, {"b", 0.3}, {"c", 0.5}};
  const auto near = [](double value) { return DoubleNear(value, 1e-12); };
  EXPECT_THAT(LambdaAfter(lambda, {{"a", 2}, {"b", 1}, {"c", 1.5}}, 0.1),
              ElementsAre(Pair("a", near(0.25)), Pair("b", near(0.25)), Pair("c", near(0.5))));
  EXPECT_THAT(LambdaAfter(lambda, {{"a", -0.5}, {"b", -0.7}}, 0.5),
              ElementsAre(Pair("a", near(0.25)), Pair("b", near(0.25)), Pair("c", near(0.5))));
  EXPECT_THAT(LambdaAfter(lambda, {{"a", 100}, {"b", 1}, {"c", 1}}, 0.1),
              ElementsAre(Pair("a", 1), Pair("b", 0), Pair("c", 0)));
}

}  // namespace
}  // namespace isoscan
