#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "absl/status/statusor.h"

#include "client/harmonization/intensity_map.h"
#include "client/harmonization/masked_intensities.h"
#include "client/harmonization/masked_normalization.h"
#include "client/imaging/volume.h"
#include "common/study/harmonization_plan.h"

namespace isoscan {

/// The classes by ascending intensity, from kCsf to kWhiteMatter; these are the tissues in a
/// T1-weighted brain. Of another contrast, ask by brightness.
using Tissue = HarmonizationPlan::Tissue;
inline constexpr std::size_t kTissues = 3;

/// Three fuzzy classes of intensities, ascending.
struct TissueClasses {
  std::array<double, kTissues> centers{};  ///< Of the clustering: weighted by membership squared.
  std::array<double, kTissues> means{};    ///< Mean intensity, weighted by membership.
  int iterations = 0;
};

/// Fuzzy c-means with exponent 2 on binned intensities (range / 65536 apart), from mean and mean +-
/// sd until no centre moves by more than 1e-10 of the range: a pure function. Follows the volume
/// under x' = s x + b, s > 0. Source: docs/references.md#bezdek1984.
///
/// Errors: INVALID_ARGUMENT fewer than three distinct intensities, or centres that still move after
///         10,000 iterations; those of RangeOverMask.
absl::StatusOr<TissueClasses> FindTissueClasses(const Volume& volume, const Mask& mask);

/// y = x / mean of the tissue. Removes x' = s x; a bias stays.
/// Errors: those of FindTissueClasses and CheckDivisor.
absl::StatusOr<AffineMap> FitTissueMean(const Volume& volume, const Mask& mask, Tissue tissue);

}  // namespace isoscan
