#pragma once

#include <string>

#include "absl/status/statusor.h"

#include "server/rounds/study_phase.h"

namespace isoscan {

/// How the column studies.phase spells a phase.
const char* WordOf(StudyPhase phase);
/// Errors: DATA_LOSS for any other word.
absl::StatusOr<StudyPhase> PhaseOf(const std::string& word);

}  // namespace isoscan
