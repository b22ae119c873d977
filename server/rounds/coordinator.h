#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock/clock.h"
#include "common/study/study.h"
#include "server/fairness/best_model.h"
#include "server/fairness/study_record.h"
#include "server/rounds/journal.h"
#include "server/rounds/study_phase.h"

namespace isoscan {

/// What the server asks of one site. Equal fields are the same work.
struct Assignment {
  enum class Kind { kTrain, kScore, kLocalOnly, kStudyEnded };
  Kind kind = Kind::kTrain;
  std::string study;
  std::string study_digest;
  int round = 0;  ///< From 1; of kScore and kLocalOnly the one after the last of training.
  std::string model_digest;
  std::int64_t model_bytes = 0;

  bool operator==(const Assignment&) const = default;
};

/// One site's place in a study, as an operator sees it.
struct SiteStatus {
  std::string site;
  bool approved = false;
  bool withdrawn = false;
  bool connected = false;
  std::int64_t training_cases = 0;
  std::int64_t held_out_cases = 0;
  std::string activity;
  std::int64_t step = 0;
  std::int64_t steps = 0;
};

struct StudyStatus {
  std::string name;
  std::string digest;
  std::string toml;
  StudyPhase phase = StudyPhase::kCreated;
  int round = 0;
  int rounds = 0;
  std::vector<SiteStatus> sites;
  std::string waiting_for;
  std::vector<double> standard = {};  ///< HarmonizationPlan::standard, once the study has started.
  bool final_scores = false;          ///< `round` comes after the last one of training.
  std::string early_end = "";         ///< Why that was not the study's last; empty: it is.
};

/// The best global model by the study's rule (RankModels).
struct BestModel {
  GlobalModelRecord model;
  RoundsPlan::BestBy rule = RoundsPlan::BestBy::kCases;
  double score = 0;
  ModelRanking ranking;
};

/// The rules of studies and rounds, without transport: what each site is asked, when a round may
/// close, what a late, repeated or foreign message is answered.
///
/// Everything it promises is in the journal before a method returns OK; a restart continues from
/// there. Sites are told apart by the name that their certificate proved.
///
/// Thread safety: every method from any thread. Only Advance() works long (it aggregates) and does
/// not keep the others out meanwhile; where two threads call it, they work on different studies.
class Coordinator {
 public:
  /// `models` and `uploads` are folders for global models (by digest) and staged updates.
  /// Reads the journal. A study of it that this version cannot read is logged and set aside; the
  /// others go on. Errors: those of the journal.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Open(Journal& journal, const Clock& clock,
                                                           std::filesystem::path models,
                                                           std::filesystem::path uploads);
  ~Coordinator();

  /// Called, without any lock held, after every change that a watching site or operator could see.
  void Observe(std::function<void()> changed);

  // --- The coordinator's (operator's) side -------------------------------------------------------

  /// Errors: INVALID_ARGUMENT (ParseStudy's); ALREADY_EXISTS another text under the same name,
  /// or one that this version cannot read.
  /// Creating the same text again is OK, also that of a draft which has been planned meanwhile.
  absl::StatusOr<StudyStatus> CreateStudy(const std::string& toml);
  /// Errors: NOT_FOUND; FAILED_PRECONDITION when sites are missing (named), the phase is wrong, the
  ///         study is a draft, or no site declared what the study's standard would be the mean of.
  absl::StatusOr<StudyStatus> StartStudy(const std::string& study);
  /// Puts the planned study (PlannedStudy) in the place of a draft, whose approvals are void with
  /// that. A study that is no draft (any more) stays as it is, and that is OK.
  /// Errors: NOT_FOUND; FAILED_PRECONDITION when sites are missing (named), the draft is stopped,
  /// or
  ///         nothing can be planned from what the sites declared.
  absl::StatusOr<StudyStatus> PlanStudy(const std::string& study);
  absl::StatusOr<StudyStatus> PauseStudy(const std::string& study);
  absl::StatusOr<StudyStatus> ResumeStudy(const std::string& study);
  absl::StatusOr<StudyStatus> StopStudy(const std::string& study);
  absl::StatusOr<StudyStatus> Status(const std::string& study) const;
  std::vector<StudyStatus> Studies() const;
  absl::StatusOr<StudyRecord> Record(const std::string& study) const;
  absl::StatusOr<std::vector<GlobalModelRecord>> Models(const std::string& study) const;
  absl::StatusOr<std::filesystem::path> ModelOfRound(const std::string& study, int round) const;
  /// Errors: NOT_FOUND; FAILED_PRECONDITION no model has been scored by all who judge.
  absl::StatusOr<BestModel> Best(const std::string& study) const;

  // --- A site's side -----------------------------------------------------------------------------
  // Besides the errors below: those of JournalTrouble, which pass.

  /// Studies that this site may see, with no other site in them.
  std::vector<StudyStatus> StudiesOf(const std::string& site) const;
  /// Errors: NOT_FOUND; FAILED_PRECONDITION another digest, a study that is over, or one that
  ///         declares its sites without this one; INVALID_ARGUMENT no training or no held-out case.
  absl::Status Approve(const std::string& site, const std::string& study, const std::string& digest,
                       const SiteRecord& cohort);
  absl::Status Withdraw(const std::string& site, const std::string& study);

  /// All that is asked of the site now, in the order in which it is to be done: what is only to be
  /// heard (kStudyEnded), then studies of higher priority, and of equal ones first the one that
  /// this site contributed to longest ago. Empty: wait.
  std::vector<Assignment> AssignmentsOf(const std::string& site) const;
  void SetConnected(const std::string& site, bool connected);
  absl::Status ReportProgress(const std::string& site, const std::string& study, int round,
                              const std::string& activity, std::int64_t step, std::int64_t steps);

  /// Bytes of a model or an update of this site go over the wire, which is a sign of life: on a
  /// slow link they take longer than a silent site is waited for. Once a second is enough.
  void NoteTransfer(const std::string& site, const std::string& study);

  /// Where a model of a study of this site lies. Errors: NOT_FOUND.
  absl::StatusOr<std::filesystem::path> Model(const std::string& site, const std::string& study,
                                              const std::string& digest) const;

  /// Where this site's upload grows (PartialFile). The path belongs to one site, study and digest.
  /// Errors: NOT_FOUND; FAILED_PRECONDITION the round is not open for this site;
  ///         INVALID_ARGUMENT not a digest, or more bytes than the study's model can have.
  absl::StatusOr<std::filesystem::path> UploadPath(const std::string& site,
                                                   const std::string& study, int round,
                                                   const std::string& digest, std::int64_t bytes);

  /// Screens the update and takes it into the round, in one transaction with its scores.
  /// Repeating it is OK; another one for the same round replaces it while the round is open.
  /// Errors: INVALID_ARGUMENT it was refused (site, tensor and number named); FAILED_PRECONDITION
  ///         the round is closed or not this one; DATA_LOSS the weights are not here, or were
  ///         damaged on this server's disk: they are wanted again.
  absl::Status SubmitUpdate(const std::string& site, const SiteUpdate& update);

  /// Scores of the final model, with its certificate on this site's scans where the study asks for
  /// one and those of the site's personal model where the study has these; or of the site's
  /// local-only model. Repeating is OK.
  absl::Status SubmitScores(const std::string& site, const std::string& study,
                            Assignment::Kind kind, const std::vector<CaseScoreRecord>& scores,
                            const std::optional<InvarianceCertificate>& certificate = std::nullopt,
                            const std::vector<CaseScoreRecord>& personal = {});

  // --- Time
  // ----------------------------------------------------------------------------------------

  /// Closes what is due, study by study in turns: aggregates rounds whose quorum is complete, gives
  /// up silent sites, ends studies. Call after every change and at NextDeadline().
  /// Errors: those of journal and disk (RESOURCE_EXHAUSTED: disk full), logged; nothing is lost,
  /// and
  ///         the first call from five seconds later on tries that study again.
  absl::Status Advance();
  /// When Advance() has something to do even if nobody calls; nullopt: never.
  std::optional<Time> NextDeadline() const;

 private:
  struct State;
  explicit Coordinator(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace isoscan
