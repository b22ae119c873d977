#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace isoscan {

/// Where a voxel grid sits in the patient: LPS space, millimetres, axes in x, y, z order.
/// Physical point of voxel (i, j, k) = origin_mm + direction * (spacing_mm * (i, j, k)).
struct Geometry {
  std::array<std::int64_t, 3> size{};
  std::array<double, 3> spacing_mm{1, 1, 1};
  std::array<double, 3> origin_mm{};
  /// Row-major; column a is the unit vector of axis a.
  std::array<std::array<double, 3>, 3> direction{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};

  std::int64_t voxels() const { return size[0] * size[1] * size[2]; }
  bool operator==(const Geometry&) const = default;
};

/// Where a voxel's centre lies, in LPS millimetres; fractional indices lie between voxels.
std::array<double, 3> PhysicalPoint(const Geometry& geometry, const std::array<double, 3>& index);

/// Of the eight corner voxels, the greatest distance between the two grids' places for it.
double GreatestCornerDistance(const Geometry& left, const Geometry& right);

/// How far two descriptions of one grid may lie apart: a quarter of the smallest voxel edge, so
/// that both put every voxel in the same place to within rounding. Scanners' own files need it:
/// headers in single precision with rounded cosines move a corner by up to 0.1 mm (0.18 voxel in
/// real data).
double GridToleranceOf(const Geometry& geometry);

/// True when two grids have the same size and every corner lies within `tolerance_mm`.
bool SameGrid(const Geometry& left, const Geometry& right, double tolerance_mm = 1e-3);

/// One scalar image. Voxels run x fastest, so the buffer is a [D, H, W] = [z, y, x] tensor.
struct Volume {
  Geometry geometry;
  std::vector<float> voxels;
};

/// One label per voxel, 0 is background; the same order as Volume.
struct LabelMap {
  Geometry geometry;
  std::vector<std::uint8_t> voxels;
};

}  // namespace isoscan
