#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "common/clock/clock.h"
#include "common/study/study.h"
#include "common/weights/named_tensors.h"
#include "server/fairness/best_model.h"
#include "server/rounds/coordinator.h"
#include "server/rounds/journal.h"
#include "server/rounds/round_rules.h"

namespace isoscan {

/// A site within one study: what it declared, and what is seen of it since the server runs.
struct Participant {
  SiteRecord cohort;
  bool at_start = false;
  Time last_sign{};
  bool silence_told = false;  ///< Its silence has been logged and shown.
  /// Grows with each contribution of any site to any study: how long ago its last one to this was.
  std::int64_t served = 0;
  std::string activity;  ///< Last reported in the open round.
  std::int64_t step = 0;
  std::int64_t steps = 0;

  /// Shows that the site is alive.
  void Sign(Time now) {
    last_sign = now;
    silence_told = false;
  }
};

/// Where one study stands, in memory: the journal's facts, and the signs of life that are not
/// worth a journal. Knows the rules, changes nothing outside itself.
///
/// Thread safety: none; the coordinator's mutex guards it.
struct StudyCourse {
  Study study;
  std::string draft_digest;  ///< Of the draft that it was planned from; empty: there was none.
  TensorShapes shapes;       ///< Of every update.
  StudyPhase phase = StudyPhase::kCreated;
  Time created{};
  Time phase_since{};
  int round = 0;
  Time round_opened{};
  std::map<std::string, Participant> participants;
  std::optional<EarlyEnd> early_end;
  /// Of the models of closed rounds, as far as they were needed yet.
  GlobalModelScores closed_scores;
  std::vector<GlobalModelRecord> models;  ///< By round, from 0.
  ServerState state;                      ///< Of the newest model.
  std::set<std::string> asked;  ///< By the open round; also those that have withdrawn since.
  std::map<std::string, JournaledUpdate> updates;  ///< Of the open round.
  std::set<std::string> scored;                    ///< The final model, by site.
  std::set<std::string> scored_local_only;
  std::multiset<std::pair<std::string, std::string>> screening;  ///< (site, digest) in use.
  /// Sites whose updates are being averaged. Nobody replaces one of these meanwhile: a site that
  /// went on doing so would keep the round from ever closing.
  std::set<std::string> averaging;
  bool deadline_told = false;    ///< That it has passed has been logged and shown.
  bool advancing = false;        ///< A thread closes its round, or is about to.
  std::optional<Time> retry_at;  ///< After that has failed,
  std::string failure;           ///< and why, for the operator; empty: it has not.

  /// Signs of life start at `now`. Errors: those of ParseStudy.
  static absl::StatusOr<StudyCourse> FromJournal(JournaledStudy journaled, Time now);

  int rounds() const { return static_cast<int>(study.rounds.rounds); }
  /// Of training: the study's last one, or the one that training ended with before that.
  int last_round() const { return early_end ? early_end->round : rounds(); }
  bool final_scores() const { return IsFinal(round); }
  /// Running or paused: what arrives is kept.
  bool open() const { return phase == StudyPhase::kRunning || phase == StudyPhase::kPaused; }
  /// May see the study and approve it.
  bool admits(const std::string& site) const;
  /// By the study, or, where that names no sites, by its approval before the start.
  bool Declares(const std::string& site) const;
  /// The participant, unless the site never approved or has withdrawn.
  Participant* Active(const std::string& site);
  const Participant* Active(const std::string& site) const;
  /// The open round asks something of this site, whether that is here or not.
  bool Asks(const std::string& site) const;
  /// The site's work for the open round is here.
  bool Contributed(const std::string& site) const;
  /// Whom round `next` asks when it opens: of a round of training SitesToAsk(), of the final
  /// scores every site that takes part.
  std::set<std::string> SitesAskedBy(int next) const;
  /// Whom the open round asks from now on, too, if `joining` takes part and `leaving` does not;
  /// either may be empty.
  std::set<std::string> AlsoAsked(const std::string& joining, const std::string& leaving) const;

  RoundSituation Situation(Time now) const;
  /// What the quorum lacks before the study can start, in words; empty when nothing.
  std::string MissingApprovals() const;
  std::vector<Assignment> AssignmentsOf(const std::string& site) const;
  StudyStatus Status(const std::set<std::string>& connected, Time now) const;
  /// Without any other site.
  StudyStatus StatusFor(const std::string& site, bool connected, Time now) const;

  /// Marks the sites that have fallen silent and a deadline that has passed since the last call.
  /// True when there are any: people want to see them.
  bool NoticeTime(Time now);
  /// When IsDue() or NoticeTime() change their answer although nobody calls, or, after a failure,
  /// may be acted upon again; nullopt: never, or a thread is at it.
  std::optional<Time> NextDeadline(Time now) const;

  /// "round 3 of hippocampus is open", for refusals.
  std::string PhaseWords() const;

  /// Forgets the closed round. Sites that were silent at its close keep their clock, so that a
  /// dead site costs the study one limit and not one per round.
  void EnterRound(int next, std::set<std::string> asked_by_it, Time now);
  /// Every site's clock starts anew.
  void RestartClocks(Time now);

 private:
  bool IsFinal(int of_round) const { return of_round > last_round(); }
  std::set<std::string> ToAsk(int of_round, const std::set<std::string>& already,
                              const std::set<std::string>& candidates) const;
  /// Names of those that have approved and not withdrawn.
  std::set<std::string> TakingPart() const;
  SiteStatus StatusOf(const std::string& site, bool connected, Time now) const;
};

}  // namespace isoscan
