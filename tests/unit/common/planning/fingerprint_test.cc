#include "common/planning/fingerprint.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/planning/network_planner.h"
#include "common/random/philox.h"
#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

struct Case {
  CaseMeasures measures;
  std::vector<std::vector<float>> intensities;
};

Case CaseOf(const std::array<double, 3>& spacing_mm, const Triple& size,
            const std::vector<std::vector<float>>& intensities) {
  Case made;
  made.measures.spacing_mm = spacing_mm;
  made.measures.size = size;
  made.intensities = intensities;
  return made;
}

// A case of two channels, with a scanner's scale and bias.
Case RandomCase(RandomStream& random) {
  Case drawn;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    drawn.measures.spacing_mm[axis] = random.Uniform(0.4, 6);
    drawn.measures.size[axis] = 20 + random.Below(300);
  }
  drawn.measures.relative_size = random.Uniform(0.3, 1);
  for (int channel = 0; channel < 2; ++channel) {
    const double scale = random.Uniform(1, 500);
    const double bias = random.Uniform(-1e4, 1e4);
    std::vector<float>& values = drawn.intensities.emplace_back();
    for (std::int64_t i = 1 + random.Below(300); i > 0; --i) {
      values.push_back(static_cast<float>(bias + scale * random.Normal()));
    }
  }
  return drawn;
}

absl::Status Add(const Case& added, Fingerprint& fingerprint) {
  CaseMeasures measures = added.measures;
  for (const std::vector<float>& values : added.intensities) measures.foreground.push_back(values);
  return fingerprint.AddCase(measures);
}

// `cases` equal cases of one channel.
Fingerprint Uniform(std::int64_t cases) {
  Fingerprint fingerprint = Fingerprint::Empty(1, 2);
  const Case one = CaseOf({2, 1, 1}, {40, 96, 100}, {{1, 2, 3}});
  for (std::int64_t i = 0; i < cases; ++i) EXPECT_OK(Add(one, fingerprint));
  return fingerprint;
}

class RandomCohorts : public testing::TestWithParam<std::uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Fingerprint, RandomCohorts, testing::Range(0u, 30u));

TEST_P(RandomCohorts, GiveTheSamePlanHoweverTheyLieOverSites) {
  RandomStream random(GetParam(), "cohort");
  const std::int64_t sites = 1 + random.Below(6);
  std::map<std::string, Fingerprint> federation;
  Fingerprint pooled = Fingerprint::Empty(2, 3);
  std::vector<std::vector<double>> all(2);  // Per channel, every voxel as often as its case has it.
  std::vector<std::vector<double>> weights(2);
  for (std::int64_t i = 0; i < sites * kMinimumCasesOfSum + random.Below(40); ++i) {
    const Case drawn = RandomCase(random);
    // The first cases go round, so that every site has enough of them.
    const std::int64_t site = i < sites * kMinimumCasesOfSum ? i % sites : random.Below(sites);
    const auto at = federation.try_emplace(fmt::format("site-{}", site), Fingerprint::Empty(2, 3));
    ASSERT_OK(Add(drawn, at.first->second));
    ASSERT_OK(Add(drawn, pooled));
    for (std::size_t channel = 0; channel < 2; ++channel) {
      for (const float value : drawn.intensities[channel]) {
        all[channel].push_back(static_cast<double>(value));
        weights[channel].push_back(1 / static_cast<double>(drawn.intensities[channel].size()));
      }
    }
  }
  for (auto& [site, fingerprint] : federation) fingerprint = Disclosed(fingerprint);

  ASSERT_OK_AND_ASSIGN(const Fingerprint federated, PooledFingerprint(federation, 2, 3));

  EXPECT_EQ(federated.spacing_mm, pooled.spacing_mm);
  EXPECT_EQ(federated.size, pooled.size);
  EXPECT_EQ(federated.extent_mm, pooled.extent_mm);
  EXPECT_EQ(federated.relative_size, pooled.relative_size);
  for (std::size_t channel = 0; channel < 2; ++channel) {
    EXPECT_EQ(federated.intensities[channel].quantiles, pooled.intensities[channel].quantiles);
    const Moments& moments = federated.intensities[channel].moments;
    EXPECT_EQ(moments.count, pooled.intensities[channel].moments.count);

    // The moments of all voxels at once, each case weighing 1, in long double.
    long double mean = 0;
    for (std::size_t i = 0; i < all[channel].size(); ++i) {
      mean += static_cast<long double>(all[channel][i]) * weights[channel][i];
    }
    mean /= static_cast<long double>(federated.cases);
    long double variance = 0;
    for (std::size_t i = 0; i < all[channel].size(); ++i) {
      variance += (all[channel][i] - mean) * (all[channel][i] - mean) * weights[channel][i];
    }
    const double deviation =
        std::sqrt(static_cast<double>(variance / static_cast<long double>(federated.cases)));
    EXPECT_NEAR(moments.mean, static_cast<double>(mean), 1e-12 * deviation);
    EXPECT_NEAR(moments.StandardDeviation(), deviation, 1e-12 * deviation);
  }
  ASSERT_OK_AND_ASSIGN(const CohortPlan federated_plan,
                       PlanNetwork(federated, PlanPreset::kPlain, 8));
  ASSERT_OK_AND_ASSIGN(const CohortPlan pooled_plan, PlanNetwork(pooled, PlanPreset::kPlain, 8));
  EXPECT_EQ(federated_plan, pooled_plan);
}

TEST(Sketches, AreAllThatAFingerprintHasInAFixedOrder) {
  Fingerprint fingerprint = Fingerprint::Empty(2, 3);
  ASSERT_OK(Add(CaseOf({3, 2, 1}, {30, 20, 10}, {{5}, {7}}), fingerprint));

  std::vector<double> values;
  for (const DecimalSketch* const sketch : Sketches(std::as_const(fingerprint))) {
    values.push_back(sketch->ValueAt(0));
  }

  EXPECT_THAT(values, ElementsAre(3, 2, 1, 30, 20, 10, 90, 40, 10, 1, 5, 7));
  Fingerprint copy = Fingerprint::Empty(2, 3);
  for (std::size_t i = 0; i < values.size(); ++i) {
    *Sketches(copy)[i] = *Sketches(std::as_const(fingerprint))[i];
  }
  EXPECT_EQ(copy.spacing_mm, fingerprint.spacing_mm);
  EXPECT_EQ(copy.intensities[1].quantiles, fingerprint.intensities[1].quantiles);
}

TEST(Moments, KeepTheirDigitsFarFromZero) {
  // Two sites with deviation 1 about 1e9: squares of the values would have lost it.
  Moments moments = {.count = 1000, .mean = 1e9, .squared_deviations = 1000};
  moments.Merge({.count = 3000, .mean = 1e9 + 4, .squared_deviations = 3000});
  EXPECT_EQ(moments.count, 4000);
  EXPECT_DOUBLE_EQ(moments.mean, 1e9 + 3);
  EXPECT_DOUBLE_EQ(moments.StandardDeviation(), 2);  // 1 within, 3 between.
}

TEST(Moments, KnowTheSpreadBetweenSites) {
  // Where a weighted mean of the sites' deviations would say 123.
  Moments moments = {.count = 100, .mean = 100, .squared_deviations = 100 * 30.0 * 30};
  moments.Merge({.count = 100, .mean = 300, .squared_deviations = 100 * 90.0 * 90});
  moments.Merge({.count = 100, .mean = 900, .squared_deviations = 100 * 250.0 * 250});
  EXPECT_NEAR(moments.StandardDeviation(), 373, 0.5);
}

TEST(Fingerprint, WeighsCasesAlikeWhateverTheirNumberOfVoxels) {
  Fingerprint fingerprint = Fingerprint::Empty(1, 2);
  Case large = CaseOf({1, 1, 1}, {50, 50, 50}, {std::vector<float>(30'000, 10.0f)});
  Case small = large;
  small.intensities = {{20, 20, 20}};
  ASSERT_OK(Add(large, fingerprint));
  ASSERT_OK(Add(small, fingerprint));

  const ForegroundIntensities& intensities = fingerprint.intensities[0];
  EXPECT_EQ(intensities.quantiles.count(), 2 * ForegroundIntensities::kDrawsPerCase);
  EXPECT_EQ(intensities.quantiles.Percentile(50), 15);
  EXPECT_DOUBLE_EQ(intensities.moments.mean, 15);
  EXPECT_DOUBLE_EQ(intensities.moments.StandardDeviation(), 5);
}

TEST(Fingerprint, HasTheQuantilesOfACasesVoxels) {
  for (const std::size_t count : {1u, 3u, 999u, 10'000u, 77'777u}) {
    Case one = CaseOf({1, 1, 1}, {50, 50, 50}, {{}});
    for (std::size_t i = 0; i < count; ++i) {
      one.intensities[0].push_back(100 + 900 * static_cast<float>(i) / static_cast<float>(count));
    }
    Fingerprint fingerprint = Fingerprint::Empty(1, 2);
    ASSERT_OK(Add(one, fingerprint));
    const DecimalSketch& quantiles = fingerprint.intensities[0].quantiles;
    EXPECT_EQ(quantiles.count(), ForegroundIntensities::kDrawsPerCase);
    for (const double percent : {0.5, 50.0, 99.5}) {
      const double expected = 100 + 9 * percent;
      const double voxel = 900 / static_cast<double>(count);
      EXPECT_NEAR(quantiles.Percentile(percent), expected, 0.005 * expected + voxel) << count;
    }
  }
}

TEST(Fingerprint, TakesDrawsFromBothEndsAlike) {
  Fingerprint fingerprint = Fingerprint::Empty(1, 2);
  ASSERT_OK(Add(CaseOf({1, 1, 1}, {50, 50, 50}, {{1, 2, 3}}), fingerprint));
  std::vector<std::int64_t> draws;
  for (const auto& [key, count] : fingerprint.intensities[0].quantiles.buckets()) {
    draws.push_back(count);
  }
  EXPECT_THAT(draws, ElementsAre(3333, 3334, 3333));
}

TEST(Fingerprint, TakesACaseWithoutLabels) {
  Fingerprint fingerprint = Uniform(4);
  ASSERT_OK(Add(CaseOf({2, 1, 1}, {40, 96, 100}, {{}}), fingerprint));
  EXPECT_EQ(fingerprint.cases, 5);
  EXPECT_EQ(fingerprint.intensities[0].moments.count, 4 * ForegroundIntensities::kDrawsPerCase);
  // Four cases' intensities are too few to leave, five cases' sizes are not.
  const Fingerprint disclosed = Disclosed(fingerprint);
  EXPECT_EQ(disclosed.intensities[0], ForegroundIntensities());
  EXPECT_EQ(disclosed.size, fingerprint.size);
  EXPECT_OK(CheckFingerprint("north", disclosed, 1, 2));
}

TEST(Fingerprint, OfFewCasesDisclosesTheirNumberAlone) {
  Fingerprint number = Fingerprint::Empty(1, 2);
  number.cases = kMinimumCasesOfSum - 1;
  EXPECT_EQ(Disclosed(Uniform(kMinimumCasesOfSum - 1)), number);
  EXPECT_EQ(Disclosed(Uniform(kMinimumCasesOfSum)), Uniform(kMinimumCasesOfSum));

  ASSERT_OK_AND_ASSIGN(
      const Fingerprint pooled,
      PooledFingerprint({{"few", number}, {"many", Uniform(kMinimumCasesOfSum)}}, 1, 2));
  EXPECT_EQ(pooled.described_cases(), kMinimumCasesOfSum);
  EXPECT_EQ(pooled.cases, 2 * kMinimumCasesOfSum - 1);
}

TEST(Fingerprint, IsRefusedWhereNoSiteHasEnoughCases) {
  EXPECT_THAT(PooledFingerprint({{"a", Disclosed(Uniform(4))}, {"b", Disclosed(Uniform(3))}}, 1, 2),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("none of 2 sites has the 5")));
}

TEST(Fingerprint, RefusesACaseThatIsNoneAndStaysAsItWas) {
  constexpr float kNotANumber = std::numeric_limits<float>::quiet_NaN();
  const Case good = CaseOf({2, 1, 1}, {40, 96, 100}, {{1, 2, 3}});
  std::vector<std::pair<Case, std::string>> broken(6, {good, ""});
  broken[0].first.measures.spacing_mm[1] = 0;
  broken[0].second = "a spacing of 0 mm along y";
  broken[1].first.measures.spacing_mm[2] = std::nan("");
  broken[1].second = "a spacing of nan mm along x";
  broken[2].first.measures.size[0] = 0;
  broken[2].second = "a size of 0 voxels along z";
  broken[3].first.measures.relative_size = 1.01;
  broken[3].second = "a relative size of 1.01 after cropping";
  broken[4].first.intensities.push_back({1});
  broken[4].second = "a case of 2 channels, the cohort has 1";
  broken[5].first.intensities[0][1] = kNotANumber;
  broken[5].second = "an intensity of nan";
  Fingerprint fingerprint = Uniform(6);
  for (const auto& [one, message] : broken) {
    EXPECT_THAT(Add(one, fingerprint), StatusIs(StatusCode::kInvalidArgument, HasSubstr(message)));
  }
  EXPECT_EQ(fingerprint, Uniform(6));
}

TEST(Fingerprint, RefusesASitesThatIsNone) {
  std::vector<std::pair<Fingerprint, std::string>> broken(9, {Uniform(6), ""});
  broken[0].first.channels = 2;
  broken[0].second = "north declared a cohort of 2 channels (1 with intensities) and 2 classes";
  broken[1].first.cases = 7;
  broken[1].second = "north declared distributions of 6 of its 7 training cases";
  broken[2].first = Uniform(4);
  broken[2].second = "north declared distributions of 4 of its 4 training cases";
  broken[3].first.extent_mm[2].Add(100);
  broken[3].second = "a distribution of 7 cases, expected 6";
  broken[4].first.spacing_mm[0] = DecimalSketch(4);
  broken[4].first.spacing_mm[0].Add(-1, 6);
  broken[4].second = "a distribution from -1 to -1, allowed are 0.001 to 1000";
  broken[5].first.intensities[0].moments.count = 3;
  broken[5].second = "intensities of 60000 draws and moments of 3";
  broken[6].first.intensities[0].moments.mean = std::nan("");
  broken[6].second = "intensities with mean nan";
  broken[7].first.intensities[0].moments.squared_deviations = -1;
  broken[7].second = "squared deviations -1";
  broken[8].first.intensities[0] = Uniform(4).intensities[0];
  broken[8].second = "intensities of 40000 draws";
  for (const auto& [fingerprint, message] : broken) {
    EXPECT_THAT(CheckFingerprint("north", fingerprint, 1, 2),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr(message)));
    EXPECT_THAT(PooledFingerprint({{"north", fingerprint}}, 1, 2),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr(message)));
  }
}

}  // namespace
}  // namespace isoscan
