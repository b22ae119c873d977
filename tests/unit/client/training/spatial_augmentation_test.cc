#include "client/training/spatial_augmentation.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

#include <ATen/ATen.h>

namespace isoscan {
namespace {

constexpr Triple kPatch{8, 10, 12};

/// Noise, and blobs of four labels.
PreparedCase NoiseCase(std::int64_t channels) {
  PreparedCase noise;
  noise.grid.size = {19, 15, 13};
  RandomStream random(3, "case");
  std::vector<float> image;
  std::vector<std::uint8_t> labels;
  for (std::int64_t i = 0; i < channels * noise.grid.voxels(); ++i) {
    image.push_back(static_cast<float>(random.Normal()));
  }
  for (std::int64_t i = 0; i < noise.grid.voxels(); ++i) {
    labels.push_back(static_cast<std::uint8_t>((i / 3 % 5 + i / 57 + i / 700) % 4));
  }
  noise.image = std::move(image);
  noise.labels = std::move(labels);
  return noise;
}

struct Patch {
  std::vector<float> image;
  std::vector<std::uint8_t> labels;
  bool operator==(const Patch&) const = default;
};

Patch Sample(const PreparedCase& source, std::int64_t channels, const PatchPlacement& placement) {
  const auto voxels = static_cast<std::size_t>(kPatch[0] * kPatch[1] * kPatch[2]);
  Patch patch{.image = std::vector<float>(static_cast<std::size_t>(channels) * voxels, NAN),
              .labels = std::vector<std::uint8_t>(voxels, 99)};
  SamplePatch(source, channels, placement, kPatch, patch.image.data(), patch.labels.data());
  return patch;
}

/// By LibTorch: [channels, D, H, W].
torch::Tensor GridSample(const torch::Tensor& image, const PatchPlacement& placement) {
  const std::vector<std::int64_t> size = image.sizes().slice(1).vec();
  torch::Tensor grid = at::empty({1, kPatch[0], kPatch[1], kPatch[2], 3}, torch::kFloat64);
  for (std::int64_t z = 0; z < kPatch[0]; ++z) {
    for (std::int64_t y = 0; y < kPatch[1]; ++y) {
      for (std::int64_t x = 0; x < kPatch[2]; ++x) {
        const std::array<std::int64_t, 3> voxel{z, y, x};
        for (std::size_t axis = 0; axis < 3; ++axis) {
          double place = placement.centre[axis];
          for (std::size_t k = 0; k < 3; ++k) {
            place += placement.matrix[axis][k] *
                     (static_cast<double>(voxel[k]) - static_cast<double>(kPatch[k] - 1) / 2);
          }
          // LibTorch wants x first, and -1 and 1 at the outermost voxels' centres.
          grid.index_put_({0, z, y, x, static_cast<std::int64_t>(2 - axis)},
                          2 * place / static_cast<double>(size[axis] - 1) - 1);
        }
      }
    }
  }
  return at::grid_sampler_3d(image.unsqueeze(0).to(torch::kFloat64), grid, /*bilinear*/ 0,
                             /*zeros*/ 0, /*align_corners=*/true)
      .squeeze(0);
}

Matrix3 Turned(std::size_t seed, std::optional<std::size_t> flat_axis) {
  for (std::uint64_t draw = 0;; ++draw) {
    RandomStream random(seed, "turned", draw);
    const auto matrix = DrawRotationAndScaling(flat_axis, random);
    if (matrix.has_value() && std::abs((*matrix)[1][2]) > 0.05) return *matrix;
  }
}

TEST(SamplePatch, IsLibTorchsTrilinearSamplingWithZerosAround) {
  const PreparedCase noise = NoiseCase(2);
  std::vector<float> values = noise.image.Copy();
  const torch::Tensor image = at::from_blob(values.data(), {2, 13, 15, 19});
  for (std::size_t seed = 0; seed < 5; ++seed) {
    // Partly outside from the second on.
    const PatchPlacement placement{.centre = {6.3, 7.1, 9.4 + 2.0 * static_cast<double>(seed)},
                                   .matrix = Turned(seed, std::nullopt)};

    Patch patch = Sample(noise, 2, placement);

    const torch::Tensor ours =
        at::from_blob(patch.image.data(), {2, kPatch[0], kPatch[1], kPatch[2]});
    EXPECT_LT((ours - GridSample(image, placement)).abs().max().item<double>(), 1e-5);
  }
}

TEST(SamplePatch, GivesTheLabelOfTheGreatestInterpolatedShare) {
  const PreparedCase noise = NoiseCase(1);
  std::vector<std::uint8_t> values = noise.labels.Copy();
  const torch::Tensor labels = at::from_blob(values.data(), {13, 15, 19}, torch::kUInt8);
  for (std::size_t seed = 0; seed < 5; ++seed) {
    const PatchPlacement placement{.centre = {6.3, 7.1, 9.4 + 2.0 * static_cast<double>(seed)},
                                   .matrix = Turned(seed, std::nullopt)};

    Patch patch = Sample(noise, 1, placement);

    std::vector<torch::Tensor> shares;
    for (int label = 0; label < 4; ++label) {
      shares.push_back(GridSample((labels == label).unsqueeze(0), placement).squeeze(0));
    }
    torch::Tensor share = at::stack(shares);
    share[0] += 1 - share.sum(0);  // What lies outside is background.
    const torch::Tensor ours =
        at::from_blob(patch.labels.data(), {kPatch[0], kPatch[1], kPatch[2]}, torch::kUInt8);
    const torch::Tensor own = share.gather(0, ours.to(torch::kInt64).unsqueeze(0)).squeeze(0);
    // Where two shares are equal but for rounding, either may be taken.
    EXPECT_LT((std::get<0>(share.max(0)) - own).max().item<double>(), 1e-6);
  }
}

TEST(SamplePatch, OfNoRotationIsACopy) {
  const PreparedCase noise = NoiseCase(1);
  const PatchPlacement placement{.centre = {2 + 3.5, 4 + 4.5, 5 + 5.5}};

  const Patch patch = Sample(noise, 1, placement);

  for (std::int64_t z = 0; z < kPatch[0]; ++z) {
    for (std::int64_t y = 0; y < kPatch[1]; ++y) {
      for (std::int64_t x = 0; x < kPatch[2]; ++x) {
        const auto to = static_cast<std::size_t>((z * kPatch[1] + y) * kPatch[2] + x);
        const auto from = static_cast<std::size_t>(((z + 2) * 15 + y + 4) * 19 + x + 5);
        const bool inside = z + 2 < 13 && y + 4 < 15 && x + 5 < 19;
        ASSERT_EQ(patch.image[to], inside ? noise.image[from] : 0);
        ASSERT_EQ(patch.labels[to], inside ? noise.labels[from] : 0);
      }
    }
  }
}

TEST(SamplePatch, LetsTheNearestVoxelDecideBetweenEqualShares) {
  PreparedCase two = NoiseCase(1);
  std::vector<std::uint8_t> labels(two.labels.size());
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = i % 19 < 9 ? 3 : 2;
  two.labels = std::move(labels);
  // Half way between two columns of voxels: neither is nearer, and the first of the cell counts.
  const Patch half = Sample(two, 1, {.centre = {6.5, 7.5, 9}});
  const auto middle = static_cast<std::size_t>((4 * 10 + 5) * 12 + 5);
  EXPECT_EQ(half.labels[middle], 3);
  // A little to the right, the second.
  const Patch right = Sample(two, 1, {.centre = {6.5, 7.5, 9.01}});
  EXPECT_EQ(right.labels[middle], 2);
}

TEST(DrawRotationAndScaling, HappensToAThirdOfThePatchesWithinItsLimits) {
  int happened = 0;
  double smallest = 2;
  double largest = 0;
  for (std::uint64_t draw = 0; draw < 5000; ++draw) {
    RandomStream random(1, "spatial", draw);
    const auto matrix = DrawRotationAndScaling(std::nullopt, random);
    if (!matrix.has_value()) continue;
    ++happened;
    // Columns are orthogonal and of one length: the scaling.
    std::array<double, 3> lengths{};
    for (std::size_t column = 0; column < 3; ++column) {
      for (std::size_t row = 0; row < 3; ++row) {
        lengths[column] += (*matrix)[row][column] * (*matrix)[row][column];
      }
      ASSERT_NEAR(lengths[column], lengths[0], 1e-12);
    }
    const double scale = std::sqrt(lengths[0]);
    smallest = std::min(smallest, scale);
    largest = std::max(largest, scale);
    ASSERT_GE(scale, 0.7 - 1e-12);
    ASSERT_LE(scale, 1.4 + 1e-12);
    // Three turns by 30 degrees: no axis is turned by more than 51.4 (its cosine is cos^2(30) -
    // sin^3(30) at least).
    for (std::size_t axis = 0; axis < 3; ++axis) ASSERT_GT((*matrix)[axis][axis] / scale, 0.6);
  }
  EXPECT_NEAR(happened / 5000.0, 1 - 0.8 * 0.8, 0.03);
  EXPECT_LT(smallest, 0.72);
  EXPECT_GT(largest, 1.38);
}

TEST(DrawRotationAndScaling, StaysWithinTheSlicesOfFlatPatches) {
  bool upside_down = false;
  for (std::uint64_t draw = 0; draw < 500; ++draw) {
    RandomStream random(1, "spatial", draw);
    const auto matrix = DrawRotationAndScaling(1, random);
    if (!matrix.has_value()) continue;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      ASSERT_EQ((*matrix)[1][axis], axis == 1 ? 1 : 0);
      ASSERT_EQ((*matrix)[axis][1], axis == 1 ? 1 : 0);
    }
    upside_down = upside_down || (*matrix)[0][0] < -0.9;
  }
  EXPECT_TRUE(upside_down);
}

TEST(FlatAxis, IsTheOneOfThickSlicesWhereThePatchIsMuchLongerOnOthers) {
  Study study;
  study.training.patch_size = {16, 64, 48};
  EXPECT_EQ(FlatAxis(study), 0U);
  study.training.patch_size = {64, 64, 20};
  EXPECT_EQ(FlatAxis(study), 2U);
  study.training.patch_size = {20, 60, 60};
  EXPECT_EQ(FlatAxis(study), std::nullopt);
  // A patch may be short along an axis of thin slices.
  study.harmonization.spacing_mm = {1, 0.5, 4};
  study.training.patch_size = {10, 64, 40};
  EXPECT_EQ(FlatAxis(study), std::nullopt);
  study.training.patch_size = {10, 64, 20};
  EXPECT_EQ(FlatAxis(study), 2U);
}

}  // namespace
}  // namespace isoscan
