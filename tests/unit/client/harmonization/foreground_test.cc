#include "client/harmonization/foreground.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <queue>
#include <vector>

#include "common/random/philox.h"

namespace isoscan {
namespace {

using testing::ElementsAre;

using Size = std::array<std::int64_t, 3>;

/// The same questions answered voxel by voxel: the mask's face-connected components of one value.
std::vector<std::vector<std::int64_t>> ComponentsByFlooding(const std::vector<std::uint8_t>& mask,
                                                            const Size& size, std::uint8_t value) {
  std::vector<std::vector<std::int64_t>> components;
  std::vector<bool> seen(mask.size(), false);
  const std::array<std::int64_t, 3> stride{1, size[0], size[0] * size[1]};
  for (std::size_t start = 0; start < mask.size(); ++start) {
    if (seen[start] || mask[start] != value) continue;
    components.emplace_back();
    std::queue<std::int64_t> front({static_cast<std::int64_t>(start)});
    seen[start] = true;
    while (!front.empty()) {
      const std::int64_t voxel = front.front();
      front.pop();
      components.back().push_back(voxel);
      for (std::size_t axis = 0; axis < 3; ++axis) {
        const std::int64_t place = voxel / stride[axis] % size[axis];
        for (const std::int64_t step : {-1, 1}) {
          if (place + step < 0 || place + step >= size[axis]) continue;
          const auto next = static_cast<std::size_t>(voxel + step * stride[axis]);
          if (seen[next] || mask[next] != value) continue;
          seen[next] = true;
          front.push(static_cast<std::int64_t>(next));
        }
      }
    }
  }
  return components;
}

/// Rows shorter than, as long as and longer than a 64-bit word; several slabs of slices.
Size SizeOf(std::uint32_t seed) {
  const std::array<Size, 4> sizes{{{9, 7, 6}, {64, 3, 35}, {71, 5, 40}, {130, 6, 17}}};
  return sizes[seed % sizes.size()];
}

std::vector<std::uint8_t> RandomMask(std::uint32_t seed, const Size& size) {
  RandomStream random(seed, "mask");
  std::vector<std::uint8_t> mask;
  for (std::int64_t i = 0; i < size[0] * size[1] * size[2]; ++i) {
    mask.push_back(random.Chance(0.35 + 0.02 * (seed % 20)) ? 1 : 0);
  }
  return mask;
}

class RandomMasks : public testing::TestWithParam<std::uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Foreground, RandomMasks, testing::Range(0u, 40u));

TEST_P(RandomMasks, KeepTheirLargestComponent) {
  const Size size = SizeOf(GetParam());
  const std::vector<std::uint8_t> mask = RandomMask(GetParam(), size);
  std::size_t greatest = 0;
  std::vector<std::int64_t> largest;
  for (const auto& component : ComponentsByFlooding(mask, size, 1)) {
    if (component.size() <= greatest) continue;
    greatest = component.size();
    largest = component;
  }
  std::vector<std::uint8_t> expected(mask.size(), 0);
  for (const std::int64_t voxel : largest) expected[static_cast<std::size_t>(voxel)] = 1;

  std::vector<std::uint8_t> kept = mask;
  KeepLargestComponent(kept, size);

  EXPECT_EQ(kept, expected);
}

TEST_P(RandomMasks, LoseTheirHoles) {
  const Size size = SizeOf(GetParam());
  const std::vector<std::uint8_t> mask = RandomMask(GetParam(), size);
  std::vector<std::uint8_t> expected = mask;
  for (const auto& component : ComponentsByFlooding(mask, size, 0)) {
    bool border = false;
    for (const std::int64_t voxel : component) {
      const std::int64_t x = voxel % size[0];
      const std::int64_t y = voxel / size[0] % size[1];
      const std::int64_t z = voxel / size[0] / size[1];
      border = border || x == 0 || y == 0 || z == 0 || x == size[0] - 1 || y == size[1] - 1 ||
               z == size[2] - 1;
    }
    if (border) continue;
    for (const std::int64_t voxel : component) expected[static_cast<std::size_t>(voxel)] = 1;
  }

  std::vector<std::uint8_t> filled = mask;
  FillHoles(filled, size);

  EXPECT_EQ(filled, expected);
}

TEST(Foreground, OfAnEmptyMaskStaysEmpty) {
  std::vector<std::uint8_t> mask(378, 0);

  KeepLargestComponent(mask, {9, 7, 6});
  FillHoles(mask, {9, 7, 6});

  EXPECT_THAT(mask, testing::Each(0));
}

TEST(OtsuThreshold, PartsTwoPeaksAtTheLowerOne) {
  std::array<std::int64_t, kOtsuBins> histogram{};
  histogram[20] = 1000;
  histogram[200] = 10;

  EXPECT_EQ(OtsuThreshold(histogram), 20U);
}

// Worked by hand: between-class variance is greatest between bins 1 and 3.
TEST(OtsuThreshold, HasTheGreatestBetweenClassVariance) {
  std::array<std::int64_t, kOtsuBins> histogram{};
  histogram[0] = 8;
  histogram[1] = 7;
  histogram[3] = 6;
  histogram[4] = 9;

  EXPECT_EQ(OtsuThreshold(histogram), 1U);
}

}  // namespace
}  // namespace isoscan
