#pragma once

#include "absl/status/statusor.h"

#include "client/harmonization/fuzzy_c_means.h"
#include "client/harmonization/intensity_map.h"
#include "client/harmonization/masked_normalization.h"
#include "client/imaging/volume.h"

namespace isoscan {

/// Mean intensity of each tissue class in units of the darkest one's: what a case adds to the
/// population's standard. The same for x' = s x.
/// Errors: those of FindTissueClasses and CheckDivisor.
absl::StatusOr<PerTissueClass> RelativeTissueMeans(const Volume& volume, const Mask& mask);

/// y = x / c with the c that brings the case's tissue means m nearest to `standard`, s: c = m.m /
/// m.s. Removes x' = s x; a bias stays.
/// Errors: those of FindTissueClasses and CheckDivisor.
absl::StatusOr<AffineMap> FitLeastSquares(const Volume& volume, const Mask& mask,
                                          const PerTissueClass& standard);

}  // namespace isoscan
