#include "client/evaluation/overlap.h"

#include <cmath>
#include <cstddef>
#include <limits>

#include "client/evaluation/label_extents.h"

namespace isoscan {

double LabelOverlap::dice() const {
  const std::int64_t total = reference_voxels + predicted_voxels;
  if (total == 0) return std::numeric_limits<double>::quiet_NaN();
  return 2.0 * static_cast<double>(common_voxels) / static_cast<double>(total);
}

std::vector<LabelOverlap> Overlap(const LabelMap& reference, const LabelMap& predicted,
                                  std::int64_t labels) {
  const std::vector<LabelExtent> extents = FindExtents(reference, predicted);
  std::vector<LabelOverlap> overlaps;
  for (std::size_t label = 1; label <= static_cast<std::size_t>(labels); ++label) {
    overlaps.push_back(extents[label].overlap);
  }
  return overlaps;
}

double MeanDice(const std::vector<LabelOverlap>& overlaps) {
  double sum = 0;
  int labels = 0;
  for (const LabelOverlap& overlap : overlaps) {
    const double dice = overlap.dice();
    if (std::isnan(dice)) continue;
    sum += dice;
    ++labels;
  }
  return labels > 0 ? sum / labels : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace isoscan
