#include "client/evaluation/overlap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/unit/client/imaging/phantom.h"

namespace isoscan {
namespace {

LabelMap MapOf(std::vector<std::uint8_t> voxels) {
  LabelMap labels;
  labels.geometry.size = {static_cast<std::int64_t>(voxels.size()), 1, 1};
  labels.voxels = std::move(voxels);
  return labels;
}

TEST(Overlap, IsOneForEqualMaps) {
  const LabelMap labels = BoxLabels(ObliqueGeometry({12, 9, 8}));

  for (const LabelOverlap& overlap : Overlap(labels, labels, 2)) {
    EXPECT_EQ(overlap.dice(), 1);
    EXPECT_GT(overlap.common_voxels, 0);
  }
}

TEST(MeanDice, LeavesOutLabelsThatAreNowhere) {
  const std::vector<LabelOverlap> overlaps =
      Overlap(MapOf({1, 1, 3, 0}), MapOf({1, 1, 0, 0}), /*labels=*/3);

  EXPECT_DOUBLE_EQ(MeanDice(overlaps), 0.5) << "1 of the first, nothing of the second, 0";
  EXPECT_TRUE(std::isnan(MeanDice({overlaps[1]})));
}

TEST(Overlap, CountsEachLabelByItself) {
  const std::vector<LabelOverlap> overlaps =
      Overlap(MapOf({1, 1, 1, 2, 0, 0}), MapOf({1, 2, 0, 2, 2, 0}), 2);

  EXPECT_EQ(overlaps[0].reference_voxels, 3);
  EXPECT_EQ(overlaps[0].predicted_voxels, 1);
  EXPECT_EQ(overlaps[0].common_voxels, 1);
  EXPECT_DOUBLE_EQ(overlaps[0].dice(), 2.0 / 4);
  EXPECT_DOUBLE_EQ(overlaps[1].dice(), 2.0 / 4);
}

TEST(Overlap, DoesNotDependOnWhichMapIsTheReference) {
  const LabelMap left = MapOf({0, 1, 2, 2, 1, 0, 1});
  const LabelMap right = MapOf({1, 1, 2, 0, 2, 0, 1});

  for (std::size_t label = 0; label < 2; ++label) {
    EXPECT_EQ(Overlap(left, right, 2)[label].dice(), Overlap(right, left, 2)[label].dice());
  }
}

TEST(Overlap, IsZeroForAMissAndForAFalseAlarm) {
  EXPECT_EQ(Overlap(MapOf({1, 1}), MapOf({0, 0}), 1)[0].dice(), 0);
  EXPECT_EQ(Overlap(MapOf({0, 0}), MapOf({0, 1}), 1)[0].dice(), 0);
}

TEST(Overlap, IsUndefinedWhereNobodySeesTheLabel) {
  EXPECT_TRUE(std::isnan(Overlap(MapOf({0, 1}), MapOf({0, 1}), 2)[1].dice()));
}

}  // namespace
}  // namespace isoscan
