#include "common/statistics/spread_over_sites.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "common/random/philox.h"
#include <omp.h>

namespace isoscan {
namespace {

using testing::Each;

/// A site whose mean has a normal error.
SiteMean NormalSite(double mean, double standard_error, std::uint64_t number,
                    std::size_t replicates = 1000) {
  SiteMean site{.mean = mean, .errors = std::vector<double>(replicates)};
  RandomStream random(2, "errors", number);
  for (double& error : site.errors) error = standard_error * random.Normal();
  return site;
}

std::vector<SiteMean> NormalSites(const std::vector<double>& means, double standard_error,
                                  std::size_t replicates = 1000) {
  std::vector<SiteMean> sites;
  for (std::size_t i = 0; i < means.size(); ++i) {
    sites.push_back(NormalSite(means[i], standard_error, i, replicates));
  }
  return sites;
}

void ExpectNear(const Spread& a, const Spread& b, double tolerance) {
  EXPECT_NEAR(a.observed, b.observed, tolerance);
  EXPECT_NEAR(a.interval.low, b.interval.low, tolerance);
  EXPECT_NEAR(a.interval.high, b.interval.high, tolerance);
}

TEST(CompareSites, IsTheDifferenceOfTwoSitesThatLieFarApart) {
  const auto spread = CompareSites(NormalSites({0.5, 0.8}, 0.01, 20'000));
  ASSERT_TRUE(spread.has_value());
  const double half = 1.96 * 0.01 * std::sqrt(2);
  EXPECT_DOUBLE_EQ(spread->gap.observed, 0.3);
  EXPECT_NEAR(spread->gap.interval.low, 0.3 - half, 0.0015);
  EXPECT_NEAR(spread->gap.interval.high, 0.3 + half, 0.0015);
  // Of two sites, half of it.
  EXPECT_NEAR(spread->sd.interval.low, spread->gap.interval.low / 2, 1e-6);
  EXPECT_NEAR(spread->sd.interval.high, spread->gap.interval.high / 2, 1e-6);
  EXPECT_LT(spread->p_equal, 0.001);
}

TEST(CompareSites, DoesNotTellSitesApartThatNoiseExplains) {
  const auto spread = CompareSites(NormalSites({0.80, 0.81, 0.79, 0.80}, 0.03));
  ASSERT_TRUE(spread.has_value());
  EXPECT_EQ(spread->gap.interval.low, 0);
  EXPECT_EQ(spread->sd.interval.low, 0);
  ASSERT_TRUE(spread->jain_on_error.has_value());
  EXPECT_EQ(spread->jain_on_error->interval.high, 1);
  EXPECT_GT(spread->p_equal, 0.9);
}

TEST(CompareSites, HasJainsIndexOfErrors) {
  // Jain's index of the scores is 0.970 for the first: no alarm.
  EXPECT_NEAR(CompareSites(NormalSites({0.95, 0.95, 0.95, 0.60}, 0.01))->jain_on_error->observed,
              0.4515, 0.0005);
  EXPECT_NEAR(CompareSites(NormalSites({0.95, 0.95, 0.95, 0.90}, 0.01))->jain_on_error->observed,
              0.893, 0.0005);
  EXPECT_FALSE(CompareSites(NormalSites({1, 1}, 0.01))->jain_on_error.has_value());
}

TEST(CompareSites, HasTheStandardDeviationOverTheSites) {
  EXPECT_NEAR(CompareSites(NormalSites({0.95, 0.95, 0.95, 0.60}, 0.01))->sd.observed, 0.1516,
              0.0001);
}

TEST(CompareSites, NeedsTwoSites) {
  EXPECT_FALSE(CompareSites({}).has_value());
  EXPECT_FALSE(CompareSites(NormalSites({0.8}, 0.01)).has_value());
}

TEST(CompareSites, BoundsTheGapOfSitesThatScoreTheSame) {
  const auto spread = CompareSites(NormalSites({0.75, 0.75, 0.75}, 0.02));
  ASSERT_TRUE(spread.has_value());
  EXPECT_EQ(spread->gap.observed, 0);
  EXPECT_EQ(spread->gap.interval.low, 0);
  EXPECT_EQ(spread->p_equal, 1);
  // Such a coincidence leaves little room for a gap; it cannot leave none.
  EXPECT_GE(spread->gap.interval.high, 0);
  EXPECT_LT(spread->gap.interval.high, 0.2);
}

TEST(CompareSites, DoesNotDependOnTheOrderOfSitesOrWhereTheyLie) {
  std::vector<SiteMean> sites;
  for (std::uint64_t i = 0; i < 5; ++i) {
    sites.push_back(NormalSite(0.6 + 0.05 * static_cast<double>(2 * i % 5), 0.02, i));
  }
  const auto spread = CompareSites(sites);
  std::reverse(sites.begin(), sites.end());
  const auto reversed = CompareSites(sites);
  for (SiteMean& site : sites) site.mean -= 0.3;
  const auto moved = CompareSites(sites);
  ASSERT_TRUE(spread && reversed && moved);

  ExpectNear(spread->gap, reversed->gap, 1e-4);
  ExpectNear(spread->sd, reversed->sd, 1e-4);
  ExpectNear(*spread->jain_on_error, *reversed->jain_on_error, 1e-4);
  ExpectNear(spread->gap, moved->gap, 1e-4);
  ExpectNear(spread->sd, moved->sd, 1e-4);
  EXPECT_NEAR(spread->smallest_gap, moved->smallest_gap, 1e-4);
}

TEST(CompareSites, GivesTheSameBitsWithAnyNumberOfThreads) {
  const std::vector<SiteMean> sites = NormalSites({0.6, 0.7, 0.75}, 0.03, 50'000);
  const int usual = omp_get_max_threads();
  omp_set_num_threads(1);
  const auto one = CompareSites(sites);
  omp_set_num_threads(3);
  const auto three = CompareSites(sites);
  omp_set_num_threads(usual);
  ExpectNear(one->gap, three->gap, 0);
  ExpectNear(one->sd, three->sd, 0);
  EXPECT_EQ(one->p_equal, three->p_equal);
  EXPECT_EQ(one->smallest_gap, three->smallest_gap);
}

TEST(CompareSites, GivesWiderIntervalsForHigherLevels) {
  const std::vector<SiteMean> sites = NormalSites({0.6, 0.7, 0.75}, 0.03);
  const auto narrow = CompareSites(sites, 0.8);
  const auto wide = CompareSites(sites, 0.99);
  EXPECT_LT(wide->gap.interval.low, narrow->gap.interval.low);
  EXPECT_GT(wide->gap.interval.high, narrow->gap.interval.high);
  EXPECT_LT(wide->jain_on_error->interval.low, narrow->jain_on_error->interval.low);
}

// What a study sees of sites with these true means.
std::vector<SiteMean> Observed(const std::vector<double>& truths, double standard_error,
                               std::uint64_t study) {
  RandomStream random(3, "studies", study);
  std::vector<double> means;
  for (const double truth : truths) means.push_back(truth + standard_error * random.Normal());
  return NormalSites(means, standard_error, 400);
}

TEST(CompareSites, CoversTheTrueGapOfEqualAndOfUnequalSites) {
  constexpr int kStudies = 200;
  for (const std::vector<double>& truths : {std::vector<double>{0.8, 0.8, 0.8, 0.8, 0.8},
                                            {0.7, 0.8, 0.8, 0.8, 0.8},
                                            {0.72, 0.76, 0.8, 0.84, 0.88},
                                            {0.79, 0.8, 0.8, 0.8, 0.81}}) {
    const double gap = *std::max_element(truths.begin(), truths.end()) -
                       *std::min_element(truths.begin(), truths.end());
    int held = 0;
    for (int study = 0; study < kStudies; ++study) {
      const auto spread = CompareSites(Observed(truths, 0.02, static_cast<std::uint64_t>(study)));
      held += spread->gap.interval.Holds(gap);
    }
    // 95 %, less three standard errors of 200 studies. Small gaps are covered more often.
    EXPECT_GE(held, 0.904 * kStudies) << "gap " << gap;
  }
}

TEST(CompareSites, ShowsTheSmallestGapInFourStudiesOfFive) {
  const std::vector<double> equal(6, 0.8);
  const double smallest = CompareSites(NormalSites(equal, 0.02, 20'000))->smallest_gap;
  // More than two sites alone would need: any of six may be the best by chance.
  EXPECT_GT(smallest, 2.8 * 0.02 * std::sqrt(2));

  std::vector<double> truths = equal;
  truths[0] += smallest / 2;
  truths[1] -= smallest / 2;
  constexpr int kStudies = 300;
  int shown = 0;
  for (int study = 0; study < kStudies; ++study) {
    shown +=
        CompareSites(Observed(truths, 0.02, static_cast<std::uint64_t>(study)))->gap.interval.low >
        0;
  }
  EXPECT_NEAR(shown / double{kStudies}, 0.8, 0.09);
}

TEST(MeanWithErrors, HasTheErrorsOfASitesBootstrap) {
  const std::vector<std::vector<double>> series = {{0.2, 0.5, 0.8, 0.9, 0.9},
                                                   std::vector<double>(5, 0.7)};
  const BootstrapMeans bootstrap = BootstrapMeans::Draw(series, "site", {.replicates = 5000});
  const auto site = MeanWithErrors(bootstrap, 0);
  ASSERT_TRUE(site.has_value());
  EXPECT_EQ(site->mean, bootstrap.sample(0).mean);
  EXPECT_EQ(site->errors.size(), 5000);
  // Replicates of one case five times have an infinite t.
  const double most = 8 * bootstrap.sample(0).sd / std::sqrt(5);
  EXPECT_THAT(site->errors, Each(testing::AllOf(testing::Ge(-most), testing::Le(most))));
  EXPECT_FALSE(MeanWithErrors(bootstrap, 1).has_value());
}

}  // namespace
}  // namespace isoscan
