#include "client/training/resolution_augmentation.h"

#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <vector>

#include "common/random/philox.h"
#include <ATen/ATen.h>

namespace isoscan {
namespace {

std::vector<float> Noise(const Triple& size) {
  RandomStream random(1, "channel");
  std::vector<float> channel(static_cast<std::size_t>(size[0] * size[1] * size[2]));
  for (float& value : channel) value = static_cast<float>(random.Normal());
  return channel;
}

torch::Tensor AsTensor(std::vector<float>& channel, const Triple& size) {
  return at::from_blob(channel.data(), {1, 1, size[0], size[1], size[2]}).clone();
}

double Difference(const torch::Tensor& left, const torch::Tensor& right) {
  return (left - right).abs().max().item<double>();
}

TEST(Blur, IsTheConvolutionWithAGaussianOnTheReflectedChannel) {
  const Triple size{7, 9, 11};
  // Of 3, 5 and 7 taps, as batchgeneratorsv2 has them for these deviations.
  const std::array<double, 3> deviations{0.55, 0.75, 0.95};
  const std::array<std::int64_t, 3> radii{1, 2, 3};
  std::vector<float> channel = Noise(size);
  torch::Tensor expected = AsTensor(channel, size);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const std::int64_t radius = radii[axis];
    const torch::Tensor x = at::arange(-radius, radius + 1, torch::kFloat64) / deviations[axis];
    torch::Tensor kernel = (-0.5 * x.square()).exp();
    kernel = (kernel / kernel.sum()).to(torch::kFloat32);
    std::vector<std::int64_t> shape{1, 1, 1, 1, 1};
    shape[2 + axis] = 2 * radius + 1;
    std::vector<std::int64_t> padding(6, 0);
    padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = radius;
    expected = at::conv3d(at::reflection_pad3d(expected, padding), kernel.view(shape));
  }

  Blur(channel, size, deviations);

  EXPECT_LT(Difference(AsTensor(channel, size), expected), 1e-5);
}

TEST(Blur, WorksOnAxesThatAreShorterThanTheKernel) {
  const Triple size{1, 2, 3};
  std::vector<float> flat(6, 2.5F);

  Blur(flat, size, {1, 1, 1});

  for (const float value : flat) EXPECT_NEAR(value, 2.5F, 1e-6);
}

TEST(LowerResolution, KeepsTheNearestVoxelsAndInterpolatesBetweenThem) {
  const Triple size{8, 13, 20};
  for (const double zoom : {0.5, 0.61, 0.83, 0.99}) {
    std::vector<float> channel = Noise(size);
    const torch::Tensor whole = AsTensor(channel, size);
    std::vector<std::int64_t> coarse;
    for (const std::int64_t length : size) {
      // As Python's round(): halves to the even number.
      coarse.push_back(std::lrint(static_cast<double>(length) * static_cast<float>(zoom)));
    }
    if (zoom == 0.5) coarse[1] = 7;  // 6.5 goes up here.
    const torch::Tensor expected = at::upsample_trilinear3d(
        at::_upsample_nearest_exact3d(whole, coarse), {size[0], size[1], size[2]},
        /*align_corners=*/false);

    LowerResolution(channel, size, {zoom, zoom, zoom});

    EXPECT_LT(Difference(AsTensor(channel, size), expected), 1e-5) << zoom;
    EXPECT_GT(Difference(AsTensor(channel, size), whole), zoom < 0.9 ? 0.1 : -1) << zoom;
  }
}

TEST(LowerResolution, LeavesAnAxisOfZoomOneAlone) {
  const Triple size{6, 8, 8};
  std::vector<float> channel = Noise(size);
  for (std::size_t i = 0; i < channel.size(); ++i) channel[i] = static_cast<float>(i / 64);

  LowerResolution(channel, size, {1, 0.5, 0.5});

  for (std::size_t i = 0; i < channel.size(); ++i) {
    ASSERT_NEAR(channel[i], static_cast<float>(i / 64), 1e-5);
  }
}

}  // namespace
}  // namespace isoscan
