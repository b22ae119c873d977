#include "common/study/label_side.h"

#include <gtest/gtest.h>

namespace isoscan {
namespace {

using Side = SidedName::Side;

TEST(SideOf, FindsTheSideInEveryWayOfWriting) {
  for (const char* name : {"Left-Hippocampus", "left hippocampus", "hippocampus_L",
                           "lh.hippocampus", "hippocampusLeft", "LT_hippocampus"}) {
    EXPECT_EQ(SideOf(name).side, Side::kLeft) << name;
    EXPECT_EQ(SideOf(name).rest, "hippocampus ") << name;
  }
  EXPECT_EQ(SideOf("right_putamen").side, Side::kRight);
  for (const char* name : {"hippocampus", "lesion", "upright", "cleft", "L5", ""}) {
    EXPECT_EQ(SideOf(name).side, Side::kNone) << name;
  }
}

TEST(AnyHasASide, NeedsTheWordInFullOrAPair) {
  EXPECT_TRUE(AnyHasASide({"tumour", "left ventricle"}));
  EXPECT_TRUE(AnyHasASide({"hippocampus_L", "tumour", "hippocampus_R"}));
  EXPECT_FALSE(AnyHasASide({"hippocampus_L", "amygdala_R"}));
  EXPECT_FALSE(AnyHasASide({"anterior", "posterior", "cleft"}));
  EXPECT_FALSE(AnyHasASide({}));
}

}  // namespace
}  // namespace isoscan
