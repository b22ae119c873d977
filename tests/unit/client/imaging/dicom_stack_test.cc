#include "client/imaging/dicom_stack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "tests/unit/client/imaging/phantom.h"

namespace isoscan {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

/// The same grid turned so that its slices run along another axis.
Geometry Turned(Geometry grid) {
  for (auto& row : grid.direction) std::rotate(row.begin(), row.begin() + 1, row.end());
  return grid;
}

std::array<double, 6> OrientationOf(const Geometry& grid) {
  const auto& d = grid.direction;
  return {d[0][0], d[1][0], d[2][0], d[0][1], d[1][1], d[2][1]};
}

/// The slices of a grid, the last one first.
std::vector<DicomPlane> PlanesOf(const Geometry& grid) {
  std::vector<DicomPlane> planes;
  for (std::int64_t z = grid.size[2] - 1; z >= 0; --z) {
    planes.push_back({.slice = {.file = std::to_string(z), .frame = 0},
                      .position_mm = PhysicalPoint(grid, {0, 0, static_cast<double>(z)}),
                      .axes = PlaneAxesOf(OrientationOf(grid)).value_or(PlaneAxes{})});
  }
  return planes;
}

std::vector<DicomPlane> Together(std::vector<DicomPlane> planes,
                                 const std::vector<DicomPlane>& others) {
  planes.insert(planes.end(), others.begin(), others.end());
  return planes;
}

TEST(StackPlanes, GivesBackTheGridThatPlanesWereCutFrom) {
  const Geometry grid = ObliqueGeometry({6, 5, 7});
  std::vector<DicomPlane> planes = PlanesOf(grid);

  const auto stack = StackPlanes(planes, {6, 5}, {grid.spacing_mm[0], grid.spacing_mm[1]});

  ASSERT_TRUE(std::holds_alternative<Geometry>(stack));
  EXPECT_TRUE(SameGrid(std::get<Geometry>(stack), grid, 1e-9));
  EXPECT_EQ(planes.front().slice.file, "0");
  EXPECT_EQ(planes.back().slice.file, "6");
}

TEST(StackPlanes, TellsWhichPlaneLacks) {
  std::vector<DicomPlane> planes = PlanesOf(ObliqueGeometry({6, 5, 7}));
  planes.erase(planes.begin() + 2);

  const auto stack = StackPlanes(planes, {6, 5}, {0.8, 1.1});

  ASSERT_TRUE(std::holds_alternative<DicomRefusal>(stack));
  EXPECT_EQ(std::get<DicomRefusal>(stack).fault, DicomFault::kMissingSlices);
  EXPECT_THAT(std::get<DicomRefusal>(stack).reason,
              HasSubstr("1 of 7 slices are missing: 3 and 5 are 5.8 mm apart"));
}

TEST(PlaneAxesOf, StraightensWhatAHeaderRoundsAndRefusesWhatIsNoRightAngle) {
  const std::array<double, 6> rounded{1, 0.001, 0, 0, 1, 0};
  const std::array<double, 6> leaning{1, 0.01, 0, 0, 1, 0};

  const auto axes = PlaneAxesOf(rounded);
  ASSERT_TRUE(axes.has_value());
  EXPECT_NEAR((*axes)[0][0] * (*axes)[1][0] + (*axes)[0][1] * (*axes)[1][1], 0, 1e-15);
  EXPECT_FALSE(PlaneAxesOf(leaning).has_value());
}

TEST(PartByDirection, TakesEachDirectionOfThirtyPlanesForAScan) {
  const auto parts = PartByDirection(Together(PlanesOf(ObliqueGeometry({3, 2, 30})),
                                              PlanesOf(Turned(ObliqueGeometry({3, 2, 31})))));

  ASSERT_THAT(parts, SizeIs(2));
  EXPECT_THAT(parts[0].planes, SizeIs(30));
  EXPECT_THAT(parts[1].planes, SizeIs(31));
  EXPECT_FALSE(parts[0].refusal.has_value() || parts[1].refusal.has_value());
}

TEST(PartByDirection, TakesFewerPlanesBesideAScanForALocaliser) {
  const auto parts = PartByDirection(Together(PlanesOf(ObliqueGeometry({3, 2, 3})),
                                              PlanesOf(Turned(ObliqueGeometry({3, 2, 30})))));

  ASSERT_THAT(parts, SizeIs(2));
  ASSERT_TRUE(parts[0].refusal.has_value());
  EXPECT_EQ(parts[0].refusal->fault, DicomFault::kLocaliser);
  EXPECT_THAT(parts[0].refusal->reason, HasSubstr("3 slices"));
  EXPECT_FALSE(parts[1].refusal.has_value());
}

TEST(PartByDirection, TakesFewPlanesInEachForOneLocaliser) {
  const auto parts = PartByDirection(Together(PlanesOf(ObliqueGeometry({3, 2, 29})),
                                              PlanesOf(Turned(ObliqueGeometry({3, 2, 3})))));

  ASSERT_THAT(parts, SizeIs(1));
  EXPECT_THAT(parts[0].planes, SizeIs(32));
  ASSERT_TRUE(parts[0].refusal.has_value());
  EXPECT_THAT(parts[0].refusal->reason, HasSubstr("29 + 3 slices in 2 directions"));
}

}  // namespace
}  // namespace isoscan
