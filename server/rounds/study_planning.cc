// How a draft becomes a study: from the fingerprints that its sites sent when they approved it.

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <map>
#include <string>
#include <utility>

#include "common/planning/planned_study.h"
#include "common/status/status_macros.h"
#include "common/study/exchanged_tensors.h"
#include "server/rounds/coordinator.h"
#include "server/rounds/coordinator_state.h"

namespace isoscan {
namespace {

// What the draft can be planned from now.
absl::StatusOr<std::map<std::string, Fingerprint>> FingerprintsOf(const StudyCourse& course) {
  const std::string& study = course.study.name;
  if (course.phase != StudyPhase::kCreated) {
    return absl::FailedPreconditionError(
        fmt::format("cannot plan {}: {}", study, course.PhaseWords()));
  }
  if (const std::string missing = course.MissingApprovals(); !missing.empty()) {
    return absl::FailedPreconditionError(
        fmt::format("{} cannot be planned yet, it needs {} (isoscan-client study approve {})",
                    study, missing, study));
  }
  std::map<std::string, Fingerprint> fingerprints;
  for (const auto& [site, participant] : course.participants) {
    if (participant.cohort.withdrawn) continue;
    fingerprints.emplace(site, participant.cohort.fingerprint.value());
  }
  return fingerprints;
}

}  // namespace

absl::StatusOr<StudyStatus> Coordinator::PlanStudy(const std::string& study) {
  absl::MutexLock creating(&state_->creating);
  Study draft;
  std::map<std::string, Fingerprint> fingerprints;
  {
    absl::MutexLock lock(&state_->mutex);
    ASSIGN_OR_RETURN(const StudyCourse* const course, state_->Find(study));
    if (!course->study.planning.has_value()) return state_->StatusOf(*course);
    ASSIGN_OR_RETURN(fingerprints, FingerprintsOf(*course));
    draft = course->study;
  }

  ASSIGN_OR_RETURN(Study planned, PlannedStudy(draft, fingerprints));
  ASSIGN_OR_RETURN(const GlobalModelRecord initial, state_->MakeInitialModel(planned));

  StudyStatus status;
  {
    absl::MutexLock lock(&state_->mutex);
    ASSIGN_OR_RETURN(StudyCourse* const course, state_->Find(study));
    if (course->phase != StudyPhase::kCreated) {  // Stopped meanwhile.
      return absl::FailedPreconditionError(
          fmt::format("cannot plan {}: {}", study, course->PhaseWords()));
    }
    RETURN_IF_ERROR(state_->journal.PlanStudy(planned, initial, state_->clock.Now()));
    spdlog::info("study planned study={} draft={} digest={} sites={} model_bytes={}", study,
                 draft.digest, planned.digest, fingerprints.size(), initial.bytes);
    state_->models.Remove(course->models.front().digest);
    course->models = {initial};
    course->shapes = ExchangedShapes(planned);
    course->study = std::move(planned);
    course->draft_digest = draft.digest;
    // They approved another text.
    std::erase_if(course->participants,
                  [](const auto& entry) { return !entry.second.cohort.withdrawn; });
    status = state_->StatusOf(*course);
  }
  state_->Announce();
  return status;
}

}  // namespace isoscan
