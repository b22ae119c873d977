#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"

#include "common/planning/fingerprint.h"
#include "common/study/study.h"

namespace isoscan {

/// The study that a draft becomes: PlanToml under the draft's own text, which has no [planning] any
/// more. Comments say what it was planned from. A pure function of the draft and of the set of
/// cases that the fingerprints describe: who has which of them does not change a byte.
///
/// Errors: those of PooledFingerprint and PlanNetwork; FAILED_PRECONDITION the plan is one that no
///         study may have (ParseStudy says why).
absl::StatusOr<Study> PlannedStudy(const Study& draft,
                                   const std::map<std::string, Fingerprint>& sites);

}  // namespace isoscan
