#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "client/evaluation/overlap.h"
#include "client/imaging/volume.h"

namespace isoscan {

/// Voxels first ... end - 1 of each axis, in x, y, z order.
struct VoxelBox {
  std::array<std::int64_t, 3> first{};
  std::array<std::int64_t, 3> end{};
};

/// Where one value lies in two maps of a grid.
struct LabelExtent {
  LabelOverlap overlap;
  VoxelBox box;  ///< The smallest that holds it in both; empty where neither has it.
};

/// One entry per possible value, in one pass over both maps. That of 0, the background, stays
/// empty. Threads: OpenMP's, by slices; their number does not show in the result.
std::vector<LabelExtent> FindExtents(const LabelMap& reference, const LabelMap& predicted);

}  // namespace isoscan
