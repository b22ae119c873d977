#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "client/evaluation/bit_grid.h"

namespace isoscan {

/// What the surface of a mask consists of: libraries differ (docs/evaluation.md).
enum class SurfaceDefinition {
  /// Between any 2x2x2 voxels that are not all in the mask or all outside it lies an element, with
  /// the area of its piece of the surface (SurfaceAreas). Points are where eight voxels meet.
  kElements,
  /// Voxels of the mask with a neighbour outside it across a face, all of one weight.
  kVoxels
};

struct SurfacePoint {
  std::uint16_t x = 0;
  std::uint16_t y = 0;
  std::uint16_t z = 0;
  std::uint8_t code = 0;  ///< Of an element: its eight voxels, as SurfaceAreas() takes them.
};

/// The surface of a mask; what lies beyond the mask's grid is outside it.
struct Surface {
  /// Elements: point (x, y, z) is the corner between voxels x - 1 and x, ...: a row more than
  /// voxels on each axis.
  BitGrid grid;
  std::vector<SurfacePoint> points;  ///< In the order z, y, x.
};

/// `margin` is that of the surface's grid. `mask` has at most 65534 voxels a side. Memory: that of
/// the grid, and 8 bytes a point. Threads: OpenMP's; their number does not show in the result.
Surface SurfaceOf(const BitGrid& mask, SurfaceDefinition definition,
                  const std::array<std::int64_t, 2>& margin);

}  // namespace isoscan
