#include "client/harmonization/harmonize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/support/status_matchers.h"
#include "tests/unit/client/imaging/phantom.h"

namespace isoscan {
namespace {

using testing::HasSubstr;
using Normalizer = HarmonizationPlan::Normalizer;

Volume Anatomy() { return SmoothVolume(ObliqueGeometry({23, 19, 11})); }

/// Half of the volume, along x.
Mask HalfOf(const Volume& volume) {
  Mask mask;
  for (std::int64_t i = 0; i < volume.geometry.voxels(); ++i) {
    mask.push_back(2 * (i % volume.geometry.size[0]) < volume.geometry.size[0] ? 1 : 0);
  }
  return mask;
}

TEST(Harmonize, TellsTheStatisticsThatItWentBy) {
  Volume volume = Anatomy();
  const Mask mask = HalfOf(volume);
  const IntensityStatistics before = StatisticsOf(volume, mask);
  HarmonizationPlan plan;
  plan.mask = HarmonizationPlan::Mask::kGiven;

  ASSERT_OK_AND_ASSIGN(const HarmonizationRecord record, Harmonize(volume, plan, mask));

  EXPECT_EQ(record.statistics.mean, before.mean);
  EXPECT_EQ(record.statistics.standard_deviation, before.standard_deviation);
  EXPECT_EQ(record.statistics.voxels, before.voxels);
  EXPECT_NEAR(StatisticsOf(volume, mask).mean, 0, 1e-6);
}

TEST(Harmonize, TakesTheWholeVolumeForAZScoreWhateverTheMask) {
  Volume masked = Anatomy();
  Volume whole = Anatomy();
  HarmonizationPlan zscore;
  zscore.normalize = Normalizer::kZScore;
  zscore.mask = HarmonizationPlan::Mask::kGiven;

  ASSERT_OK(Harmonize(masked, zscore, HalfOf(masked)));
  ASSERT_OK(Harmonize(whole, HarmonizationPlan()));

  EXPECT_EQ(masked.voxels, whole.voxels);
}

TEST(Harmonize, CorrectsTheBiasFieldBeforeItNormalises) {
  HarmonizationPlan plan;
  plan.n4 = N4Plan{.shrink = 2, .levels = 1, .iterations = 3};
  Volume volume = Anatomy();
  Volume expected = Anatomy();
  const Mask whole(expected.voxels.size(), 1);
  ASSERT_OK(CorrectBiasField(expected, whole, *plan.n4));
  ASSERT_OK(NormalizeOverMask(expected, whole, plan.outside));

  ASSERT_OK_AND_ASSIGN(const HarmonizationRecord record, Harmonize(volume, plan));

  EXPECT_EQ(volume.voxels, expected.voxels);
  ASSERT_TRUE(record.bias_field.has_value());
  EXPECT_GT(record.bias_field->iterations, 0);
}

TEST(Harmonize, WithoutNormalisationOnlyChecks) {
  HarmonizationPlan plan;
  plan.normalize = Normalizer::kNone;
  Volume volume = Anatomy();
  Volume broken = Anatomy();
  broken.voxels[5] = std::numeric_limits<float>::quiet_NaN();

  ASSERT_OK(Harmonize(volume, plan));

  EXPECT_EQ(volume.voxels, Anatomy().voxels);
  EXPECT_THAT(Harmonize(broken, plan),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1 of 4807 voxels")));
}

TEST(Harmonize, TakesContrastAndStandardOfTheChannel) {
  HarmonizationPlan plan;
  plan.normalize = Normalizer::kNyul;
  for (int i = 0; i < 22; ++i) plan.standard.push_back(i < 11 ? i : 100 * i);
  Volume first = Anatomy();
  Volume second = Anatomy();

  ASSERT_OK_AND_ASSIGN(const HarmonizationRecord record, Harmonize(first, plan));
  ASSERT_OK(Harmonize(second, plan, std::nullopt, /*channel=*/1));

  for (std::size_t i = 0; i < first.voxels.size(); ++i) {
    ASSERT_NEAR(second.voxels[i], 1100 + 100 * first.voxels[i], 1e-2);
  }
  EXPECT_EQ(std::get<PiecewiseLinearMap>(record.map).to.size(), 11);
}

TEST(Harmonize, ErasesWhatIsOutsideAGivenMaskOnRequest) {
  HarmonizationPlan plan;
  plan.normalize = Normalizer::kFcm;
  plan.mask = HarmonizationPlan::Mask::kGiven;
  plan.outside = HarmonizationPlan::Outside::kZero;
  Volume volume = Anatomy();
  const Mask mask = HalfOf(volume);

  ASSERT_OK(Harmonize(volume, plan, mask));

  for (std::size_t i = 0; i < mask.size(); ++i) {
    ASSERT_EQ(volume.voxels[i] == 0, mask[i] == 0) << "voxel " << i;
  }
}

TEST(Harmonize, NeedsTheStandardOfAPopulation) {
  HarmonizationPlan plan;
  for (const Normalizer normalizer : {Normalizer::kNyul, Normalizer::kLsq}) {
    plan.normalize = normalizer;
    Volume volume = Anatomy();

    EXPECT_THAT(Harmonize(volume, plan),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("needs a standard")));
    ASSERT_OK_AND_ASSIGN(plan.standard, StandardOf(volume, plan));
    EXPECT_EQ(plan.standard.size(), StandardLength(normalizer));
    EXPECT_OK(Harmonize(volume, plan));
    plan.standard.clear();
  }
}

}  // namespace
}  // namespace isoscan
