// Ours beside the Python package intensity-normalization: the same numbers from the same brain and
// mask. tests/golden/harmonization/README.md says where the package's come from.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "client/harmonization/fuzzy_c_means.h"
#include "client/harmonization/intensity_map.h"
#include "client/harmonization/least_squares.h"
#include "client/harmonization/masked_normalization.h"
#include "client/harmonization/nyul.h"
#include "client/harmonization/tissue_mode.h"
#include "client/harmonization/white_stripe.h"
#include "common/population/population_mean.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/client/harmonization/brain_phantom.h"

namespace isoscan {
namespace {

using testing::Each;
using testing::ElementsAreArray;
using testing::IsEmpty;
using testing::Le;
using testing::Not;

/// Differences in units of 1e-4 of the expected value, or of 0.01 where that is smaller.
std::vector<double> Differences(const std::vector<double>& actual,
                                const std::vector<double>& expected) {
  EXPECT_EQ(actual.size(), expected.size());
  EXPECT_THAT(expected, Not(IsEmpty()));
  std::vector<double> differences;
  for (std::size_t i = 0; i < std::min(actual.size(), expected.size()); ++i) {
    differences.push_back(std::abs(actual[i] - expected[i]) /
                          (1e-4 * std::max(std::abs(expected[i]), 1e-2)));
  }
  return differences;
}

std::vector<double> ProbesAfter(const auto& map, Volume volume) {
  Apply(map, volume);
  return ProbesOf(volume);
}

TEST(IntensityNormalization, HasSeenThePhantomThatTheseTestsBuild) {
  EXPECT_THAT(ProbesOf(PhantomBrain(0).volume), ElementsAreArray(Golden("phantom")));
  const std::vector<double> voxels = Golden("phantom_mask");
  for (std::uint32_t number = 0; number < 6; ++number) {
    const Mask mask = PhantomBrain(number).mask;
    EXPECT_EQ(std::count(mask.begin(), mask.end(), 1), voxels.at(number));
  }
}

TEST(ZScore, IsThatOfIntensityNormalization) {
  Brain brain = PhantomBrain(0);
  const IntensityStatistics statistics = StatisticsOf(brain.volume, brain.mask);
  ASSERT_OK(NormalizeOverMask(brain.volume, brain.mask, HarmonizationPlan::Outside::kKeep));

  EXPECT_THAT(Differences({statistics.mean, statistics.standard_deviation}, Golden("zscore")),
              Each(Le(1)));
  EXPECT_THAT(Differences(ProbesOf(brain.volume), Golden("zscore_probes")), Each(Le(1)));
}

TEST(Nyul, IsThatOfIntensityNormalization) {
  CaseSum sum;
  for (std::uint32_t number = 0; number < 6; ++number) {
    const Brain brain = PhantomBrain(number);
    ASSERT_OK_AND_ASSIGN(const NyulLandmarks landmarks, FindLandmarks(brain.volume, brain.mask));
    AddCase(OnStandardRange(landmarks), sum);
  }
  ASSERT_OK_AND_ASSIGN(const std::vector<double> mean,
                       PopulationMean({{"all", sum}}, kNyulPercentiles.size()));
  NyulLandmarks scale;
  std::copy(mean.begin(), mean.end(), scale.begin());

  EXPECT_THAT(Differences(mean, Golden("nyul_scale")), Each(Le(1)));
  for (const std::uint32_t number : {0u, 5u}) {
    const Brain brain = PhantomBrain(number);
    ASSERT_OK_AND_ASSIGN(const PiecewiseLinearMap map, FitNyul(brain.volume, brain.mask, scale));
    EXPECT_THAT(Differences(ProbesAfter(map, brain.volume),
                            Golden("nyul_probes_" + std::to_string(number))),
                Each(Le(1)));
  }
}

struct NamedContrast {
  std::string name;
  Contrast contrast;
};

class EveryContrast : public testing::TestWithParam<NamedContrast> {};
INSTANTIATE_TEST_SUITE_P(Contrasts, EveryContrast,
                         testing::Values(NamedContrast{"t1", Contrast::kT1w},
                                         NamedContrast{"t2", Contrast::kT2w},
                                         NamedContrast{"flair", Contrast::kFlair},
                                         NamedContrast{"pd", Contrast::kPdw}),
                         [](const auto& which) { return which.param.name; });

TEST_P(EveryContrast, HasTheTissueModeOfIntensityNormalization) {
  const Brain brain = PhantomBrain(0);
  ASSERT_OK_AND_ASSIGN(
      const AffineMap map,
      FitTissueMode(brain.volume, brain.mask, GetParam().contrast, Bandwidth::kPackage));

  EXPECT_THAT(Differences({map.scale}, Golden("kde_" + GetParam().name)), Each(Le(1)));
  EXPECT_THAT(Differences(ProbesAfter(map, brain.volume), Golden("kde_probes_" + GetParam().name)),
              Each(Le(1)));
}

TEST_P(EveryContrast, HasTheWhiteStripeOfIntensityNormalization) {
  const Brain brain = PhantomBrain(0);
  ASSERT_OK_AND_ASSIGN(const WhiteStripe stripe,
                       FitWhiteStripe(brain.volume, brain.mask, GetParam().contrast));

  EXPECT_THAT(
      Differences({stripe.mean, stripe.standard_deviation, static_cast<double>(stripe.voxels)},
                  Golden("white_stripe_" + GetParam().name)),
      Each(Le(1)));
  EXPECT_THAT(Differences(ProbesAfter(stripe.Map(), brain.volume),
                          Golden("white_stripe_probes_" + GetParam().name)),
              Each(Le(1)));
}

TEST(FuzzyCMeans, HasTheTissueMeansOfIntensityNormalization) {
  const Brain brain = PhantomBrain(0);
  ASSERT_OK_AND_ASSIGN(const TissueClasses classes, FindTissueClasses(brain.volume, brain.mask));

  EXPECT_THAT(
      Differences({classes.means.begin(), classes.means.end()},
                  {Golden("fcm_csf").at(0), Golden("fcm_gm").at(0), Golden("fcm_wm").at(0)}),
      Each(Le(1)));
}

TEST(LeastSquares, IsThatOfIntensityNormalization) {
  const Brain first = PhantomBrain(0);
  const Brain other = PhantomBrain(3);
  ASSERT_OK_AND_ASSIGN(const auto standard, RelativeTissueMeans(first.volume, first.mask));
  ASSERT_OK_AND_ASSIGN(const AffineMap map, FitLeastSquares(other.volume, other.mask, standard));

  EXPECT_THAT(Differences({standard.begin(), standard.end()}, Golden("lsq_standard")), Each(Le(1)));
  EXPECT_THAT(Differences({map.scale}, {Golden("lsq_scale_3").at(0)}), Each(Le(1)));
}

}  // namespace
}  // namespace isoscan
