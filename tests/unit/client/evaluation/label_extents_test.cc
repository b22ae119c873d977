#include "client/evaluation/label_extents.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/client/evaluation/masks.h"

namespace isoscan {
namespace {

// Voxel by voxel.
LabelExtent ExtentOf(LabelMap& reference, LabelMap& predicted, std::uint8_t label) {
  LabelExtent extent;
  extent.box.first = reference.geometry.size;
  const auto& size = reference.geometry.size;
  for (std::int64_t z = 0; z < size[2]; ++z) {
    for (std::int64_t y = 0; y < size[1]; ++y) {
      for (std::int64_t x = 0; x < size[0]; ++x) {
        const bool expected = At(reference, x, y, z) == label;
        const bool found = At(predicted, x, y, z) == label;
        extent.overlap.reference_voxels += expected ? 1 : 0;
        extent.overlap.predicted_voxels += found ? 1 : 0;
        extent.overlap.common_voxels += expected && found ? 1 : 0;
        if (!expected && !found) continue;
        const std::array<std::int64_t, 3> at{x, y, z};
        for (std::size_t axis = 0; axis < 3; ++axis) {
          extent.box.first[axis] = std::min(extent.box.first[axis], at[axis]);
          extent.box.end[axis] = std::max(extent.box.end[axis], at[axis] + 1);
        }
      }
    }
  }
  return extent;
}

TEST(LabelExtents, AreThoseOfLookingAtEveryVoxel) {
  RandomStream random(1, "extents");
  // Rows shorter than a word of voxels, of one word, longer, and slices of a few voxels; the last
  // is large enough for several threads.
  for (const std::array<std::int64_t, 3> size : {std::array<std::int64_t, 3>{1, 1, 1},
                                                 {3, 2, 5},
                                                 {7, 9, 1},
                                                 {64, 3, 4},
                                                 {65, 20, 3},
                                                 {70, 65, 60}}) {
    LabelMap reference = RandomBoxes(size, {1, 1, 1}, 6, 5, random);
    LabelMap predicted = RandomBoxes(size, {1, 1, 1}, 6, 5, random);
    const std::vector<LabelExtent> extents = FindExtents(reference, predicted);
    ASSERT_EQ(extents.size(), 256u);
    for (std::uint8_t label = 1; label < 7; ++label) {
      const LabelExtent expected = ExtentOf(reference, predicted, label);
      const LabelExtent& extent = extents[label];
      EXPECT_EQ(extent.overlap.reference_voxels, expected.overlap.reference_voxels);
      EXPECT_EQ(extent.overlap.predicted_voxels, expected.overlap.predicted_voxels);
      EXPECT_EQ(extent.overlap.common_voxels, expected.overlap.common_voxels);
      if (expected.overlap.reference_voxels + expected.overlap.predicted_voxels == 0) {
        EXPECT_EQ(extent.box.end, (std::array<std::int64_t, 3>{}));
        continue;
      }
      EXPECT_EQ(extent.box.first, expected.box.first);
      EXPECT_EQ(extent.box.end, expected.box.end);
    }
  }
}

}  // namespace
}  // namespace isoscan
