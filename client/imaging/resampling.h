#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "client/imaging/volume.h"

namespace isoscan {

/// The grid of the same extent with other spacing (x, y, z; 0 keeps an axis): size is
/// round(size * old / new), at least 1; the physical extent's lower corner and the direction stay.
Geometry WithSpacing(const Geometry& geometry, const std::array<double, 3>& spacing_mm);

enum class ImageInterpolation { kLinear, kBSpline };

/// Samples `volume` at the voxel centres of `target`; beyond its border the nearest voxel counts.
/// Both grids must share their direction. OpenMP over slices.
Volume Resample(const Volume& volume, const Geometry& target, ImageInterpolation interpolation);

/// Labels by majority: each label's indicator is interpolated linearly and the greatest wins (ties:
/// the lower label), as nnU-Net's order 1; thin structures survive better than with nearest.
LabelMap Resample(const LabelMap& labels, const Geometry& target);

}  // namespace isoscan
