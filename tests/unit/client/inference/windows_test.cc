#include "client/inference/windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>

namespace isoscan {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::Pointwise;

TEST(WindowStarts, CoverTheAxisEvenly) {
  EXPECT_THAT(WindowStarts(10, 10, 0.5), ElementsAre(0));
  EXPECT_THAT(WindowStarts(7, 10, 0.5), ElementsAre(0));
  EXPECT_THAT(WindowStarts(20, 10, 0.5), ElementsAre(0, 5, 10));
  EXPECT_THAT(WindowStarts(21, 10, 0.5), ElementsAre(0, 4, 7, 11));
  EXPECT_THAT(WindowStarts(20, 10, 0), ElementsAre(0, 10));
}

// What nnunetv2 2.8.1 gives: compute_steps_for_sliding_window, compute_gaussian in float64.
TEST(Windows, StandAndWeighAsInNnunet) {
  EXPECT_THAT(WindowStarts(15, 10, 0.5), ElementsAre(0, 5));
  EXPECT_THAT(WindowStarts(19, 10, 0.5), ElementsAre(0, 4, 9));
  EXPECT_THAT(WindowStarts(17, 10, 0.5), ElementsAre(0, 4, 7));
  EXPECT_THAT(WindowStarts(43, 16, 0.5), ElementsAre(0, 7, 14, 20, 27));
  EXPECT_THAT(GaussianWeights(8),
              Pointwise(FloatNear(1e-6F), {0.000335F, 0.011109F, 0.135335F, 0.606531F, 1.0F,
                                           0.606531F, 0.135335F, 0.011109F}));
  EXPECT_THAT(GaussianWeights(5),
              Pointwise(FloatNear(1e-6F), {0.005976F, 0.278037F, 1.0F, 0.278037F, 0.005976F}));
}

// docs/performance.md compares times per volume with peers that take as many.
TEST(Windows, AreAsManyOverCh2AsMonaiAndNnunetTake) {
  const Windows windows({181, 217, 181}, {40, 56, 40}, 0.5);

  EXPECT_EQ(windows.count(), 567);
  EXPECT_EQ(windows.Corners().size(), 567U);
  EXPECT_THAT(windows.Corners().back(), ElementsAre(141, 161, 141));
}

TEST(Windows, EachReachIntoTheVolume) {
  const Windows windows({5, 60, 3}, {8, 16, 8}, 0.5);

  EXPECT_THAT(windows.padded, ElementsAre(8, 60, 8));
  EXPECT_THAT(windows.before, ElementsAre(1, 0, 2));
  for (const Triple& corner : windows.Corners()) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      EXPECT_LT(corner[axis], windows.before[axis] + windows.volume[axis]);
      EXPECT_GT(corner[axis] + windows.window[axis], windows.before[axis]);
    }
  }
}

TEST(Windows, TotalWeightIsThatOfAllWindowsAtAVoxel) {
  const Windows windows({9, 7, 11}, {4, 7, 6}, 0.5);

  for (std::int64_t z = 0; z < 9; ++z) {
    float total = 0;
    for (const std::int64_t start : windows.starts[0]) {
      if (z >= start && z < start + 4)
        total += windows.weights[0][static_cast<std::size_t>(z - start)];
    }
    EXPECT_FLOAT_EQ(windows.totals[0][static_cast<std::size_t>(z)], total);
    EXPECT_GT(total, 0);
  }
}

}  // namespace
}  // namespace isoscan
