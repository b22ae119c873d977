#include "client/harmonization/nyul.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "client/harmonization/masked_intensities.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

/// Landmarks nearer than this fraction of the range from the first to the last coincide.
constexpr double kRelativeFloor = 1e-6;

}  // namespace

absl::StatusOr<NyulLandmarks> FindLandmarks(const Volume& volume, const Mask& mask) {
  ASSIGN_OR_RETURN(const IntensityRange range, RangeOverMask(volume, mask));
  std::vector<double> fractions;
  for (const double percentile : kNyulPercentiles) fractions.push_back(percentile / 100);
  const std::vector<double> quantiles = QuantilesOverMask(volume, mask, range, fractions);
  NyulLandmarks landmarks;
  std::copy(quantiles.begin(), quantiles.end(), landmarks.begin());

  constexpr std::size_t kLast = kNyulPercentiles.size() - 1;
  const double floor = kRelativeFloor * (landmarks[kLast] - landmarks[0]);
  for (const std::size_t low : {std::size_t{0}, kLast - 1}) {
    if (landmarks[low + 1] - landmarks[low] > floor) continue;
    return absl::InvalidArgumentError(fmt::format(
        "the percentiles {:g} and {:g} of {} voxels under the mask are both {:g}: too many voxels "
        "share one intensity; use a mask that leaves them out (otsu, threshold or given)",
        kNyulPercentiles[low], kNyulPercentiles[low + 1], range.voxels, landmarks[low]));
  }
  return landmarks;
}

NyulLandmarks OnStandardRange(const NyulLandmarks& landmarks) {
  const double slope = (kNyulHigh - kNyulLow) / (landmarks.back() - landmarks.front());
  NyulLandmarks standard;
  std::transform(landmarks.begin(), landmarks.end(), standard.begin(), [&](double landmark) {
    return kNyulLow + (landmark - landmarks.front()) * slope;
  });
  return standard;
}

absl::StatusOr<PiecewiseLinearMap> FitNyul(const Volume& volume, const Mask& mask,
                                           const NyulLandmarks& scale) {
  ASSIGN_OR_RETURN(const NyulLandmarks landmarks, FindLandmarks(volume, mask));
  return PiecewiseLinearMap{.from = {landmarks.begin(), landmarks.end()},
                            .to = {scale.begin(), scale.end()}};
}

}  // namespace isoscan
