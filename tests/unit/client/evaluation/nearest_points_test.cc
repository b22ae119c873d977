#include "client/evaluation/nearest_points.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/unit/client/evaluation/masks.h"

namespace isoscan {
namespace {

// A surface whose points are those voxels.
Surface SurfaceWith(const std::array<std::int64_t, 3>& size, const NearestPoints& nearest,
                    std::vector<SurfacePoint> points) {
  Surface surface{.grid = BitGrid(size, nearest.margin()), .points = std::move(points)};
  for (const SurfacePoint& point : surface.points) {
    surface.grid.Row(point.y, point.z)[point.x / 64] |= std::uint64_t{1} << (point.x % 64);
  }
  return surface;
}

std::vector<SurfacePoint> RandomPoints(const std::array<std::int64_t, 3>& size, int count,
                                       RandomStream& random) {
  std::vector<SurfacePoint> points;
  const auto place = [&](std::size_t axis) {
    return static_cast<std::uint16_t>(random.Uniform(0, static_cast<double>(size[axis])));
  };
  for (int i = 0; i < count; ++i) points.push_back({.x = place(0), .y = place(1), .z = place(2)});
  return points;
}

double SquaredDistance(const SurfacePoint& left, const SurfacePoint& right,
                       const std::array<double, 3>& spacing_mm) {
  const double x = spacing_mm[0] * (left.x - right.x);
  const double y = spacing_mm[1] * (left.y - right.y);
  const double z = spacing_mm[2] * (left.z - right.z);
  return x * x + y * y + z * z;
}

void ExpectThoseOfAllPairs(const std::array<std::int64_t, 3>& size,
                           const std::array<double, 3>& spacing_mm, int from_count, int to_count,
                           RandomStream& random) {
  SCOPED_TRACE(testing::Message() << size[0] << "x" << size[1] << "x" << size[2] << ", "
                                  << spacing_mm[0] << "x" << spacing_mm[1] << "x" << spacing_mm[2]
                                  << " mm, " << from_count << " to " << to_count);
  const NearestPoints nearest(spacing_mm);
  const Surface from = SurfaceWith(size, nearest, RandomPoints(size, from_count, random));
  const Surface to = SurfaceWith(size, nearest, RandomPoints(size, to_count, random));

  const std::vector<double> squared_mm = nearest.SquaredDistances(from, to);

  ASSERT_EQ(squared_mm.size(), from.points.size());
  for (std::size_t i = 0; i < from.points.size(); ++i) {
    double least = std::numeric_limits<double>::infinity();
    for (const SurfacePoint& point : to.points) {
      least = std::min(least, SquaredDistance(from.points[i], point, spacing_mm));
    }
    ASSERT_NEAR(squared_mm[i], least, 1e-12 * least);
  }
}

TEST(NearestPoints, AreThoseOfAllPairsWhetherNearOrFar) {
  RandomStream random(2, "nearest");
  for (const std::array<std::int64_t, 3> size : {std::array<std::int64_t, 3>{150, 40, 30},
                                                 {64, 64, 1},
                                                 {1, 70, 80},
                                                 {2, 1, 300},
                                                 {63, 33, 65}}) {
    for (const std::array<double, 3> spacing_mm : {std::array<double, 3>{1, 1, 1},
                                                   {0.7, 0.9, 5},
                                                   {6, 0.5, 0.5},
                                                   {0.25, 3, 0.31},
                                                   {1e-3, 20, 1e3}}) {
      for (const int to_count : {1, 5, 300, 4000}) {
        ExpectThoseOfAllPairs(size, spacing_mm, 400, to_count, random);
      }
    }
  }
}

// What is seen in another row first must not hide what lies nearer beyond the window of the own
// one.
TEST(NearestPoints, AreFoundBeyondTheWordThatIsLookedAtFirst) {
  const NearestPoints nearest({0.25, 3, 0.31});
  const Surface from = SurfaceWith({40, 1, 40}, nearest, {{.x = 0, .y = 0, .z = 0}});
  const Surface to =
      SurfaceWith({40, 1, 40}, nearest, {{.x = 30, .y = 0, .z = 0}, {.x = 0, .y = 0, .z = 26}});

  EXPECT_EQ(nearest.SquaredDistances(from, to), std::vector<double>{7.5 * 7.5});
}

TEST(NearestPoints, AreInfinitelyFarFromNothing) {
  const NearestPoints nearest({1, 1, 1});
  const Surface nothing = SurfaceWith({4, 4, 4}, nearest, {});
  const Surface point = SurfaceWith({4, 4, 4}, nearest, {{.x = 1, .y = 2, .z = 3}});

  EXPECT_EQ(nearest.SquaredDistances(point, nothing),
            std::vector<double>{std::numeric_limits<double>::infinity()});
  EXPECT_TRUE(nearest.SquaredDistances(nothing, point).empty());
}

}  // namespace
}  // namespace isoscan
