#include "client/evaluation/surface.h"

#include <gtest/gtest.h>

#include "tests/unit/client/evaluation/masks.h"

namespace isoscan {
namespace {

bool Inside(LabelMap& mask, std::int64_t x, std::int64_t y, std::int64_t z) {
  const auto& size = mask.geometry.size;
  return x >= 0 && x < size[0] && y >= 0 && y < size[1] && z >= 0 && z < size[2] &&
         At(mask, x, y, z) == 1;
}

// Point by point, whatever words they lie in.
std::vector<SurfacePoint> PointsOf(LabelMap& mask, SurfaceDefinition definition) {
  std::vector<SurfacePoint> points;
  const auto& size = mask.geometry.size;
  for (std::int64_t z = 0; z <= size[2]; ++z) {
    for (std::int64_t y = 0; y <= size[1]; ++y) {
      for (std::int64_t x = 0; x <= size[0]; ++x) {
        unsigned code = 0;
        for (unsigned i = 0; i < 8; ++i) {
          code |= (Inside(mask, x - 1 + (i & 1), y - 1 + (i >> 1 & 1), z - 1 + (i >> 2)) ? 1u : 0u)
                  << i;
        }
        const bool element = code != 0 && code != 255;
        const bool border =
            Inside(mask, x, y, z) &&
            !(Inside(mask, x - 1, y, z) && Inside(mask, x + 1, y, z) && Inside(mask, x, y - 1, z) &&
              Inside(mask, x, y + 1, z) && Inside(mask, x, y, z - 1) && Inside(mask, x, y, z + 1));
        const bool elements = definition == SurfaceDefinition::kElements;
        if (!(elements ? element : border)) continue;
        points.push_back({.x = static_cast<std::uint16_t>(x),
                          .y = static_cast<std::uint16_t>(y),
                          .z = static_cast<std::uint16_t>(z),
                          .code = static_cast<std::uint8_t>(elements ? code : 0)});
      }
    }
  }
  return points;
}

TEST(Surface, HasThePointsThatLookingAtEveryVoxelFinds) {
  RandomStream random(8, "surface");
  for (const std::array<std::int64_t, 3> size : {std::array<std::int64_t, 3>{1, 1, 1},
                                                 {63, 9, 4},
                                                 {64, 9, 4},
                                                 {65, 9, 4},
                                                 {200, 30, 40},
                                                 {128, 90, 70}}) {
    LabelMap mask = RandomBoxes(size, {1, 1, 1}, 5, 1, random);
    const BitGrid voxels = VoxelsOf(mask, 1, {.first = {0, 0, 0}, .end = size});
    for (const SurfaceDefinition definition :
         {SurfaceDefinition::kElements, SurfaceDefinition::kVoxels}) {
      const std::vector<SurfacePoint> expected = PointsOf(mask, definition);
      const Surface surface = SurfaceOf(voxels, definition, {2, 3});
      ASSERT_EQ(surface.points.size(), expected.size());
      for (std::size_t i = 0; i < expected.size(); ++i) {
        const SurfacePoint& point = surface.points[i];
        ASSERT_EQ(point.x, expected[i].x);
        ASSERT_EQ(point.y, expected[i].y);
        ASSERT_EQ(point.z, expected[i].z);
        ASSERT_EQ(point.code, expected[i].code);
        ASSERT_EQ(surface.grid.Row(point.y, point.z)[point.x / 64] >> (point.x % 64) & 1, 1u);
      }
    }
  }
}

}  // namespace
}  // namespace isoscan
