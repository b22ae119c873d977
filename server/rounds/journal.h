#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock/clock.h"
#include "server/fairness/study_record.h"
#include "server/rounds/study_phase.h"

namespace isoscan {

/// What a site hands in for one round. Its weights were uploaded before.
struct SiteUpdate {
  std::string study;
  int round = 0;
  std::string weights_digest;
  std::int64_t training_cases = 0;
  std::int64_t steps = 0;
  double mean_loss = 0;
  double seconds_training = 0;
  double seconds_scoring = 0;
  /// Of the global model that the round started from, on training patches of the site.
  std::optional<double> loss_before = std::nullopt;
  std::vector<CaseScoreRecord> model_scores =
      {};  ///< Of the global model that the round started from.
};

/// Sites that a round asks, or asks from now on, too.
struct AskedSites {
  int round = 0;
  std::set<std::string> sites;
};

struct GlobalModelRecord {
  int round = 0;  ///< 0: the initial weights.
  std::string digest;
  std::int64_t bytes = 0;
};

/// What a strategy carries from one round to the next beside the model. Empty: nothing, as before
/// the first round.
struct ServerState {
  /// Of the file of moments, by ModelFolder::StatePathOf(); empty: there is none.
  std::string digest = "";
  std::int64_t bytes = 0;
  /// AFL's lambda, by site.
  std::map<std::string, double> site_weights = {};

  bool operator==(const ServerState&) const = default;
};

/// A round that closes, with all that comes out of it.
struct ClosedRound {
  RoundRecord record;
  GlobalModelRecord model;
  ServerState state = {};
};

/// A site that has approved a study.
struct JournaledParticipant {
  SiteRecord cohort;
  bool at_start = false;  ///< It had approved when the study started; otherwise it came later.
  Time last_update{};     ///< When its newest update was taken; the epoch: none was.
};

/// Training ended before the study's last round.
struct EarlyEnd {
  int round = 0;  ///< The last one that was aggregated; the final scores are of its model.
  std::string reason;
};

/// An update as decisions need it: the scores stay in the journal.
struct JournaledUpdate {
  std::string site;
  std::string weights_digest;
  std::int64_t training_cases = 0;
  std::int64_t steps = 0;
  double mean_loss = 0;
  double seconds_training = 0;
  double seconds_scoring = 0;
  std::optional<double> loss_before = std::nullopt;

  bool operator==(const JournaledUpdate&) const = default;
};

/// Where a study stands: all that a restarted server needs to go on with it.
struct JournaledStudy {
  std::string name;
  std::string toml;
  std::string draft_digest;  ///< Of the draft that it was planned from; empty: there was none.
  StudyPhase phase = StudyPhase::kCreated;
  Time created{};
  Time phase_since{};
  int round = 0;  ///< The open one; 0 before the start; after the last one: of the final scores.
  Time round_opened{};
  std::vector<double>
      standard;  ///< The mean of the sites' sums; empty: not needed, or not started.
  std::vector<JournaledParticipant> participants;  ///< By name.
  std::vector<GlobalModelRecord> models;           ///< By round, from 0.
  std::optional<EarlyEnd> early_end;
  ServerState state;                           ///< Of the newest model.
  std::set<std::string> asked;                 ///< By the open round.
  std::vector<JournaledUpdate> updates;        ///< Of the open round, by site.
  std::vector<std::string> scored;             ///< Sites whose scores of the final model are here.
  std::vector<std::string> scored_local_only;  ///< Sites whose local-only scores are here.
};

/// The memory of the coordinator. What a method has answered OK to survives a crash at any later
/// instruction; each method takes effect as a whole or not at all.
///
/// Errors of every method: RESOURCE_EXHAUSTED the disk is full; DATA_LOSS the journal is damaged;
/// UNAVAILABLE other I/O errors.
/// Thread safety: every method from any thread.
class Journal {
 public:
  virtual ~Journal() = default;

  // --- Reading -----------------------------------------------------------------------------------

  /// Every study, by name.
  virtual absl::StatusOr<std::vector<JournaledStudy>> Studies() const = 0;
  /// Closed rounds with who took part, in order.
  virtual absl::StatusOr<std::vector<RoundRecord>> ClosedRounds(const std::string& study) const = 0;
  /// All scores, by site, then global models by round, then the site's own ones.
  virtual absl::StatusOr<std::vector<ModelScoresRecord>> Scores(const std::string& study) const = 0;
  /// Of global models from the one of `first_round` on, without certificates.
  virtual absl::StatusOr<std::vector<ModelScoresRecord>> GlobalScores(const std::string& study,
                                                                      int first_round) const = 0;
  /// Digest of the weights that were taken from this site in this round; nullopt: none were.
  virtual absl::StatusOr<std::optional<std::string>> TakenWeights(
      const std::string& study, int round, const std::string& site) const = 0;

  // --- Studies -----------------------------------------------------------------------------------

  virtual absl::Status CreateStudy(const Study& study, const GlobalModelRecord& initial,
                                   Time now) = 0;
  /// Puts the planned study in the place of the draft of its name, and its model in the place of
  /// the draft's; forgets the approvals of the draft, with all that they declared.
  virtual absl::Status PlanStudy(const Study& planned, const GlobalModelRecord& initial,
                                 Time now) = 0;
  /// Opens round 1, which asks `asked`; who has approved by now is a participant from the start.
  /// `standard` stays as it is for the life of the study.
  virtual absl::Status StartStudy(const std::string& study, const std::vector<double>& standard,
                                  const std::set<std::string>& asked, Time now) = 0;
  /// Pause, resume, stop.
  virtual absl::Status SetPhase(const std::string& study, StudyPhase phase, Time now) = 0;
  /// Closes the round of final scores and ends the study.
  virtual absl::Status FinishStudy(const std::string& study, Time now) = 0;

  // --- Sites -------------------------------------------------------------------------------------

  /// Also takes back an earlier withdrawal. `also_asked` by the open round.
  virtual absl::Status Approve(const std::string& study, const SiteRecord& cohort,
                               const AskedSites& also_asked, Time now) = 0;
  /// Removes the site's update and scores of the open round too, and its fingerprint.
  /// `also_asked.round` is the open round, which asks its sites in the place of this one.
  virtual absl::Status Withdraw(const std::string& study, const std::string& site,
                                const AskedSites& also_asked) = 0;
  /// The update with its scores; replaces an earlier one of the same site and round.
  virtual absl::Status TakeUpdate(const std::string& site, const SiteUpdate& update, Time now) = 0;
  /// Forgets an update of the open round whose weights were lost, so that the site is asked again.
  virtual absl::Status DropUpdate(const std::string& study, int round, const std::string& site) = 0;
  /// Final or local-only scores; replaces earlier ones of the same model.
  virtual absl::Status TakeScores(const std::string& study, const ModelScoresRecord& scores) = 0;

  // --- Rounds ------------------------------------------------------------------------------------

  /// Records the closed round with its participation and its model, puts its state in the place of
  /// the round's before, and opens the next round, which asks `asked`; it is that of the final
  /// scores where the closed one ends_training.
  virtual absl::Status CloseRound(const std::string& study, const ClosedRound& closed,
                                  const std::set<std::string>& asked) = 0;
};

/// What a site is told while the journal fails: to try again later, whatever the reason
/// (UNAVAILABLE, or RESOURCE_EXHAUSTED for a full disk). The journal's own code would read as an
/// answer about the site's work, which it would then throw away. The reason goes to the log, at
/// most once a minute. OK stays OK.
absl::Status JournalTrouble(const absl::Status& status);

}  // namespace isoscan
