#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

#include "client/harmonization/intensity_map.h"
#include "client/harmonization/masked_normalization.h"
#include "client/harmonization/tissue_mode.h"
#include "client/imaging/volume.h"

namespace isoscan {

/// The stripe of intensities around white matter's peak that looks normal in every patient.
struct WhiteStripe {
  double mode = 0;  ///< TissueMode.
  double low = 0;   ///< Its ends: the quantiles `width` below and above the mode's own.
  double high = 0;
  double mean = 0;  ///< Over the voxels under the mask strictly between them.
  double standard_deviation = 0;
  std::int64_t voxels = 0;

  /// y = (x - mean) / sd. Removes x' = s x + b, s > 0.
  AffineMap Map() const { return {.shift = mean, .scale = standard_deviation}; }
};

/// `width` in (0, 0.5]: of the voxels under the mask, on either side.
/// Source: docs/references.md#shinohara2014.
/// Errors: those of TissueMode; INVALID_ARGUMENT no voxel, or one intensity alone, in the stripe.
absl::StatusOr<WhiteStripe> FitWhiteStripe(const Volume& volume, const Mask& mask,
                                           Contrast contrast, double width = 0.05);

}  // namespace isoscan
