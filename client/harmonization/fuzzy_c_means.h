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

inline constexpr std::size_t kTissueClasses = 3;
/// A number per class.
using PerTissueClass = std::array<double, kTissueClasses>;

/// Fuzzy classes of intensities, ascending: in a T1-weighted brain CSF, grey and white matter, as
/// HarmonizationPlan::Tissue has them. Of another contrast, ask by brightness.
struct TissueClasses {
  PerTissueClass centers{};  ///< Of the clustering: weighted by membership squared.
  PerTissueClass means{};    ///< Mean intensity, weighted by membership.
  int iterations = 0;
};

/// One iteration of fuzzy c-means with exponent 2: each center moves to the mean of the bins,
/// weighted by the square of their membership. A bin belongs to the classes inversely to its
/// squared distance from their centers, of `least_square` at least, in sum 1.
/// Source: docs/references.md#bezdek1984.
PerTissueClass MovedCenters(std::span<const IntensityBin> bins, const PerTissueClass& centers,
                            double least_square);

/// Fuzzy c-means with exponent 2 on binned intensities (range / 65536 apart), from mean and mean +-
/// sd until no centre moves by more than 1e-10 of the range: a pure function. Follows the volume
/// under x' = s x + b, s > 0. Source: docs/references.md#bezdek1984.
///
/// Errors: INVALID_ARGUMENT fewer than three distinct intensities, or centres that still move after
///         10,000 iterations; those of RangeOverMask.
absl::StatusOr<TissueClasses> FindTissueClasses(const Volume& volume, const Mask& mask);

/// y = x / mean of the tissue. Removes x' = s x; a bias stays.
/// Errors: those of FindTissueClasses and CheckDivisor.
absl::StatusOr<AffineMap> FitTissueMean(const Volume& volume, const Mask& mask,
                                        HarmonizationPlan::Tissue tissue);

}  // namespace isoscan
