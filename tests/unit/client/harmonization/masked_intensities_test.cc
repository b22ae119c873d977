#include "client/harmonization/masked_intensities.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/random/philox.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/client/imaging/phantom.h"
#include <omp.h>

namespace isoscan {
namespace {

using testing::HasSubstr;

/// A volume of `kind` 0: noise; 1: few whole numbers; 2: noise with two enormous voxels; 3: a small
/// signal on a large bias.
Volume RandomVolume(std::uint32_t kind) {
  RandomStream random(kind, "volume");
  Volume volume = NumberedVolume(ObliqueGeometry({53, 47, 61}));
  for (float& voxel : volume.voxels) {
    const double noise = 100 * random.Normal();
    voxel = static_cast<float>(kind == 1   ? std::round(noise / 50)
                               : kind == 3 ? 1e5 + noise
                                           : noise);
  }
  if (kind == 2) volume.voxels[7] = volume.voxels[8] = 3e9f;
  return volume;
}

Mask TwoThirds(const Volume& volume) {
  Mask mask;
  for (std::size_t i = 0; i < volume.voxels.size(); ++i) mask.push_back(i % 3 == 0 ? 0 : 1);
  return mask;
}

class Volumes : public testing::TestWithParam<std::uint32_t> {};
INSTANTIATE_TEST_SUITE_P(MaskedIntensities, Volumes, testing::Range(0u, 4u));

TEST_P(Volumes, HaveTheQuantilesOfTheirSortedVoxels) {
  const Volume volume = RandomVolume(GetParam());
  const Mask mask = TwoThirds(volume);
  std::vector<float> sorted;
  for (std::size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] != 0) sorted.push_back(volume.voxels[i]);
  }
  std::sort(sorted.begin(), sorted.end());
  const std::vector<double> fractions{0, 1e-9, 0.01, 0.123, 0.5, 0.5, 0.96, 0.99999, 1};
  ASSERT_OK_AND_ASSIGN(const IntensityRange range, RangeOverMask(volume, mask));

  const std::vector<double> quantiles = QuantilesOverMask(volume, mask, range, fractions);

  EXPECT_EQ(range.voxels, static_cast<std::int64_t>(sorted.size()));
  for (std::size_t i = 0; i < fractions.size(); ++i) {
    const double place = fractions[i] * static_cast<double>(sorted.size() - 1);
    const double low = sorted[static_cast<std::size_t>(std::floor(place))];
    const double high = sorted[static_cast<std::size_t>(std::ceil(place))];
    EXPECT_NEAR(quantiles[i], low + (high - low) * (place - std::floor(place)),
                1e-12 * (std::abs(low) + std::abs(high)));
  }
}

TEST_P(Volumes, HaveBinsThatHoldEveryVoxelInOrder) {
  const Volume volume = RandomVolume(GetParam());
  const Mask mask = TwoThirds(volume);
  ASSERT_OK_AND_ASSIGN(const IntensityRange range, RangeOverMask(volume, mask));

  const std::vector<IntensityBin> bins = BinsOverMask(volume, mask, range);

  std::int64_t voxels = 0;
  double sum = 0;
  for (std::size_t i = 0; i < bins.size(); ++i) {
    voxels += bins[i].voxels;
    sum += bins[i].mean * static_cast<double>(bins[i].voxels);
    if (i > 0) {
      EXPECT_GT(bins[i].mean, bins[i - 1].mean);
    }
  }
  EXPECT_EQ(voxels, range.voxels);
  EXPECT_NEAR(sum / static_cast<double>(voxels), StatisticsOf(volume, mask).mean,
              1e-9 * (range.maximum - range.minimum));
}

TEST_P(Volumes, HaveTheSameBitsOnAnyNumberOfThreads) {
  const Volume volume = RandomVolume(GetParam());
  const Mask mask = TwoThirds(volume);
  ASSERT_OK_AND_ASSIGN(const IntensityRange range, RangeOverMask(volume, mask));
  const int threads = omp_get_max_threads();
  std::vector<std::vector<IntensityBin>> bins;
  std::vector<std::vector<double>> quantiles;
  for (const int number : {1, 5}) {
    omp_set_num_threads(number);
    bins.push_back(BinsOverMask(volume, mask, range));
    quantiles.push_back(QuantilesOverMask(volume, mask, range, {{0.1, 0.77}}));
  }
  omp_set_num_threads(threads);

  EXPECT_EQ(quantiles[0], quantiles[1]);
  ASSERT_EQ(bins[0].size(), bins[1].size());
  for (std::size_t i = 0; i < bins[0].size(); ++i) ASSERT_EQ(bins[0][i].mean, bins[1][i].mean);
}

TEST(BinsOverMask, KeepWholeNumbersAsTheyAre) {
  const Volume volume = RandomVolume(1);
  const Mask mask = TwoThirds(volume);
  ASSERT_OK_AND_ASSIGN(const IntensityRange range, RangeOverMask(volume, mask));

  for (const IntensityBin& bin : BinsOverMask(volume, mask, range)) {
    EXPECT_EQ(bin.mean, std::round(bin.mean));
  }
}

TEST(RangeOverMask, LeavesOutWhatLiesAboveItsLimit) {
  const Volume volume = NumberedVolume(ObliqueGeometry({10, 1, 1}));

  ASSERT_OK_AND_ASSIGN(const IntensityRange range, RangeOverMask(volume, Mask(10, 1), 6.5));

  EXPECT_EQ(range.minimum, 0);
  EXPECT_EQ(range.maximum, 6);
  EXPECT_EQ(range.voxels, 7);
}

TEST(RangeOverMask, RefusesWhatNoNormaliserCanUse) {
  Volume volume = NumberedVolume(ObliqueGeometry({10, 10, 10}));
  const auto refuses = [&volume](const Mask& mask, const std::string& reason) {
    EXPECT_THAT(RangeOverMask(volume, mask),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(reason)));
  };
  refuses(Mask(999, 1), "the mask has 999 voxels, the volume 1000");
  refuses(Mask(1000, 0), "the mask is empty: none of 1000 voxels");
  Mask single(1000, 0);
  single[5] = 1;
  refuses(single, "all 1 voxels under the mask have the intensity 5");
  volume.voxels[0] = std::numeric_limits<float>::quiet_NaN();
  volume.voxels[1] = -std::numeric_limits<float>::infinity();
  refuses(single, "2 of 1000 voxels are NaN or infinite");
}

}  // namespace
}  // namespace isoscan
