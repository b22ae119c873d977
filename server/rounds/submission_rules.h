#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "common/study/study.h"
#include "server/fairness/study_record.h"
#include "server/rounds/journal.h"

namespace isoscan {

/// What the numbers that a site sends must satisfy before they are believed. Pure functions; every
/// refusal is INVALID_ARGUMENT and names the site and the number.

/// At least one training and one held-out case; counts that are not negative; finite histograms; a
/// fingerprint (CheckFingerprint) of all training cases from a draft's site and no other; a
/// sum for the study's standard only where its normaliser has one, over no more cases than there
/// are, whose mean can be a standard (StandardFault).
absl::Status CheckCohort(const SiteRecord& cohort, const Study& study);

/// One score per label of the study and per case at most; case indices below the declared held-out
/// count; Dice in [0, 1], or NaN exactly where label and prediction are both empty; no more common
/// voxels than either side has.
absl::Status CheckScores(const Study& study, const SiteRecord& cohort,
                         const std::vector<CaseScoreRecord>& scores);

/// At least kFewestCertifiedCases and at most the declared held-out cases, for the whole and each
/// point; amounts of PerturbationTable, each once; shares and Dice in [0, 1], or a Dice of NaN.
absl::Status CheckCertificate(const SiteRecord& cohort, const InvarianceCertificate& certificate);

/// Training cases between 1 and the declared count, other numbers finite and not negative, with
/// FedNova as many steps as the study asks for, with fair aggregation a loss that can be, and
/// CheckScores.
absl::Status CheckUpdate(const Study& study, const SiteRecord& cohort, const SiteUpdate& update);

/// The weights say that they are for the study's harmonisation (docs/wire-format.md); the message
/// names both digests. Also NOT_FOUND and DATA_LOSS of SafetensorsFile::Open.
absl::Status CheckWeightsMetadata(const Study& study, const std::string& site,
                                  const std::filesystem::path& weights);

}  // namespace isoscan
