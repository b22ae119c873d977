#include "client/evaluation/surface_areas.h"

#include <gtest/gtest.h>

#include <cmath>

namespace isoscan {
namespace {

TEST(SurfaceAreas, AreThoseOfTheSurfaceSeenFromTheOtherSide) {
  const std::array<double, 256> areas = SurfaceAreas({0.7, 1.3, 4});

  for (std::size_t code = 0; code < areas.size(); ++code) {
    EXPECT_DOUBLE_EQ(areas[code], areas[255 - code]) << code;
  }
  EXPECT_EQ(areas[0], 0);
}

TEST(SurfaceAreas, DoNotDependOnTheOrderOfTheAxes) {
  const std::array<double, 256> areas = SurfaceAreas({0.7, 1.3, 4});
  const std::array<double, 256> turned = SurfaceAreas({4, 0.7, 1.3});  // x -> y -> z -> x.

  for (unsigned code = 0; code < areas.size(); ++code) {
    unsigned turned_code = 0;
    for (unsigned corner = 0; corner < 8; ++corner) {
      const unsigned turned_corner = (corner << 1 & 6) | corner >> 2;
      turned_code |= (code >> corner & 1) << turned_corner;
    }
    EXPECT_NEAR(areas[code], turned[turned_code], 1e-12) << code;
  }
}

TEST(SurfaceAreas, OfAPlaneAreThoseOfItsVoxelFaces) {
  const std::array<double, 256> areas = SurfaceAreas({0.5, 2, 3});

  EXPECT_DOUBLE_EQ(areas[0b01010101], 6) << "x = 0 is inside";
  EXPECT_DOUBLE_EQ(areas[0b00110011], 1.5) << "y = 0";
  EXPECT_DOUBLE_EQ(areas[0b00001111], 1) << "z = 0";
  EXPECT_DOUBLE_EQ(areas[0b00000001], std::hypot(1 * 1.5, 0.25 * 1.5, 0.25 * 1) / 2) << "a corner";
}

}  // namespace
}  // namespace isoscan
