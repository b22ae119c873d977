#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"

#include "client/harmonization/masked_normalization.h"
#include "client/harmonization/n4.h"
#include "client/harmonization/normalizers.h"
#include "client/imaging/volume.h"
#include "common/study/harmonization_plan.h"

namespace isoscan {

/// What harmonisation did to a volume.
struct HarmonizationRecord {
  /// Of the volume that was normalised, over the voxels that the normaliser took: (x - mean) / sd
  /// where it is kInstance or kZScore.
  IntensityStatistics statistics;
  std::optional<BiasField> bias_field;  ///< Where N4 is declared.
  IntensityMap map;  ///< What became of every intensity; the identity under kNone.
};

/// The declared steps on a canonical volume in its own grid, in place: N4, mask, normalisation.
/// N4 fits under the mask of the volume as it comes; the statistics are taken over the mask of the
/// corrected one. The steps before (geometry) and after (resampling) are the caller's. With
/// Normalizer::kNone only NaN, infinity and emptiness are checked.
///
/// `channel` chooses the contrast and the standard, where the plan has them for each.
/// Errors: those of MakeMask, CorrectBiasField, NormalizeOverMask and FitNormalizer.
absl::StatusOr<HarmonizationRecord> Harmonize(Volume& canonical, const HarmonizationPlan& plan,
                                              const std::optional<Mask>& given = std::nullopt,
                                              std::size_t channel = 0);

/// The steps before normalisation, and what the volume then adds to its channel's standard.
/// Errors: those of MakeMask and of the normaliser.
absl::StatusOr<std::vector<double>> StandardOf(const Volume& canonical,
                                               const HarmonizationPlan& plan,
                                               const std::optional<Mask>& given = std::nullopt);

}  // namespace isoscan
