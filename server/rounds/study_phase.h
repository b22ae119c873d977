#pragma once

namespace isoscan {

/// The life of a study. Every change is in the journal before it is acted upon.
///
///   kCreated ──> kRunning <──> kPaused
///                   │   └─────────┤
///                   v             v
///               kFinished     kStopped
enum class StudyPhase {
  kCreated,   ///< Sites may approve.
  kRunning,   ///< Rounds, then the final scores.
  kPaused,    ///< Nothing is asked of sites; what arrives is kept.
  kFinished,  ///< All rounds aggregated, all scores in or given up.
  kStopped,   ///< Ended by the coordinator; models and scores so far stay.
};

constexpr bool IsOver(StudyPhase phase) {
  return phase == StudyPhase::kFinished || phase == StudyPhase::kStopped;
}

/// True when a study in phase `from` may move to phase `to`.
constexpr bool MayFollow(StudyPhase from, StudyPhase to) {
  switch (to) {
    case StudyPhase::kCreated:
      return false;
    case StudyPhase::kRunning:
      return from == StudyPhase::kCreated || from == StudyPhase::kPaused;
    case StudyPhase::kPaused:
    case StudyPhase::kFinished:
      return from == StudyPhase::kRunning;
    case StudyPhase::kStopped:
      return !IsOver(from);
  }
  return false;
}

static_assert(MayFollow(StudyPhase::kPaused, StudyPhase::kRunning));
static_assert(!MayFollow(StudyPhase::kFinished, StudyPhase::kStopped));

}  // namespace isoscan
