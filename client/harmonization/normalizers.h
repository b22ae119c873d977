#pragma once

#include <cstddef>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

#include "client/harmonization/intensity_map.h"
#include "client/harmonization/masked_normalization.h"
#include "client/imaging/volume.h"
#include "common/study/harmonization_plan.h"

namespace isoscan {

/// What a fitted normaliser does to every intensity of a volume.
using IntensityMap = std::variant<AffineMap, PiecewiseLinearMap>;

/// The map of plan.normalize, which is one of kNyul, kWhiteStripe, kKde, kFcm and kLsq, fitted to a
/// volume of the study's `channel`.
///
/// Errors: those of the normaliser; FAILED_PRECONDITION a plan without the standard that it needs.
absl::StatusOr<IntensityMap> FitNormalizer(const Volume& volume, const Mask& mask,
                                           const HarmonizationPlan& plan, std::size_t channel);

/// What a volume adds to its channel's standard (common/population/population_mean.h):
/// StandardLength() numbers. plan.normalize is kNyul or kLsq.
/// Errors: those of the normaliser.
absl::StatusOr<std::vector<double>> StandardOf(const Volume& volume, const Mask& mask,
                                               const HarmonizationPlan& plan);

}  // namespace isoscan
