#include "client/evaluation/overlap.h"

#include <cassert>
#include <cmath>
#include <cstddef>
#include <limits>

namespace isoscan {

double LabelOverlap::dice() const {
  const std::int64_t total = reference_voxels + predicted_voxels;
  if (total == 0) return std::numeric_limits<double>::quiet_NaN();
  return 2.0 * static_cast<double>(common_voxels) / static_cast<double>(total);
}

std::vector<LabelOverlap> Overlap(const LabelMap& reference, const LabelMap& predicted,
                                  std::int64_t labels) {
  assert(reference.voxels.size() == predicted.voxels.size());
  // One entry per possible byte, so that the loop over the voxels has no branch on the label.
  std::vector<LabelOverlap> by_value(256);
  for (std::size_t i = 0; i < reference.voxels.size(); ++i) {
    const std::uint8_t expected = reference.voxels[i];
    const std::uint8_t found = predicted.voxels[i];
    ++by_value[expected].reference_voxels;
    ++by_value[found].predicted_voxels;
    by_value[expected].common_voxels += expected == found ? 1 : 0;
  }
  return {by_value.begin() + 1, by_value.begin() + 1 + labels};
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
