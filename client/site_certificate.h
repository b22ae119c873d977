#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "client/certification/certification.h"
#include "client/study_cohort.h"

namespace isoscan {

/// A model on a site's held-out cases; for the site alone.
struct SiteFindings {
  std::vector<CaseFindings> cases;
  std::vector<RefusedCase> refused;
};

/// Certifies up to `limit` of the held-out cases, evenly spread over them; 0 takes all. One case is
/// in memory at a time; one that cannot be read or harmonised is put aside with its reason.
/// `observe` counts predictions.
///
/// Errors: DATA_LOSS no held-out case can be used; those of CertifyCase but for a case that is put
///         aside; CANCELLED; DEADLINE_EXCEEDED where `score` has no more time.
absl::StatusOr<SiteFindings> CertifyHeldOut(const SiteCases& cases, const Study& study,
                                            std::int64_t limit, const ModelScores& score,
                                            const std::stop_token& stop,
                                            const CaseObserver& observe);

/// What of it may leave the site: nothing of fewer than kFewestCertifiedCases cases, no point of a
/// curve that has fewer, and no Dice (NaN) where fewer of the point's cases have one.
std::optional<InvarianceCertificate> SendableCertificate(const InvarianceCertificate& certificate);

}  // namespace isoscan
