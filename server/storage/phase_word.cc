#include "server/storage/phase_word.h"

#include <fmt/format.h>

namespace isoscan {

const char* WordOf(StudyPhase phase) {
  switch (phase) {
    case StudyPhase::kCreated:
      return "created";
    case StudyPhase::kRunning:
      return "running";
    case StudyPhase::kPaused:
      return "paused";
    case StudyPhase::kFinished:
      return "finished";
    case StudyPhase::kStopped:
      return "stopped";
  }
  return "";
}

absl::StatusOr<StudyPhase> PhaseOf(const std::string& word) {
  for (const StudyPhase phase : {StudyPhase::kCreated, StudyPhase::kRunning, StudyPhase::kPaused,
                                 StudyPhase::kFinished, StudyPhase::kStopped}) {
    if (word == WordOf(phase)) return phase;
  }
  return absl::DataLossError(
      fmt::format("the journal has a study in the unknown phase '{}'", word));
}

}  // namespace isoscan
