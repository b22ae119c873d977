/// Between the domain's structs and the messages of proto/.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "proto/evaluation.pb.h"
#include "proto/federation.pb.h"
#include "proto/operations.pb.h"
#include "proto/study.pb.h"
#include "server/rounds/coordinator.h"
#include "server/storage/site_registry.h"

namespace isoscan {

v1::StudyState ToMessage(const StudyStatus& study);
v1::Assignments ToMessage(const std::vector<Assignment>& assignments);
v1::GlobalModel ToMessage(const GlobalModelRecord& model);

std::vector<CaseScoreRecord> FromMessage(const v1::SiteScores& scores);
/// Errors: INVALID_ARGUMENT for a perturbation that this version does not know.
absl::StatusOr<InvarianceCertificate> FromMessage(const v1::InvarianceCertificate& message);
SiteUpdate FromMessage(const v1::SubmitUpdateRequest& request);
/// The site as `name`, which its certificate proved.
/// Errors: INVALID_ARGUMENT naming the site and the number, for a fingerprint that is none.
absl::StatusOr<SiteRecord> FromMessage(const std::string& name, const v1::CohortSummary& cohort);

/// Errors: INVALID_ARGUMENT for a kind that is no score's.
absl::StatusOr<Assignment::Kind> ScoredKind(v1::Assignment::Kind kind);

/// "invited", "enrolled", "suspended".
std::string WordOf(RegisteredSite::State state);

}  // namespace isoscan
