#pragma once

#include <cstdint>
#include <vector>

#include "client/imaging/volume.h"

namespace isoscan {

/// Agreement of one label in one case.
struct LabelOverlap {
  std::int64_t reference_voxels = 0;
  std::int64_t predicted_voxels = 0;
  std::int64_t common_voxels = 0;

  /// 2 |A and B| / (|A| + |B|): 0 for a complete miss or a false alarm; NaN when both are empty,
  /// which the report counts and never averages. Source: docs/references.md#maierhein2024.
  double dice() const;
};

/// Overlap of labels 1 ... `labels` of two maps of the same size.
std::vector<LabelOverlap> Overlap(const LabelMap& reference, const LabelMap& predicted,
                                  std::int64_t labels);

/// A case's Dice: the mean over the labels that are there on either side; NaN when none is.
double MeanDice(const std::vector<LabelOverlap>& overlaps);

}  // namespace isoscan
