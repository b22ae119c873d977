#pragma once

#include <vector>

#include "client/imaging/volume.h"

namespace isoscan {

/// y = (x - shift) / scale.
struct AffineMap {
  double shift = 0;
  double scale = 1;
};

/// Straight between the points (from[i], to[i]), and beyond them as the outermost pieces go on.
/// `from` ascends; where neighbours within it are equal, the map jumps, and that value itself goes
/// to the first of them.
struct PiecewiseLinearMap {
  std::vector<double> from;
  std::vector<double> to;
};

/// Applies a map to every voxel: no anatomy is ever erased. In double, rounded to float32 once.
void Apply(const AffineMap& map, Volume& volume);

/// Requires at least two points, the first two and the last two of them apart.
void Apply(const PiecewiseLinearMap& map, Volume& volume);

}  // namespace isoscan
