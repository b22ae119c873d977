#pragma once

#include <vector>

#include "client/intake/case_sight.h"

namespace isoscan {

/// Adds what only shows beside the other cases. Cases are compared within their cohort and channel,
/// from five of them on that could be read; duplicates and patients over all cohorts of the site,
/// since a study holds out by name and would train on the one and score on the other.
///
/// Of equal images the first case stays and the others are quarantined. Negative contrast is
/// quarantined when it is certain, flagged when it is likely; docs/intake.md says how certain.
void CompareCases(std::vector<CaseSight>& sights);

}  // namespace isoscan
