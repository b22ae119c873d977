#include "client/training/intensity_augmentation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/random/philox.h"

namespace isoscan {
namespace {

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
    AugmentIntensity(patch, 0, random);
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
    AugmentIntensity(patch, 1, random);
    if (patch != before) ++changed;
  }
  // 1 - 0.9 * 0.85 * 0.85 * 0.9 * 0.7 = 0.590; four standard errors are 0.062.
  EXPECT_NEAR(changed / 1000.0, 0.590, 0.062);
}

TEST(IntensityAugmentation, StaysFiniteAndNearTheHarmonizedRange) {
  for (std::uint64_t i = 0; i < 300; ++i) {
    std::vector<float> patch = NormalPatch();
    RandomStream random(3, "intensity", i);

    AugmentIntensity(patch, 10, random);  // everything, each time

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
    AugmentIntensity(patch, 10, random);
    ASSERT_TRUE(std::ranges::all_of(patch, [](float value) { return std::isfinite(value); }));
  }
}

}  // namespace
}  // namespace isoscan
