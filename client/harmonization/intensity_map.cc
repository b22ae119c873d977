#include "client/harmonization/intensity_map.h"

#include <cstddef>
#include <cstdint>

namespace isoscan {
namespace {

/// voxel = function(voxel), on all threads.
template <typename Function>
void ForEachVoxel(Volume& volume, Function function) {
  const auto voxels = static_cast<std::int64_t>(volume.voxels.size());
  float* values = volume.voxels.data();
#pragma omp parallel for if (voxels > 100'000)
  for (std::int64_t i = 0; i < voxels; ++i) {
    values[i] = static_cast<float>(function(static_cast<double>(values[i])));
  }
}

}  // namespace

void Apply(const AffineMap& map, Volume& volume) {
  const double gain = 1 / map.scale;
  ForEachVoxel(volume, [shift = map.shift, gain](double x) { return (x - shift) * gain; });
}

void Apply(const PiecewiseLinearMap& map, Volume& volume) {
  const std::size_t pieces = map.from.size() - 1;
  std::vector<double> slope(pieces);
  for (std::size_t i = 0; i < pieces; ++i) {
    // A piece without width is never entered.
    slope[i] = (map.to[i + 1] - map.to[i]) / (map.from[i + 1] - map.from[i]);
  }
  ForEachVoxel(volume, [&](double x) {
    std::size_t piece = 0;
    while (piece + 1 < pieces && x > map.from[piece + 1]) ++piece;
    return map.to[piece] + slope[piece] * (x - map.from[piece]);
  });
}

}  // namespace isoscan
