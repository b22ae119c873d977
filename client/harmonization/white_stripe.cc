#include "client/harmonization/white_stripe.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "client/harmonization/masked_intensities.h"
#include "common/status/status_macros.h"

namespace isoscan {

absl::StatusOr<WhiteStripe> FitWhiteStripe(const Volume& volume, const Mask& mask,
                                           Contrast contrast, double width) {
  WhiteStripe stripe;
  ASSIGN_OR_RETURN(stripe.mode, TissueMode(volume, mask, contrast));
  ASSIGN_OR_RETURN(const IntensityRange range, RangeOverMask(volume, mask));
  const double share = static_cast<double>(VoxelsBelow(volume, mask, stripe.mode)) /
                       static_cast<double>(range.voxels);
  const std::vector<double> ends = QuantilesOverMask(
      volume, mask, range, {{std::max(share - width, 0.0), std::min(share + width, 1.0)}});
  stripe.low = ends[0];
  stripe.high = ends[1];

  Mask inside(mask.size());
  std::transform(mask.begin(), mask.end(), volume.voxels.begin(), inside.begin(),
                 [&](std::uint8_t chosen, float voxel) {
                   const auto value = static_cast<double>(voxel);
                   return chosen != 0 && value > stripe.low && value < stripe.high
                              ? std::uint8_t{1}
                              : std::uint8_t{0};
                 });
  const IntensityStatistics statistics = StatisticsOf(volume, inside);
  stripe.mean = statistics.mean;
  stripe.standard_deviation = statistics.standard_deviation;
  stripe.voxels = statistics.voxels;
  // Above the rounding of float32, so that a stripe of one stored value is told from a narrow one.
  if (!(stripe.standard_deviation > 1e-7 * (range.maximum - range.minimum))) {
    return absl::InvalidArgumentError(fmt::format(
        "the white stripe around {:g} ({:g} to {:g}) holds {} of {} voxels under the mask and no "
        "two different intensities: the scan has too few distinct values there; widen the stripe, "
        "or use another normaliser",
        stripe.mode, stripe.low, stripe.high, stripe.voxels, range.voxels));
  }
  return stripe;
}

}  // namespace isoscan
