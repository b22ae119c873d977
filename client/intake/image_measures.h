#pragma once

#include "client/imaging/volume.h"
#include "client/intake/case_sight.h"
#include "client/intake/joined_labels.h"

namespace isoscan {

// What is measured on the voxels of one image, in canonical order and without a copy. `canonical`
// is the volume's canonical grid.

/// Range, moments and digest. False when the image cannot be used: NaN, infinity or one value,
/// which are findings of the case.
bool MeasureRange(CaseSight& sight, ImageSight& image, const Volume& volume,
                  const Geometry& canonical);

/// Extent, background, pictures and the histogram's shape.
void MeasurePicture(ImageSight& image, const Volume& volume, const Geometry& canonical);

/// The labels' contrast to what is around them. `image` has its mean; some voxel is labelled.
void MeasureContrast(CaseSight& sight, const JoinedLabels& labels, const Volume& volume,
                     const Geometry& canonical);

}  // namespace isoscan
