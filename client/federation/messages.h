#pragma once

#include <vector>

#include "client/federation/federation_session.h"
#include "common/invariance/certificate.h"
#include "proto/federation.pb.h"

namespace isoscan {

/// Between the domain's structs and the wire's messages. What comes from the server is checked
/// here.

OfferedStudy OfferedStudyFrom(const v1::StudyState& message);
/// Errors: UNIMPLEMENTED for a kind of work that this version does not know.
absl::StatusOr<SiteAssignment> SiteAssignmentFrom(const v1::Assignment& message);
v1::Assignment::Kind ToMessage(SiteAssignment::Kind kind);
v1::CohortSummary ToMessage(const CohortDeclaration& cohort);
v1::SiteScores ToMessage(const std::vector<ScoredCase>& scores);
v1::InvarianceCertificate ToMessage(const InvarianceCertificate& certificate);
std::vector<ScoredCase> ScoredCasesFrom(const v1::SiteScores& message);
v1::SubmitUpdateRequest ToMessage(const RoundUpdate& update);
RoundUpdate RoundUpdateFrom(const v1::SubmitUpdateRequest& message);

}  // namespace isoscan
