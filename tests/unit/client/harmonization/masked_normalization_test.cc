#include "client/harmonization/masked_normalization.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "client/harmonization/foreground.h"
#include "client/harmonization/harmonize.h"
#include "common/random/philox.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/client/imaging/phantom.h"
#include <omp.h>

namespace isoscan {
namespace {

using testing::HasSubstr;

/// Noisy tissue of 12-bit integers in a ball, in noisy air: what a magnitude image looks like.
Volume Head() {
  Geometry geometry = ObliqueGeometry({37, 41, 29});
  Volume volume{.geometry = geometry, .voxels = {}};
  RandomStream random(7, "head");
  for (std::int64_t z = 0; z < geometry.size[2]; ++z) {
    for (std::int64_t y = 0; y < geometry.size[1]; ++y) {
      for (std::int64_t x = 0; x < geometry.size[0]; ++x) {
        const double r =
            std::hypot((double(x) - 18) / 13, (double(y) - 20) / 15, (double(z) - 14) / 10);
        const double tissue = r < 0.5 ? 1400 : r < 0.55 ? 40 : r < 1 ? 900 : 0;
        const double noisy = std::hypot(tissue + 30 * random.Normal(), 30 * random.Normal());
        volume.voxels.push_back(static_cast<float>(std::round(noisy)));
      }
    }
  }
  return volume;
}

Volume Mapped(const Volume& volume, double scale, double bias) {
  Volume result = volume;
  for (float& voxel : result.voxels) voxel = static_cast<float>(scale * voxel + bias);
  return result;
}

double StandardDeviation(const Volume& volume) {
  return StatisticsOf(volume, Mask(volume.voxels.size(), 1)).standard_deviation;
}

Mask BallMask(const Volume& volume) {
  Mask mask;
  for (const float voxel : volume.voxels) mask.push_back(voxel > 500 ? 1 : 0);
  return mask;
}

HarmonizationPlan PlanWith(HarmonizationPlan::Mask mask) {
  HarmonizationPlan plan;
  plan.mask = mask;
  return plan;
}

/// Scale, and bias in units of scale * sd.
class AffineMap
    : public testing::TestWithParam<std::tuple<HarmonizationPlan::Mask, double, double>> {};

INSTANTIATE_TEST_SUITE_P(EveryMask, AffineMap,
                         testing::Combine(testing::Values(HarmonizationPlan::Mask::kWhole,
                                                          HarmonizationPlan::Mask::kOtsu,
                                                          HarmonizationPlan::Mask::kThreshold,
                                                          HarmonizationPlan::Mask::kGiven),
                                          testing::Values(1e-5, 0.013, 1.0, 4.7, 1e5),
                                          testing::Values(-100.0, -1.3, 0.0, 0.7, 100.0)));

TEST_P(AffineMap, LeavesTheMaskAndTheHarmonisedVolumeAsTheyWere) {
  const auto [kind, scale, bias] = GetParam();
  const Volume original = Head();
  const Volume shifted = Mapped(original, scale, bias * scale * StandardDeviation(original));
  const HarmonizationPlan plan = PlanWith(kind);
  const std::optional<Mask> given = BallMask(original);

  ASSERT_OK_AND_ASSIGN(const Mask mask, MakeMask(original, plan, given));
  ASSERT_OK_AND_ASSIGN(const Mask shifted_mask, MakeMask(shifted, plan, given));
  Volume expected = original;
  Volume harmonised = shifted;
  ASSERT_OK(Harmonize(expected, plan, given));
  ASSERT_OK(Harmonize(harmonised, plan, given));

  EXPECT_EQ(mask, shifted_mask);
  double greatest = 0;
  for (std::size_t i = 0; i < expected.voxels.size(); ++i) {
    greatest = std::max(greatest, std::abs(double(expected.voxels[i]) - harmonised.voxels[i]));
  }
  // Rounding of the shifted input: 100 sd take 7 of float32's 24 bits.
  EXPECT_LT(greatest, std::abs(bias) > 10 ? 2e-5 : 2e-6);
}

class EveryMask : public testing::TestWithParam<HarmonizationPlan::Mask> {};
INSTANTIATE_TEST_SUITE_P(Kinds, EveryMask,
                         testing::Values(HarmonizationPlan::Mask::kWhole,
                                         HarmonizationPlan::Mask::kOtsu,
                                         HarmonizationPlan::Mask::kThreshold,
                                         HarmonizationPlan::Mask::kGiven));

TEST_P(EveryMask, HasMeanZeroAndDeviationOneAfterwards) {
  Volume volume = Mapped(Head(), 3, 1000);
  const std::optional<Mask> given = BallMask(Head());
  ASSERT_OK_AND_ASSIGN(const Mask mask, MakeMask(volume, PlanWith(GetParam()), given));

  ASSERT_OK(NormalizeOverMask(volume, mask, HarmonizationPlan::Outside::kKeep));

  const IntensityStatistics statistics = StatisticsOf(volume, mask);
  EXPECT_NEAR(statistics.mean, 0, 1e-7);
  EXPECT_NEAR(statistics.standard_deviation, 1, 1e-7);
}

TEST_P(EveryMask, AppliesOneMapToEveryVoxel) {
  const Volume original = Head();
  const std::optional<Mask> given = BallMask(original);
  ASSERT_OK_AND_ASSIGN(const Mask mask, MakeMask(original, PlanWith(GetParam()), given));
  const IntensityStatistics statistics = StatisticsOf(original, mask);

  Volume volume = original;
  ASSERT_OK(NormalizeOverMask(volume, mask, HarmonizationPlan::Outside::kKeep));

  for (std::size_t i = 0; i < volume.voxels.size(); ++i) {
    ASSERT_NEAR(volume.voxels[i],
                (original.voxels[i] - statistics.mean) / statistics.standard_deviation, 1e-6)
        << (mask[i] != 0 ? "inside" : "outside");
  }
}

TEST(OtsuMask, IsTheHeadWithItsHolesAndWithoutSpecks) {
  Volume volume = Head();
  volume.voxels[0] = 1500;  // A speck in the air.

  ASSERT_OK_AND_ASSIGN(const Mask mask, MakeMask(volume, PlanWith(HarmonizationPlan::Mask::kOtsu)));

  EXPECT_EQ(mask[0], 0);
  const auto at = [&](std::int64_t x, std::int64_t y, std::int64_t z) {
    return mask[static_cast<std::size_t>((z * 41 + y) * 37 + x)];
  };
  EXPECT_EQ(at(18, 20, 14), 1);
  EXPECT_EQ(at(18 + 7, 20, 14), 1) << "the dark shell is a hole";
  EXPECT_EQ(at(1, 1, 1), 0);
}

TEST(ThresholdMask, IsAFractionOfTheVolumesOwnRange) {
  Volume volume = NumberedVolume(ObliqueGeometry({11, 1, 1}));
  HarmonizationPlan plan = PlanWith(HarmonizationPlan::Mask::kThreshold);
  plan.threshold = 0.5;

  ASSERT_OK_AND_ASSIGN(const Mask mask, MakeMask(volume, plan));

  EXPECT_THAT(mask, testing::ElementsAre(0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1));
}

// Source: docs/references.md#otsu1979, voxel by voxel.
TEST(RelativeMasks, AreThoseOfThePlainForm) {
  const Volume volume = Mapped(Head(), 0.37, -12.5);
  const auto [low, high] = std::minmax_element(volume.voxels.begin(), volume.voxels.end());
  const auto place = [&](float voxel, double bins) {
    return (double(voxel) - double(*low)) * (bins / (double(*high) - double(*low))) - bins * 3e-5f;
  };
  std::array<std::int64_t, kOtsuBins> histogram{};
  const auto bin_of = [&](float voxel) {
    return static_cast<std::size_t>(std::clamp(place(voxel, kOtsuBins), 0.0, kOtsuBins - 1.0));
  };
  for (const float voxel : volume.voxels) ++histogram[bin_of(voxel)];
  const std::size_t threshold = OtsuThreshold(histogram);
  Mask otsu;
  Mask above;
  for (const float voxel : volume.voxels) {
    otsu.push_back(bin_of(voxel) > threshold ? 1 : 0);
    above.push_back(place(voxel, 1) > 0.1 ? 1 : 0);
  }
  KeepLargestComponent(otsu, volume.geometry.size);
  FillHoles(otsu, volume.geometry.size);

  EXPECT_THAT(MakeMask(volume, PlanWith(HarmonizationPlan::Mask::kOtsu)), IsOkAndHolds(otsu));
  EXPECT_THAT(MakeMask(volume, PlanWith(HarmonizationPlan::Mask::kThreshold)), IsOkAndHolds(above));
}

// Integers whose range is a multiple of the bins lie on their borders, where rounding could send a
// scaled copy to the other side.
TEST(RelativeMasks, ChooseTheSameVoxelsWhereValuesLieOnABorder) {
  Volume volume = NumberedVolume(ObliqueGeometry({8, 8, 8}));
  for (std::size_t i = 0; i < volume.voxels.size(); ++i) {
    volume.voxels[i] = static_cast<float>(i < 257 ? i : i % 60);
  }
  HarmonizationPlan plan = PlanWith(HarmonizationPlan::Mask::kThreshold);
  plan.threshold = 0.25;  // At 64 exactly.
  const HarmonizationPlan otsu = PlanWith(HarmonizationPlan::Mask::kOtsu);
  ASSERT_OK_AND_ASSIGN(const Mask expected, MakeMask(volume, plan));
  ASSERT_OK_AND_ASSIGN(const Mask expected_otsu, MakeMask(volume, otsu));

  RandomStream random(1, "maps");
  for (int i = 0; i < 200; ++i) {
    const Volume mapped = Mapped(volume, random.Uniform(0.01, 10), random.Uniform(-500, 500));

    EXPECT_THAT(MakeMask(mapped, plan), IsOkAndHolds(expected));
    EXPECT_THAT(MakeMask(mapped, otsu), IsOkAndHolds(expected_otsu));
  }
}

TEST(GivenMask, IsRefusedWhenItIsMissingEmptyOrOfAnotherSize) {
  const Volume volume = Head();
  const HarmonizationPlan plan = PlanWith(HarmonizationPlan::Mask::kGiven);

  EXPECT_THAT(MakeMask(volume, plan),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("this case has none")));
  EXPECT_THAT(MakeMask(volume, plan, Mask(volume.voxels.size(), 0)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("none of its 43993 voxels")));
  EXPECT_THAT(MakeMask(volume, plan, Mask(5, 1)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("has 5 voxels")));
}

TEST(StatisticsOf, IsExactWhereSinglePrecisionIsNot) {
  // A sequential float32 sum of this is off by more than 1 % (segmentation.md 3.3).
  Volume volume = NumberedVolume(ObliqueGeometry({300, 300, 90}));
  for (std::size_t i = 0; i < volume.voxels.size(); ++i) {
    volume.voxels[i] = i % 2 == 0 ? 1'000'199.0f : 1'000'201.0f;
  }

  const IntensityStatistics statistics = StatisticsOf(volume, Mask(volume.voxels.size(), 1));

  EXPECT_EQ(statistics.voxels, 8'100'000);
  EXPECT_DOUBLE_EQ(statistics.mean, 1'000'200);
  EXPECT_DOUBLE_EQ(statistics.standard_deviation, 1);
}

/// Mean and deviation voxel by voxel, about the mean, in long double.
IntensityStatistics PlainStatistics(const Volume& volume, const Mask& mask) {
  IntensityStatistics result;
  long double sum = 0;
  for (std::size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] == 0) continue;
    sum += volume.voxels[i];
    ++result.voxels;
  }
  const long double mean = sum / static_cast<long double>(result.voxels);
  long double square = 0;
  for (std::size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] != 0) square += (volume.voxels[i] - mean) * (volume.voxels[i] - mean);
  }
  result.mean = static_cast<double>(mean);
  result.standard_deviation =
      static_cast<double>(std::sqrt(square / static_cast<long double>(result.voxels)));
  return result;
}

/// Voxels of a row, and where its intensities lie, in deviations from zero.
class Rows : public testing::TestWithParam<std::tuple<std::int64_t, double>> {};
INSTANTIATE_TEST_SUITE_P(StatisticsOf, Rows,
                         testing::Combine(testing::Values(2, 7, 255, 256, 257, 65536, 70001),
                                          testing::Values(0.0, -3.0, 1e5)));

TEST_P(Rows, HaveTheStatisticsOfTwoPlainPasses) {
  const auto [voxels, place] = GetParam();
  Volume volume = NumberedVolume(ObliqueGeometry({voxels, 1, 1}));
  RandomStream random(3, "row");
  Mask mask;
  for (float& voxel : volume.voxels) {
    voxel = static_cast<float>(40 * (random.Normal() + place));
    mask.push_back(mask.size() < 2 || random.Chance(0.4)
                       ? static_cast<std::uint8_t>(1 + random.Below(255))
                       : 0);
  }

  const IntensityStatistics statistics = StatisticsOf(volume, mask);

  const IntensityStatistics expected = PlainStatistics(volume, mask);
  EXPECT_EQ(statistics.voxels, expected.voxels);
  EXPECT_NEAR(statistics.mean, expected.mean, 1e-13 * (40 + std::abs(expected.mean)));
  EXPECT_NEAR(statistics.standard_deviation / expected.standard_deviation, 1, 1e-13);
}

// The first guess of the mean is taken from a few voxels: here they are all outliers.
TEST(StatisticsOf, StayExactWhereTheGuessOfTheMeanIsFarOff) {
  constexpr std::int64_t kVoxels = 1 << 20;
  Volume volume = NumberedVolume(ObliqueGeometry({kVoxels, 1, 1}));
  const std::size_t stride = kVoxels / 1024 + 1;
  for (std::size_t i = 0; i < volume.voxels.size(); ++i) {
    volume.voxels[i] = i % stride == stride / 2 ? 3e9f : 100 + static_cast<float>(i % 16);
  }
  Mask mask(volume.voxels.size(), 1);
  const Volume with_outliers = volume;
  for (std::size_t i = stride / 2; i < mask.size(); i += stride) mask[i] = i % 3 == 0 ? 1 : 0;

  for (const Mask& chosen : {mask, Mask(mask.size(), 1)}) {
    const IntensityStatistics statistics = StatisticsOf(with_outliers, chosen);
    const IntensityStatistics expected = PlainStatistics(with_outliers, chosen);
    EXPECT_NEAR(statistics.mean / expected.mean, 1, 1e-12);
    EXPECT_NEAR(statistics.standard_deviation / expected.standard_deviation, 1, 1e-12);
  }
}

TEST(StatisticsOf, LooksAtNoVoxelOutsideTheMask) {
  Volume volume = NumberedVolume(ObliqueGeometry({5, 1, 1}));
  volume.voxels[2] = std::numeric_limits<float>::quiet_NaN();
  volume.voxels[4] = std::numeric_limits<float>::infinity();

  const IntensityStatistics statistics = StatisticsOf(volume, {1, 1, 0, 1, 0});

  EXPECT_DOUBLE_EQ(statistics.mean, 4.0 / 3);
  EXPECT_EQ(statistics.voxels, 3);
}

TEST(Harmonize, OverTheWholeVolumeEqualsAMaskOfOnes) {
  Volume volume = Head();
  Volume masked = Head();

  ASSERT_OK(Harmonize(volume, PlanWith(HarmonizationPlan::Mask::kWhole)));
  ASSERT_OK(
      NormalizeOverMask(masked, Mask(masked.voxels.size(), 1), HarmonizationPlan::Outside::kKeep));

  EXPECT_EQ(volume.voxels, masked.voxels);
}

TEST(StatisticsOf, HasTheSameBitsOnAnyNumberOfThreads) {
  Volume volume = NumberedVolume(ObliqueGeometry({101, 99, 97}));
  for (float& voxel : volume.voxels) voxel = std::sin(voxel) * 1000;
  Mask mask;
  for (std::size_t i = 0; i < volume.voxels.size(); ++i) mask.push_back(i % 3 == 0 ? 0 : 1);
  const int threads = omp_get_max_threads();

  omp_set_num_threads(1);
  const IntensityStatistics one = StatisticsOf(volume, mask);
  omp_set_num_threads(5);
  const IntensityStatistics five = StatisticsOf(volume, mask);
  omp_set_num_threads(threads);

  EXPECT_EQ(one.mean, five.mean);
  EXPECT_EQ(one.standard_deviation, five.standard_deviation);
}

TEST(NormalizeOverMask, SetsTheOutsideToTheMaskedMeanOnRequest) {
  Volume volume = Head();
  const Mask mask = BallMask(volume);

  ASSERT_OK(NormalizeOverMask(volume, mask, HarmonizationPlan::Outside::kZero));

  for (std::size_t i = 0; i < mask.size(); ++i) {
    EXPECT_TRUE(mask[i] != 0 || volume.voxels[i] == 0) << "voxel " << i;
  }
}

class ConstantVolumes : public testing::TestWithParam<float> {};
INSTANTIATE_TEST_SUITE_P(Values, ConstantVolumes, testing::Values(0.0f, 1000.0f, -3e7f, 1e-30f));

TEST_P(ConstantVolumes, AreRefusedUnderEveryMask) {
  for (const HarmonizationPlan::Mask kind :
       {HarmonizationPlan::Mask::kWhole, HarmonizationPlan::Mask::kOtsu,
        HarmonizationPlan::Mask::kThreshold}) {
    Volume volume = Head();
    std::fill(volume.voxels.begin(), volume.voxels.end(), GetParam());

    EXPECT_THAT(Harmonize(volume, PlanWith(kind)),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("constant volume")));
  }
}

TEST(NormalizeOverMask, RefusesRoundingNoiseOnALargeValue) {
  Volume volume = Head();
  for (std::size_t i = 0; i < volume.voxels.size(); ++i) {
    volume.voxels[i] = i % 2 == 0 ? 1e7f : std::nextafter(1e7f, 2e7f);
  }

  EXPECT_THAT(Harmonize(volume, HarmonizationPlan()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("constant volume")));
}

TEST(NormalizeOverMask, RefusesNanAndInfinityByNumberAlsoOutsideTheMask) {
  for (const HarmonizationPlan::Mask kind :
       {HarmonizationPlan::Mask::kWhole, HarmonizationPlan::Mask::kOtsu,
        HarmonizationPlan::Mask::kThreshold, HarmonizationPlan::Mask::kGiven}) {
    Volume volume = Head();
    const Mask given = BallMask(volume);
    volume.voxels[0] = std::numeric_limits<float>::quiet_NaN();
    volume.voxels[1] = std::numeric_limits<float>::infinity();
    volume.voxels[2] = -std::numeric_limits<float>::infinity();

    EXPECT_THAT(
        Harmonize(volume, PlanWith(kind), given),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("3 of 43993 voxels are NaN")));
  }
}

TEST(NormalizeOverMask, RefusesAnEmptyMaskAndAnEmptyVolume) {
  Volume volume = Head();
  Volume nothing;

  EXPECT_THAT(
      NormalizeOverMask(volume, Mask(volume.voxels.size(), 0), HarmonizationPlan::Outside::kKeep),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("mask is empty")));
  EXPECT_THAT(Harmonize(nothing, HarmonizationPlan()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no voxel")));
}

}  // namespace
}  // namespace isoscan
