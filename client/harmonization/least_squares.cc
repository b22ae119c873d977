#include "client/harmonization/least_squares.h"

#include <numeric>

#include "client/harmonization/masked_intensities.h"
#include "common/status/status_macros.h"

namespace isoscan {

absl::StatusOr<PerTissueClass> RelativeTissueMeans(const Volume& volume, const Mask& mask) {
  ASSIGN_OR_RETURN(const TissueClasses classes, FindTissueClasses(volume, mask));
  ASSIGN_OR_RETURN(const IntensityRange range, RangeOverMask(volume, mask));
  PerTissueClass means = classes.means;
  const double darkest = means.front();
  RETURN_IF_ERROR(CheckDivisor(darkest, range, "the darkest tissue's mean"));
  for (double& mean : means) mean /= darkest;
  return means;
}

absl::StatusOr<AffineMap> FitLeastSquares(const Volume& volume, const Mask& mask,
                                          const PerTissueClass& standard) {
  ASSIGN_OR_RETURN(const TissueClasses classes, FindTissueClasses(volume, mask));
  ASSIGN_OR_RETURN(const IntensityRange range, RangeOverMask(volume, mask));
  const PerTissueClass& means = classes.means;
  const double scale = std::inner_product(means.begin(), means.end(), means.begin(), 0.0) /
                       std::inner_product(means.begin(), means.end(), standard.begin(), 0.0);
  RETURN_IF_ERROR(CheckDivisor(scale, range, "the least-squares scale of the tissue means"));
  return AffineMap{.shift = 0, .scale = scale};
}

}  // namespace isoscan
