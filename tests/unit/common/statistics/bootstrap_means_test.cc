#include "common/statistics/bootstrap_means.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common/random/philox.h"
#include "tests/support/dice_shapes.h"

namespace isoscan {
namespace {

using testing::ElementsAreArray;
using testing::IsEmpty;

constexpr std::array kMethods = {IntervalMethod::kStudentT, IntervalMethod::kPercentile,
                                 IntervalMethod::kBca, IntervalMethod::kStudentised};
const double kNone = std::numeric_limits<double>::quiet_NaN();

using Series = std::vector<std::vector<double>>;

std::vector<double> SomeDice(std::size_t cases, std::uint64_t number = 0) {
  static const DiceShape shape = SkewedDice(0);
  RandomStream random(1, "dice", number);
  return shape.Sample(cases, random);
}

BootstrapMeans Draw(const Series& series, int replicates = 2000, int threads = 1) {
  return BootstrapMeans::Draw(series, "site", {.replicates = replicates, .threads = threads});
}

std::vector<double> Copy(std::span<const double> values) { return {values.begin(), values.end()}; }

TEST(BootstrapMeans, GivesTheSameBitsWithAnyNumberOfThreads) {
  const Series series = {SomeDice(370, 0), SomeDice(370, 1)};
  const BootstrapMeans one = Draw(series, 1000, 1);
  for (const int threads : {2, 3, 8}) {
    const BootstrapMeans several = Draw(series, 1000, threads);
    for (const std::size_t i : {0U, 1U}) {
      EXPECT_THAT(several.means(i), ElementsAreArray(Copy(one.means(i))));
      EXPECT_THAT(several.t(i), ElementsAreArray(Copy(one.t(i))));
    }
  }
}

TEST(BootstrapMeans, DrawsTheSameCasesForEverySeries) {
  // More series than one block of columns holds; the last one as if alone.
  Series series;
  for (std::uint64_t i = 0; i < 11; ++i) series.push_back(SomeDice(20, i));
  const BootstrapMeans together = Draw(series);
  const BootstrapMeans alone = Draw({series.back()});
  EXPECT_THAT(together.means(10), ElementsAreArray(Copy(alone.means(0))));
}

TEST(BootstrapMeans, OfADifferenceIsTheDifferenceOfTheMeans) {
  Series series = {SomeDice(25, 0), SomeDice(25, 1), {}};
  for (std::size_t i = 0; i < 25; ++i) series[2].push_back(series[0][i] - series[1][i]);
  const BootstrapMeans bootstrap = Draw(series);
  for (std::size_t r = 0; r < bootstrap.means(2).size(); ++r) {
    EXPECT_NEAR(bootstrap.means(2)[r], bootstrap.means(0)[r] - bootstrap.means(1)[r], 1e-14);
  }
}

TEST(BootstrapMeans, KeepsItsFirstReplicates) {
  // Beside this, the draws as such are compared with those of a program in another language
  // (AgainstPeers.BootstrapsTheSameIntervalsFromTheSameDraws).
  const Series series = {{0.1, 0.2, 0.4, 0.8}};
  const BootstrapMeans few = Draw(series, 10);
  const BootstrapMeans many = Draw(series, 1000);
  EXPECT_THAT(Copy(many.means(0).first(10)), ElementsAreArray(Copy(few.means(0))));
}

TEST(BootstrapMeans, DrawsOtherwiseForAnotherSeedOrSite) {
  const Series series = {SomeDice(20)};
  const auto means = [&](std::uint64_t seed, std::string_view site) {
    return Copy(BootstrapMeans::Draw(series, site, {.seed = seed, .replicates = 50}).means(0));
  };
  EXPECT_NE(means(1, "north"), means(2, "north"));
  EXPECT_NE(means(1, "north"), means(1, "south"));
  EXPECT_EQ(means(1, "north"), means(1, "north"));
}

TEST(BootstrapMeans, HasTheMeanAndTheSpreadThatTheoryGives) {
  const std::vector<double> values = SomeDice(30);
  const BootstrapMeans bootstrap = Draw({values}, 20'000);
  const CaseSample replicates = SampleOf(bootstrap.means(0));
  const CaseSample& sample = bootstrap.sample(0);
  // Variance of a replicate's mean: that of the cases, divided by n, over n.
  const double sd = sample.sd * std::sqrt(29.0 / 30) / std::sqrt(30);
  EXPECT_NEAR(replicates.mean, sample.mean, 5 * sd / std::sqrt(20'000));
  EXPECT_NEAR(replicates.sd / sd, 1, 0.03);
}

TEST(BootstrapMeans, DrawsEveryCaseEquallyOften) {
  for (const std::size_t cases : {2U, 3U, 5U, 7U}) {
    Series series(cases, std::vector<double>(cases, 0.0));
    for (std::size_t i = 0; i < cases; ++i) series[i][i] = 1;
    const BootstrapMeans bootstrap = Draw(series, 20'000);
    const double share = 1.0 / static_cast<double>(cases);
    for (std::size_t i = 0; i < cases; ++i) {
      // 20,000 times `cases` draws.
      EXPECT_NEAR(SampleOf(bootstrap.means(i)).mean, share,
                  5 * std::sqrt(share * (1 - share) * share / 20'000));
    }
  }
}

TEST(BootstrapMeans, DoesNotDependOnTheOrderOfCasesBeyondItsDraws) {
  std::vector<double> values = SomeDice(40);
  const BootstrapMeans as_given = Draw({values}, 20'000);
  std::sort(values.begin(), values.end());
  const BootstrapMeans sorted = Draw({values}, 20'000);
  for (const IntervalMethod method : kMethods) {
    const auto a = as_given.MeanInterval(0, method);
    const auto b = sorted.MeanInterval(0, method);
    ASSERT_TRUE(a && b);
    // Some two standard errors of a quantile of 20,000 replicates.
    EXPECT_NEAR(a->low, b->low, 0.05 * (a->high - a->low)) << WordsFor(method);
    EXPECT_NEAR(a->high, b->high, 0.05 * (a->high - a->low)) << WordsFor(method);
  }
}

TEST(BootstrapMeans, MovesAndScalesWithTheValues) {
  const std::vector<double> values = SomeDice(24);
  std::vector<double> mapped = values;
  for (double& value : mapped) value = 3 - 2 * value;
  const BootstrapMeans bootstrap = Draw({values, mapped});
  for (const IntervalMethod method : kMethods) {
    const auto of_values = bootstrap.MeanInterval(0, method);
    const auto of_mapped = bootstrap.MeanInterval(1, method);
    ASSERT_TRUE(of_values && of_mapped);
    EXPECT_NEAR(of_mapped->low, 3 - 2 * of_values->high, 1e-9) << WordsFor(method);
    EXPECT_NEAR(of_mapped->high, 3 - 2 * of_values->low, 1e-9) << WordsFor(method);
  }
}

TEST(BootstrapMeans, GivesWiderIntervalsForHigherLevels) {
  const BootstrapMeans bootstrap = Draw({SomeDice(15)});
  for (const IntervalMethod method : kMethods) {
    Interval last = *bootstrap.MeanInterval(0, method, 0.5);
    for (const double level : {0.7, 0.9, 0.95, 0.99}) {
      const Interval interval = *bootstrap.MeanInterval(0, method, level);
      EXPECT_LT(interval.low, last.low) << WordsFor(method);
      EXPECT_GT(interval.high, last.high) << WordsFor(method);
      EXPECT_EQ(interval.level, level);
      EXPECT_EQ(interval.method, method);
      last = interval;
    }
  }
}

TEST(BootstrapMeans, LeansBcaAndStudentisedTowardsTheLongTail) {
  // Skewed to the left: the true mean may lie far below that of a few cases.
  const BootstrapMeans bootstrap = Draw({SomeDice(20, 3)}, 10'000);
  ASSERT_LT(bootstrap.sample(0).skew, 0);
  const double mean = bootstrap.sample(0).mean;
  for (const IntervalMethod method : {IntervalMethod::kBca, IntervalMethod::kStudentised}) {
    const Interval interval = *bootstrap.MeanInterval(0, method);
    EXPECT_GT(mean - interval.low, interval.high - mean) << WordsFor(method);
  }
}

TEST(BootstrapMeans, GivesNoIntervalWhereCasesSayNothingOfTheirSpread) {
  const Series series = {std::vector<double>(5, 0.9),  // Equal, and not exact in binary.
                         std::vector<double>(5, 0.0),  // All missed.
                         {kNone, kNone, 0.7, kNone, kNone},
                         std::vector<double>(5, kNone),
                         {0.1, 0.2, 0.3, 0.4, 0.5}};
  const BootstrapMeans bootstrap = Draw(series, 100);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_FALSE(bootstrap.sample(i).HasSpread());
    EXPECT_THAT(bootstrap.means(i), IsEmpty());
    for (const IntervalMethod method : kMethods) {
      EXPECT_FALSE(bootstrap.MeanInterval(i, method).has_value());
    }
  }
  EXPECT_EQ(bootstrap.sample(0).mean, 0.9);
  EXPECT_EQ(bootstrap.sample(0).n, 5);
  EXPECT_EQ(bootstrap.sample(2).n, 1);
  EXPECT_EQ(bootstrap.sample(2).mean, 0.7);
  EXPECT_EQ(bootstrap.sample(3).n, 0);
  EXPECT_TRUE(std::isnan(bootstrap.sample(3).mean));
  EXPECT_TRUE(bootstrap.MeanInterval(4, IntervalMethod::kBca).has_value());
}

TEST(BootstrapMeans, TakesNoSeriesAndNoCases) {
  EXPECT_FALSE(Draw({{}}).MeanInterval(0, IntervalMethod::kBca).has_value());
  Draw({});
}

TEST(BootstrapMeans, HasNoSkewnessToCorrectInSymmetricCases) {
  const BootstrapMeans bootstrap = Draw({{0.25, 0.5, 0.5, 0.75}}, 10'000);
  EXPECT_EQ(bootstrap.sample(0).skew, 0);
  const Interval interval = *bootstrap.MeanInterval(0, IntervalMethod::kBca);
  EXPECT_NEAR(interval.low + interval.high, 1, 0.03);
}

TEST(BootstrapMeans, AveragesOnlyCasesThatHaveAValue) {
  // Two series of the same holes share one count, the third has its own.
  const Series series = {{0.5, kNone, 0.7, 0.9, kNone, 0.1},
                         {0.4, kNone, 0.2, 0.3, kNone, 0.6},
                         {0.5, 0.2, 0.7, kNone, 0.3, 0.1},
                         {1, kNone, 1, 2, kNone, 1}};
  const BootstrapMeans bootstrap = Draw(series, 5000);
  EXPECT_EQ(bootstrap.sample(0).n, 4);
  EXPECT_EQ(bootstrap.sample(2).n, 5);
  for (std::size_t i = 0; i < series.size(); ++i) {
    const CaseSample replicates = SampleOf(bootstrap.means(i));
    const CaseSample& sample = bootstrap.sample(i);
    EXPECT_NEAR(replicates.mean, sample.mean, 0.02) << i;
    EXPECT_GE(*std::min_element(bootstrap.means(i).begin(), bootstrap.means(i).end()),
              *std::min_element(bootstrap.values(i).begin(), bootstrap.values(i).end()) - 1e-12);
  }
}

TEST(BootstrapMeans, LeavesOutReplicatesThatDrewNoCaseWithAValue) {
  std::vector<double> values(10, kNone);
  values[3] = 0.2;
  values[7] = 0.8;
  const BootstrapMeans bootstrap = Draw({values}, 10'000);
  // (8/10)^10 of them.
  EXPECT_NEAR(static_cast<double>(bootstrap.means(0).size()), 10'000 * (1 - 0.1074), 5 * 31);
  EXPECT_EQ(bootstrap.t(0).size(), bootstrap.means(0).size());
  EXPECT_TRUE(bootstrap.MeanInterval(0, IntervalMethod::kBca).has_value());
}

TEST(BootstrapMeans, SetsNoBoundWhereReplicatesHaveEqualCases) {
  // Nine misses of ten: a third of the replicates has misses alone.
  std::vector<double> values(10, 0.0);
  values[4] = 0.6;
  const Interval interval = *Draw({values}).MeanInterval(0, IntervalMethod::kStudentised);
  EXPECT_EQ(interval.high, std::numeric_limits<double>::infinity());
  const Interval possible = interval.Within(0, 1);
  EXPECT_EQ(possible.high, 1);
  EXPECT_GE(possible.low, 0);
}

TEST(QuantileInPlace, IsThatOfSortedValues) {
  std::vector<double> values = {0.4, 0.1, 0.3, 0.2};
  EXPECT_DOUBLE_EQ(QuantileInPlace(values, 0), 0.1);
  EXPECT_DOUBLE_EQ(QuantileInPlace(values, 0.5), 0.25);
  EXPECT_DOUBLE_EQ(QuantileInPlace(values, 1), 0.4);
  EXPECT_DOUBLE_EQ(QuantileInPlace(values, 0.1), 0.13);
  const double infinity = std::numeric_limits<double>::infinity();
  std::vector<double> open = {-infinity, 0, infinity};
  EXPECT_EQ(QuantileInPlace(open, 0.5), 0);
  EXPECT_EQ(QuantileInPlace(open, 0.75), infinity);
  EXPECT_EQ(QuantileInPlace(open, 0.25), -infinity);
}

}  // namespace
}  // namespace isoscan
