#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "client/cohort/cohort.h"
#include "common/random/philox.h"
#include "common/study/study.h"

namespace isoscan {

/// Row-major; rows and columns in tensor order: z, y, x.
using Matrix3 = std::array<std::array<double, 3>, 3>;

/// Where a patch lies in a case: voxel o of the patch shows the place
///
///   centre + matrix (o - (patch_size - 1) / 2)
///
/// in voxels of the case, whose first voxel has its centre at (0, 0, 0).
struct PatchPlacement {
  std::array<double, 3> centre{};
  Matrix3 matrix{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
};

/// The axis across thick slices, which patches are not tilted out of: the one of the greatest
/// spacing (of the shortest patch, where the study keeps the cases' own spacing), if the longest
/// axis of the patch has more than 3 times as many voxels. Nothing where patches are not so flat.
/// Source: docs/references.md#isensee2021; nnUNetTrainer, "dummy 2D".
std::optional<std::size_t> FlatAxis(const Study& study);

/// With p 0.2 a rotation, with p 0.2 a scaling, of the matrix of a PatchPlacement; nothing when
/// neither happens.
///
///   rotation   by up to 30 degrees about each axis; about `flat_axis` alone by up to 180
///   scaling    by one factor from 0.7 (things look larger) to 1.4; not along `flat_axis`
///
/// Source: docs/references.md#isensee2021; batchgeneratorsv2's SpatialTransform.
std::optional<Matrix3> DrawRotationAndScaling(std::optional<std::size_t> flat_axis,
                                              RandomStream& random);

/// Fills a patch straight from the case. Images: trilinear, 0 outside. Labels: the one that most of
/// the interpolation's weight falls on, background outside; where two have the same, the nearest
/// voxel's if that is among them, otherwise the smallest.
///
/// Shapes: image [channels, D, H, W] and labels [D, H, W] of `patch_size`, every value of which is
/// set. The bits depend on the arguments alone.
void SamplePatch(const PreparedCase& source, std::int64_t channels, const PatchPlacement& placement,
                 const Triple& patch_size, float* image, std::uint8_t* labels);

}  // namespace isoscan
