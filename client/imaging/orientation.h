#pragma once

#include <array>
#include <cstdint>

#include "client/imaging/volume.h"

namespace isoscan {

/// The permutation and flips of axes that bring a grid nearest to the canonical orientation, LPS
/// (x towards the patient's left, y posterior, z superior), without interpolation: an oblique grid
/// stays oblique, its axes are only renamed.
Geometry CanonicalGeometry(const Geometry& geometry);

/// Steps through a stored buffer in canonical order: voxel (x, y, z) of the canonical grid lies at
/// first + x * step[0] + y * step[1] + z * step[2]. For passes that need no copy.
struct CanonicalWalk {
  std::int64_t first = 0;
  std::array<std::int64_t, 3> step{};
};
CanonicalWalk CanonicalWalkOf(const Geometry& stored);

Volume ToCanonical(const Volume& volume);
LabelMap ToCanonical(const LabelMap& labels);

/// The same without a second buffer, unless axes have to change places.
Volume ToCanonical(Volume&& volume);

/// The exact inverse: back to `original`'s order of voxels.
/// Requires CanonicalGeometry(original) to be the image's geometry.
LabelMap FromCanonical(const LabelMap& labels, const Geometry& original);
Volume FromCanonical(const Volume& volume, const Geometry& original);

}  // namespace isoscan
