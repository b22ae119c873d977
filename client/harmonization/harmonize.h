#pragma once

#include <optional>

#include "absl/status/statusor.h"

#include "client/harmonization/masked_normalization.h"
#include "client/harmonization/n4.h"
#include "client/imaging/volume.h"
#include "common/study/harmonization_plan.h"

namespace isoscan {

/// What harmonisation did to a volume.
struct HarmonizationRecord {
  /// Of the volume that was normalised, over the voxels that the normaliser took: (x - mean) / sd
  /// where it is kInstance or kZScore.
  IntensityStatistics statistics;
  std::optional<BiasField> bias_field;  ///< Where N4 is declared.
};

/// The declared steps on a canonical volume in its own grid, in place: N4, mask, normalisation.
/// N4 fits under the mask of the volume as it comes; the statistics are taken over the mask of the
/// corrected one. The steps before (geometry) and after (resampling) are the caller's. With
/// Normalizer::kNone only NaN, infinity and emptiness are checked.
///
/// Errors: those of MakeMask, CorrectBiasField and NormalizeOverMask; UNIMPLEMENTED a normaliser
/// that this version
///         does not have, which no parsed study asks for.
absl::StatusOr<HarmonizationRecord> Harmonize(Volume& canonical, const HarmonizationPlan& plan,
                                              const std::optional<Mask>& given = std::nullopt);

}  // namespace isoscan
