#include "client/training/intensity_augmentation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/random/philox.h"

namespace isoscan {
namespace {

constexpr Triple kPatch{16, 16, 16};

std::vector<float> NormalPatch() {
  RandomStream random(1, "patch");
  std::vector<float> patch(4096);
  for (float& value : patch) value = static_cast<float>(random.Normal());
  return patch;
}

double Mean(const std::vector<float>& patch) {
  double sum = 0;
  for (const float value : patch) sum += value;
  return sum / static_cast<double>(patch.size());
}

double Deviation(const std::vector<float>& patch) {
  const double mean = Mean(patch);
  double squares = 0;
  for (const float value : patch) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / static_cast<double>(patch.size()));
}

TEST(IntensityAugmentation, LeavesThePatchAloneAtStrengthZero) {
  std::vector<float> patch = NormalPatch();
  for (std::uint64_t i = 0; i < 50; ++i) {
    RandomStream random(2, "intensity", i);
    AugmentIntensity(patch, kPatch, {.strength = 0, .resolution = true}, random);
  }
  EXPECT_EQ(patch, NormalPatch());
}

TEST(IntensityAugmentation, ChangesAboutSixPatchesInTen) {
  int changed = 0;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    std::vector<float> patch = NormalPatch();
    patch.resize(64);
    const std::vector<float> before = patch;
    RandomStream random(2, "intensity", i);
    AugmentIntensity(patch, {4, 4, 4}, {}, random);
    if (patch != before) ++changed;
  }
  // 1 - 0.9 * 0.85 * 0.85 * 0.9 * 0.7 = 0.590; four standard errors are 0.062.
  EXPECT_NEAR(changed / 1000.0, 0.590, 0.062);
}

TEST(IntensityAugmentation, AlsoLowersResolutionAsOftenAsNnunet) {
  int changed = 0;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    std::vector<float> patch = NormalPatch();
    patch.resize(64);
    const std::vector<float> before = patch;
    RandomStream random(2, "intensity", i);
    AugmentIntensity(patch, {4, 4, 4}, {.resolution = true}, random);
    if (patch != before) ++changed;
  }
  // One channel is blurred with 0.2 * 0.5, of lower resolution with 0.25 * 0.5 (of which some keep
  // all of the four voxels): 1 - 0.41 * 0.9 * 0.9 = 0.668 is between what both bounds give.
  EXPECT_NEAR(changed / 2000.0, 0.668, 0.05);
}

TEST(IntensityAugmentation, ChangesAllChannelsOrNoneEachWithItsOwnNumbers) {
  int changed = 0;
  for (std::uint64_t i = 0; i < 300; ++i) {
    std::vector<float> patch = NormalPatch();
    patch.resize(64);
    const std::vector<float> before = patch;
    patch.insert(patch.end(), before.begin(), before.end());
    RandomStream random(2, "intensity", i);
    AugmentIntensity(patch, {4, 4, 4}, {}, random);
    const std::vector<float> first(patch.begin(), patch.begin() + 64);
    const std::vector<float> second(patch.begin() + 64, patch.end());
    ASSERT_EQ(first == before, second == before);
    if (first == before) continue;
    ++changed;
    ASSERT_NE(first, second);
  }
  EXPECT_GT(changed, 100);
}

TEST(IntensityAugmentation, StaysFiniteAndNearTheHarmonizedRange) {
  for (std::uint64_t i = 0; i < 300; ++i) {
    std::vector<float> patch = NormalPatch();
    RandomStream random(3, "intensity", i);

    AugmentIntensity(patch, kPatch, {.strength = 10}, random);  // everything, each time

    ASSERT_TRUE(std::ranges::all_of(patch, [](float value) { return std::isfinite(value); }));
    ASSERT_NEAR(Mean(patch), 0, 0.2);
    ASSERT_GT(Deviation(patch), 0.5);
    ASSERT_LT(Deviation(patch), 1.7);
  }
}

TEST(IntensityAugmentation, SurvivesAPatchThatLiesOutsideTheVolume) {
  for (std::uint64_t i = 0; i < 100; ++i) {
    std::vector<float> patch(64, 0.0F);
    RandomStream random(4, "intensity", i);
    AugmentIntensity(patch, {4, 4, 4}, {.strength = 10, .resolution = true}, random);
    ASSERT_TRUE(std::ranges::all_of(patch, [](float value) { return std::isfinite(value); }));
  }
}

}  // namespace
}  // namespace isoscan
