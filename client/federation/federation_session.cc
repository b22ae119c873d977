#include "client/federation/federation_session.h"

namespace isoscan {

std::string ToString(OfferedStudy::Phase phase) {
  switch (phase) {
    case OfferedStudy::Phase::kCreated:
      return "created";
    case OfferedStudy::Phase::kRunning:
      return "running";
    case OfferedStudy::Phase::kPaused:
      return "paused";
    case OfferedStudy::Phase::kFinished:
      return "finished";
    case OfferedStudy::Phase::kStopped:
      return "stopped";
  }
  return "unknown";
}

bool IsPlanOf(const OfferedStudy& offered, const Study& approved) {
  return approved.planning.has_value() && offered.name == approved.name &&
         offered.digest != approved.digest;
}

std::string ToString(SiteAssignment::Kind kind) {
  switch (kind) {
    case SiteAssignment::Kind::kTrain:
      return "train";
    case SiteAssignment::Kind::kScore:
      return "score";
    case SiteAssignment::Kind::kLocalOnly:
      return "local_only";
    case SiteAssignment::Kind::kStudyEnded:
      return "study_ended";
  }
  return "unknown";
}

}  // namespace isoscan
