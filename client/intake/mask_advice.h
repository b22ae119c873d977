#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/imaging/volume.h"
#include "client/intake/case_sight.h"
#include "client/intake/label_slices.h"

namespace isoscan {

/// Masks are measured on every n-th voxel of each axis: 1 up to 16 million voxels; above, so many
/// that about 4 million are left, since no full copy is made of a large volume.
std::int64_t MaskStride(const Geometry& canonical);

/// Fills in what the masks `otsu` and `threshold` (at the plan's default) hold of a case's labelled
/// voxels. The volume is taken, so that it is gone while the masks are made.
void MeasureMasks(CaseSight& sight, Volume volume, const LabelSlices& labels);

/// Which mask of the plan suits a cohort.
struct MaskAdvice {
  std::string mask;    ///< "whole", "otsu", "threshold" or "given"; empty: nothing was measured.
  std::string reason;  ///< In one sentence with the numbers.
  std::int64_t crops = 0;
  std::int64_t in_air = 0;
  std::int64_t skull_stripped = 0;
  /// Over the cases with labels: the share of labelled voxels that a mask holds.
  struct Held {
    double median = 0;
    double least = 0;
    std::int64_t below_half = 0;  ///< Cases that lose more than half of their labelled voxels.
  };
  Held otsu;
  Held threshold;
  std::int64_t labelled = 0;  ///< Cases that these are taken over.
};

/// Crops, where tissue reaches the border, are normalised over the whole: a mask would part tissue
/// from tissue. Heads in air need a mask that leaves out the air and keeps what is labelled.
MaskAdvice AdviseMask(const std::vector<const CaseSight*>& cases);

}  // namespace isoscan
