#include "common/statistics/proportion_interval.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/statistics/distributions.h"

namespace isoscan {
namespace {

// The chance that the interval of n cases holds the true proportion, over all outcomes.
double CoverageOf(Interval (*interval)(std::int64_t, std::int64_t, double), std::int64_t n,
                  double truth) {
  double coverage = 0;
  for (std::int64_t hits = 0; hits <= n; ++hits) {
    if (!interval(hits, n, 0.95).Holds(truth)) continue;
    coverage += BinomialProbability(hits, n, truth) - BinomialProbability(hits - 1, n, truth);
  }
  return coverage;
}

TEST(ClopperPearson, CoversAtLeastItsLevelWhateverTheProportion) {
  for (const std::int64_t n : {1, 2, 10, 30}) {
    for (double truth = 0.003; truth < 1; truth += 0.007) {
      EXPECT_GE(CoverageOf(ClopperPearson, n, truth), 0.95) << n << " cases, " << truth;
    }
  }
}

TEST(Wilson, CoversItsLevelOnAverageOverProportions) {
  double sum = 0;
  int count = 0;
  for (double truth = 0.003; truth < 1; truth += 0.007, ++count) {
    sum += CoverageOf(Wilson, 30, truth);
  }
  EXPECT_NEAR(sum / count, 0.95, 0.01);
}

TEST(ClopperPearson, SaysOfNoMissesHowManyThereMayStillBe) {
  // The rule of three, exactly: 1 - 0.025^(1/10).
  const Interval none = ClopperPearson(0, 10, 0.95);
  EXPECT_EQ(none.low, 0);
  EXPECT_NEAR(none.high, 1 - std::pow(0.025, 0.1), 1e-14);
  EXPECT_EQ(ClopperPearson(10, 10, 0.95).high, 1);
}

TEST(ProportionIntervals, MirrorHitsAndTheirOpposite) {
  for (const auto interval : {ClopperPearson, Wilson}) {
    for (std::int64_t hits = 0; hits <= 7; ++hits) {
      const Interval of_hits = interval(hits, 7, 0.9);
      const Interval of_others = interval(7 - hits, 7, 0.9);
      EXPECT_NEAR(of_hits.low, 1 - of_others.high, 1e-14);
      EXPECT_LE(0, of_hits.low);
      EXPECT_LT(of_hits.low, of_hits.high);
    }
  }
}

TEST(ProportionIntervals, GrowWithTheirLevel) {
  for (const auto interval : {ClopperPearson, Wilson}) {
    for (std::int64_t hits = 0; hits <= 5; ++hits) {
      const Interval wide = interval(hits, 5, 0.99);
      const Interval narrow = interval(hits, 5, 0.9);
      EXPECT_LE(wide.low, narrow.low);
      EXPECT_GE(wide.high, narrow.high);
    }
  }
}

}  // namespace
}  // namespace isoscan
