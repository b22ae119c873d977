#include "tests/unit/client/training/training_phantom.h"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <utility>

#include "client/harmonization/harmonize.h"
#include "common/random/philox.h"
#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

constexpr std::int64_t kSide = 20;

}  // namespace

Study PhantomStudy() {
  Study study;
  study.name = "phantoms";
  study.seed = 11;
  study.channels = {"T1w"};
  study.labels = {"bright", "dark"};
  study.network = {.features = {8, 16, 32},
                   .strides = {{1, 1, 1}, {2, 2, 2}, {2, 2, 2}},
                   .kernels = {{3, 3, 3}, {3, 3, 3}, {3, 3, 3}}};
  study.training.patch_size = {16, 16, 16};
  study.training.batch_size = 2;
  study.training.learning_rate = 0.01;
  study.training.momentum = 0.9;
  study.training.mirror_axes = {0, 2};
  return study;
}

PreparedCase Phantom(std::uint64_t number) {
  PreparedCase phantom;
  phantom.grid.size = {kSide, kSide, kSide};
  phantom.reference_grid = phantom.grid;
  const auto voxels = static_cast<std::size_t>(phantom.grid.voxels());
  std::vector<float> image(voxels);
  std::vector<std::uint8_t> labels(voxels);

  RandomStream random(5, "phantom", number);
  std::array<std::array<double, 3>, 2> centres{};
  for (double& place : centres[0]) place = random.Uniform(5, 8);
  for (double& place : centres[1]) place = random.Uniform(11, 14);
  std::size_t voxel = 0;
  for (std::int64_t z = 0; z < kSide; ++z) {
    for (std::int64_t y = 0; y < kSide; ++y) {
      for (std::int64_t x = 0; x < kSide; ++x, ++voxel) {
        double value = 100 + 10 * random.Normal();
        for (std::size_t ball = 0; ball < 2; ++ball) {
          const double dz = static_cast<double>(z) - centres[ball][0];
          const double dy = static_cast<double>(y) - centres[ball][1];
          const double dx = static_cast<double>(x) - centres[ball][2];
          if (dz * dz + dy * dy + dx * dx > 16) continue;
          labels[voxel] = static_cast<std::uint8_t>(ball + 1);
          value += ball == 0 ? 60 : -60;
        }
        image[voxel] = static_cast<float>(value);
      }
    }
  }
  phantom.image = std::move(image);
  phantom.labels = std::move(labels);
  phantom.reference_labels = phantom.labels;
  return phantom;
}

PreparedCase Harmonized(PreparedCase phantom, const Study& study) {
  Volume volume{.geometry = phantom.grid, .voxels = phantom.image.Copy()};
  EXPECT_OK(Harmonize(volume, study.harmonization));
  phantom.image = std::move(volume.voxels);
  return phantom;
}

std::vector<PreparedCase> HarmonizedPhantoms(std::uint64_t count, const Study& study) {
  std::vector<PreparedCase> phantoms;
  for (std::uint64_t i = 0; i < count; ++i) phantoms.push_back(Harmonized(Phantom(i), study));
  return phantoms;
}

PreparedCase AsScannedBy(PreparedCase phantom, double scale, double bias) {
  std::vector<float> image = phantom.image.Copy();
  for (float& value : image) value = static_cast<float>(scale * value + bias);
  phantom.image = std::move(image);
  return phantom;
}

}  // namespace isoscan
