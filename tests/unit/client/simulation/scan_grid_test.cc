#include "client/simulation/scan_grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "client/imaging/orientation.h"

namespace isoscan {
namespace {

const Geometry kFieldOfView{.size = {40, 50, 30}, .spacing_mm = {1, 1, 2}, .origin_mm = {-5, 7, 9}};

std::array<double, 3> CentreOf(const Geometry& grid) {
  std::array<double, 3> centre{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    centre[axis] = static_cast<double>(grid.size[axis] - 1) / 2;
  }
  return PhysicalPoint(grid, centre);
}

TEST(ScanGrid, OfItsOwnSpacingIsTheFieldOfView) {
  EXPECT_TRUE(SameGrid(ScanGrid(kFieldOfView, {1, 1, 2}, "LPS", 0), kFieldOfView));
}

TEST(ScanGrid, StoresAxesInTheOrderOfItsLetters) {
  const Geometry sagittal = ScanGrid(kFieldOfView, {1, 2, 4}, "PIR", 0);

  EXPECT_THAT(sagittal.size, ::testing::ElementsAre(50, 30, 10));
  EXPECT_EQ(sagittal.direction[1][0], 1);   // First axis: to the back.
  EXPECT_EQ(sagittal.direction[2][1], -1);  // Second: down.
  EXPECT_EQ(sagittal.direction[0][2], -1);  // Third: to the right.
}

TEST(ScanGrid, KeepsTheCentreAndStaysARotation) {
  for (const double angle : {0.0, 12.0, -30.0, 45.0}) {
    for (const std::string orientation : {"LPS", "RAS", "ASL"}) {
      const Geometry grid = ScanGrid(kFieldOfView, {1.5, 1.5, 3}, orientation, angle);
      for (std::size_t row = 0; row < 3; ++row) {
        EXPECT_NEAR(CentreOf(grid)[row], CentreOf(kFieldOfView)[row], 1e-9);
        for (std::size_t other = 0; other < 3; ++other) {
          double product = 0;
          for (std::size_t k = 0; k < 3; ++k) {
            product += grid.direction[row][k] * grid.direction[other][k];
          }
          EXPECT_NEAR(product, row == other ? 1 : 0, 1e-12);
        }
      }
    }
  }
}

TEST(ScanGrid, TurnsByTheAngleAndNoAxisKeepsItsDirection) {
  const Geometry grid = ScanGrid(kFieldOfView, {1, 1, 1}, "LPS", 20);

  // The trace of a rotation is 1 + 2 cos(angle).
  EXPECT_NEAR(grid.direction[0][0] + grid.direction[1][1] + grid.direction[2][2],
              1 + 2 * std::cos(20 * 3.14159265358979 / 180), 1e-9);
  for (std::size_t axis = 0; axis < 3; ++axis) EXPECT_LT(grid.direction[axis][axis], 0.99);
  // Seen canonically it is the same grid, so that every program finds the same axes.
  EXPECT_TRUE(SameGrid(CanonicalGeometry(ScanGrid(kFieldOfView, {1, 1, 1}, "RAS", 20)), grid));
}

TEST(Orientation, NamesEveryAxisOnce) {
  EXPECT_TRUE(IsOrientation("RAS"));
  EXPECT_TRUE(IsOrientation("SLP"));
  for (const char* const wrong : {"", "LP", "LPSR", "LRS", "LPX", "lps"}) {
    EXPECT_FALSE(IsOrientation(wrong)) << wrong;
  }
}

}  // namespace
}  // namespace isoscan
