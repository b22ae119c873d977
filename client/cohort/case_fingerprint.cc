#include "client/cohort/case_fingerprint.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace isoscan {
namespace {

/// Voxels from `low` up to, and without, `high`; axes in x, y, z order.
struct Box {
  std::array<std::int64_t, 3> low{};
  std::array<std::int64_t, 3> high{};
};

/// The smallest one with every voxel that is not 0 in some channel.
Box NonzeroBox(const std::vector<Volume>& channels) {
  const std::array<std::int64_t, 3>& size = channels.front().geometry.size;
  Box box{.low = size, .high = {0, 0, 0}};
  std::size_t voxel = 0;
  for (std::int64_t z = 0; z < size[2]; ++z) {
    for (std::int64_t y = 0; y < size[1]; ++y) {
      for (std::int64_t x = 0; x < size[0]; ++x, ++voxel) {
        const bool nonzero =
            std::any_of(channels.begin(), channels.end(),
                        [voxel](const Volume& channel) { return channel.voxels[voxel] != 0; });
        if (!nonzero) continue;
        const std::array<std::int64_t, 3> place{x, y, z};
        for (std::size_t axis = 0; axis < 3; ++axis) {
          box.low[axis] = std::min(box.low[axis], place[axis]);
          box.high[axis] = std::max(box.high[axis], place[axis] + 1);
        }
      }
    }
  }
  return box.high[0] == 0 ? Box{.low = {0, 0, 0}, .high = size} : box;
}

/// One list per channel.
std::vector<std::vector<float>> Foreground(const LoadedCase& loaded, const Box& box) {
  const std::array<std::int64_t, 3>& size = loaded.labels.geometry.size;
  std::vector<std::vector<float>> intensities(loaded.channels.size());
  for (std::int64_t z = box.low[2]; z < box.high[2]; ++z) {
    for (std::int64_t y = box.low[1]; y < box.high[1]; ++y) {
      for (std::int64_t x = box.low[0]; x < box.high[0]; ++x) {
        const auto voxel = static_cast<std::size_t>((z * size[1] + y) * size[0] + x);
        if (loaded.labels.voxels[voxel] == 0) continue;
        for (std::size_t channel = 0; channel < intensities.size(); ++channel) {
          intensities[channel].push_back(loaded.channels[channel].voxels[voxel]);
        }
      }
    }
  }
  return intensities;
}

}  // namespace

absl::Status AddToFingerprint(const LoadedCase& loaded, Fingerprint& fingerprint) {
  const Geometry& grid = loaded.labels.geometry;
  const Box box = NonzeroBox(loaded.channels);
  const std::vector<std::vector<float>> foreground = Foreground(loaded, box);
  CaseMeasures measures{.foreground = {foreground.begin(), foreground.end()}};
  double voxels = 1;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const std::int64_t size = box.high[axis] - box.low[axis];
    measures.spacing_mm[2 - axis] = grid.spacing_mm[axis];
    measures.size[2 - axis] = size;
    voxels *= static_cast<double>(size);
  }
  measures.relative_size = voxels / static_cast<double>(grid.voxels());
  return fingerprint.AddCase(measures);
}

}  // namespace isoscan
