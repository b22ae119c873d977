#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "client/imaging/volume.h"

// Where the samples of a grid lie on another one of the same direction, axis by axis.

namespace isoscan {

/// Where one sample of an axis takes its values from: voxels `index` with `weight`, clamped to the
/// border, so that a sample beyond it takes the nearest voxel.
struct Taps {
  std::array<std::int64_t, 4> index{};
  std::array<float, 4> weight{};
};

/// Coordinates of the target's samples along `axis`, in voxels of the source; they never fall.
std::vector<double> SampleCoordinates(const Geometry& source, const Geometry& target,
                                      std::size_t axis);

/// The two neighbours of each sample: index[0], index[1], weight[1] the share of the second.
std::vector<Taps> LinearTaps(const std::vector<double>& coordinates, std::int64_t size);

/// For each axis, x first.
std::array<std::vector<Taps>, 3> LinearTapsOf(const Geometry& from, const Geometry& to);

/// Whether two grids' axes run alike, which is what all of this needs.
bool SharesDirection(const Geometry& left, const Geometry& right);

/// to = weight_a a + weight_b b, of `count` values each.
void BlendTwo(float* to, const float* a, const float* b, float weight_a, float weight_b,
              std::size_t count);

}  // namespace isoscan
