#pragma once

#include <array>

namespace isoscan {

/// Area in mm2 of the piece of a mask's surface that lies between the centres of 2x2x2 voxels, for
/// each of the 256 ways in which they can be in the mask: bit x + 2 y + 4 z is voxel (x, y, z) of
/// the eight. Marching cubes with corners half-way along the edges; voxels of the mask that touch
/// at an edge or a corner only stay apart if they are four or fewer, and so do those outside
/// otherwise. The areas are those of DeepMind's surface-distance for every spacing.
/// Source: docs/references.md#lorensen1987, #nikolov2018.
std::array<double, 256> SurfaceAreas(const std::array<double, 3>& spacing_mm);

}  // namespace isoscan
