#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "server/rounds/coordinator.h"
#include "server/rounds/model_folder.h"
#include "server/rounds/study_course.h"
#include "server/rounds/upload_folder.h"

namespace isoscan {

/// What the coordinator's methods share. Only the coordinator's own .cc files include this.
///
/// Locks: `mutex` before the journal's own; the journal never calls back. Files are read, screened
/// and aggregated without any lock.
struct Coordinator::State {
  State(Journal& journal_in, const Clock& clock_in, std::filesystem::path models_folder,
        std::filesystem::path uploads_folder)
      : journal(journal_in),
        clock(clock_in),
        models(std::move(models_folder)),
        uploads(std::move(uploads_folder)) {}

  Journal& journal;
  const Clock& clock;
  const ModelFolder models;
  const UploadFolder uploads;

  absl::Mutex creating;  ///< One study is created at a time; taken before `mutex`.
  mutable absl::Mutex mutex;
  std::map<std::string, StudyCourse> studies ABSL_GUARDED_BY(mutex);
  /// In the journal, but not to be read by this version.
  std::set<std::string> set_aside ABSL_GUARDED_BY(mutex);
  std::set<std::string> connected ABSL_GUARDED_BY(mutex);
  std::vector<std::function<void()>> observers ABSL_GUARDED_BY(mutex);
  std::string last_turn ABSL_GUARDED_BY(mutex);    ///< The study that was advanced last.
  std::int64_t served ABSL_GUARDED_BY(mutex) = 0;  ///< The highest Participant::served.
  /// Of a study that AdvanceStudy() has moved on: the uploads of all rounds but the open one (0: of
  /// all) can go. That takes the disk's time, so it comes after the sites were told what is next.
  struct Leftovers {
    int open_round = 0;
    std::vector<std::string> sites;
  };
  std::map<std::string, Leftovers> leftovers ABSL_GUARDED_BY(mutex);

  /// Errors: NOT_FOUND.
  absl::StatusOr<StudyCourse*> Find(const std::string& study) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  /// The study, if this site takes part in it. Errors: NOT_FOUND no such study;
  /// FAILED_PRECONDITION the site has not approved it, or has withdrawn.
  absl::StatusOr<StudyCourse*> FindFor(const std::string& site, const std::string& study)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  StudyStatus StatusOf(const StudyCourse& course) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return course.Status(connected, clock.Now());
  }

  /// Tells the observers that something has changed.
  void Announce() ABSL_LOCKS_EXCLUDED(mutex);

  /// The site shows that it is alive: to every study, for it works on one at a time.
  void SignOfLife(const std::string& site) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  /// Pause, resume, stop. `verb` is the word for messages.
  absl::StatusOr<StudyStatus> MoveTo(const std::string& study, StudyPhase phase,
                                     const std::string& verb) ABSL_LOCKS_EXCLUDED(mutex);

  /// Writes the initial weights. Under `creating`, and without `mutex`.
  absl::StatusOr<GlobalModelRecord> MakeInitialModel(const Study& study) const;

  void RemoveUploads(const StudyCourse& course, int open_round) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  /// Leaves that to Tidy(), which comes while the study is still marked as advancing: nothing of a
  /// later round may go.
  void TidyLater(const StudyCourse& course, int open_round) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  void Tidy(const std::string& study) ABSL_LOCKS_EXCLUDED(mutex);

  // --- Closing a round (round_closing.cc) --------------------------------------------------------

  struct Closing;
  struct Aggregated;  ///< What came out.

  /// The next study, by turns, in which something is due; the caller advances it.
  std::optional<std::string> TakeDueStudy() ABSL_LOCKS_EXCLUDED(mutex);
  /// Does what is due in this study now; false: nothing was.
  absl::StatusOr<bool> AdvanceStudy(const std::string& study) ABSL_LOCKS_EXCLUDED(mutex);
  /// Aggregates and journals; true unless it failed.
  absl::StatusOr<bool> CloseRound(const Closing& closing) ABSL_LOCKS_EXCLUDED(mutex);
  /// WhyTrainingEnds() once `round` is closed; `scores` of the models before its own.
  absl::StatusOr<std::string> WhyTrainingEndsAfter(const StudyCourse& course, int round,
                                                   GlobalModelScores& scores) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  absl::StatusOr<Aggregated> Aggregate(const Closing& closing) const;
  /// Forgets updates whose staged file is not what was taken; true: there were any.
  absl::StatusOr<bool> DropLostUpdates(const Closing& closing) ABSL_LOCKS_EXCLUDED(mutex);
  std::filesystem::path WeightsOf(const Closing& closing, const std::string& site) const;
};

}  // namespace isoscan
