#include "server/rounds/study_course.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "common/status/status_macros.h"
#include "common/study/exchanged_tensors.h"

namespace isoscan {

absl::StatusOr<StudyCourse> StudyCourse::FromJournal(JournaledStudy journaled, Time now) {
  StudyCourse course;
  ASSIGN_OR_RETURN(course.study,
                   ParseStudy(std::move(journaled.toml),
                              fmt::format("study {} of the journal", journaled.name)));
  course.draft_digest = std::move(journaled.draft_digest);
  course.shapes = ExchangedShapes(course.study);
  course.phase = journaled.phase;
  course.created = journaled.created;
  course.phase_since = journaled.phase_since;
  course.round = journaled.round;
  course.round_opened = journaled.round_opened;
  course.models = std::move(journaled.models);
  course.state = std::move(journaled.state);
  // Weights and updates from now on carry the numbers that every site harmonises by.
  if (!journaled.standard.empty()) course.study.harmonization.standard = journaled.standard;
  for (JournaledParticipant& participant : journaled.participants) {
    Participant& known = course.participants[participant.cohort.name];
    known.cohort = std::move(participant.cohort);
    known.at_start = participant.at_start;
    known.Sign(now);
  }
  course.early_end = std::move(journaled.early_end);
  course.asked = std::move(journaled.asked);
  for (JournaledUpdate& update : journaled.updates) {
    course.updates[update.site] = std::move(update);
  }
  if (course.final_scores()) {
    course.scored = {journaled.scored.begin(), journaled.scored.end()};
    course.scored_local_only = {journaled.scored_local_only.begin(),
                                journaled.scored_local_only.end()};
  }
  return course;
}

bool StudyCourse::admits(const std::string& site) const {
  return study.sites.empty() ||
         std::find(study.sites.begin(), study.sites.end(), site) != study.sites.end();
}

bool StudyCourse::Declares(const std::string& site) const {
  if (!study.sites.empty()) return admits(site);
  const auto found = participants.find(site);
  return found != participants.end() && (found->second.at_start || round == 0);
}

const Participant* StudyCourse::Active(const std::string& site) const {
  const auto found = participants.find(site);
  return found == participants.end() || found->second.cohort.withdrawn ? nullptr : &found->second;
}

Participant* StudyCourse::Active(const std::string& site) {
  return const_cast<Participant*>(std::as_const(*this).Active(site));
}

bool StudyCourse::Asks(const std::string& site) const {
  return asked.contains(site) && Active(site) != nullptr;
}

std::set<std::string> StudyCourse::TakingPart() const {
  std::set<std::string> sites;
  for (const auto& [site, participant] : participants) {
    if (!participant.cohort.withdrawn) sites.insert(site);
  }
  return sites;
}

std::set<std::string> StudyCourse::ToAsk(int of_round, const std::set<std::string>& already,
                                         const std::set<std::string>& candidates) const {
  RoundsPlan plan = study.rounds;
  if (IsFinal(of_round)) plan.sites_per_round = 0;
  return SitesToAsk(plan, study.seed, of_round, already, candidates);
}

std::set<std::string> StudyCourse::SitesAskedBy(int next) const {
  return ToAsk(next, /*already=*/{}, TakingPart());
}

std::set<std::string> StudyCourse::AlsoAsked(const std::string& joining,
                                             const std::string& leaving) const {
  if (!open()) return {};
  std::set<std::string> candidates = TakingPart();
  if (!joining.empty()) candidates.insert(joining);
  candidates.erase(leaving);
  std::set<std::string> already;
  std::set_intersection(asked.begin(), asked.end(), candidates.begin(), candidates.end(),
                        std::inserter(already, already.end()));
  return ToAsk(round, already, candidates);
}

bool StudyCourse::Contributed(const std::string& site) const {
  if (!final_scores()) return updates.contains(site);
  return scored.contains(site) &&
         (!study.evaluation.local_only || scored_local_only.contains(site));
}

RoundSituation StudyCourse::Situation(Time now) const {
  std::map<std::string, Standing> standings;
  for (const std::string& site : study.sites) standings[site].declared = true;
  for (const auto& [site, participant] : participants) {
    Standing& standing = standings[site];
    standing.declared = Declares(site);
    standing.approved = true;
    standing.withdrawn = participant.cohort.withdrawn;
    standing.drawn = round == 0 || asked.contains(site);
    standing.contributed = Contributed(site);
    standing.training_cases = participant.cohort.training_cases;
    standing.last_sign = participant.last_sign;
  }
  RoundSituation situation{.round = round,
                           .final_scores = final_scores(),
                           .since = std::max(round_opened, phase_since),
                           .now = now,
                           .sites = {}};
  for (auto& [site, standing] : standings) {
    standing.site = site;
    situation.sites.push_back(std::move(standing));
  }
  return situation;
}

std::string StudyCourse::MissingApprovals() const {
  std::vector<Standing> standings = Situation(created).sites;
  for (Standing& standing : standings) standing.contributed = standing.asked();
  return QuorumShortfall(study.rounds.quorum, standings, "approval");
}

std::vector<Assignment> StudyCourse::AssignmentsOf(const std::string& site) const {
  if (Active(site) == nullptr) return {};
  const auto assignment = [&](Assignment::Kind kind, const GlobalModelRecord& model) {
    return Assignment{.kind = kind,
                      .study = study.name,
                      .study_digest = study.digest,
                      .round = round,
                      .model_digest = model.digest,
                      .model_bytes = model.bytes};
  };
  using Kind = Assignment::Kind;
  if (IsOver(phase)) return {assignment(Kind::kStudyEnded, models.back())};
  if (phase != StudyPhase::kRunning) return {};
  if (!Asks(site)) return {};
  if (!final_scores()) {
    if (updates.contains(site)) return {};
    return {assignment(Kind::kTrain, models.back())};
  }
  std::vector<Assignment> assignments;
  if (!scored.contains(site)) assignments.push_back(assignment(Kind::kScore, models.back()));
  if (study.evaluation.local_only && !scored_local_only.contains(site)) {
    assignments.push_back(assignment(Kind::kLocalOnly, models.front()));
  }
  return assignments;
}

SiteStatus StudyCourse::StatusOf(const std::string& site, bool connected, Time now) const {
  SiteStatus status;
  status.site = site;
  status.connected = connected;
  const auto found = participants.find(site);
  if (found == participants.end()) {
    status.activity = "has not approved";
    return status;
  }
  const Participant& participant = found->second;
  status.approved = true;
  status.withdrawn = participant.cohort.withdrawn;
  status.training_cases = participant.cohort.training_cases;
  status.held_out_cases = participant.cohort.held_out_cases;
  status.step = participant.step;
  status.steps = participant.steps;
  Standing standing;
  standing.approved = true;
  standing.last_sign = participant.last_sign;
  if (status.withdrawn) {
    status.activity = "withdrawn";
  } else if (phase == StudyPhase::kCreated) {
    status.activity = "approved";
  } else if (IsOver(phase) || Contributed(site)) {
    status.activity = "done";
  } else if (!Asks(site)) {
    status.activity = fmt::format("not asked in round {}", round);
  } else if (IsSilent(standing, now, study.rounds.no_progress_limit)) {
    status.activity = fmt::format("silent since {}", ClockWords(participant.last_sign));
  } else {
    status.activity = participant.activity.empty() ? "asked" : participant.activity;
  }
  return status;
}

StudyStatus StudyCourse::Status(const std::set<std::string>& connected, Time now) const {
  StudyStatus status{.name = study.name,
                     .digest = study.digest,
                     .toml = study.toml,
                     .phase = phase,
                     .round = round,
                     .rounds = rounds(),
                     .sites = {},
                     .waiting_for = "",
                     .standard = study.harmonization.standard,
                     .final_scores = final_scores(),
                     .early_end = early_end ? early_end->reason : ""};
  const RoundSituation situation = Situation(now);
  for (const Standing& standing : situation.sites) {
    status.sites.push_back(StatusOf(standing.site, connected.contains(standing.site), now));
  }
  if (phase == StudyPhase::kCreated) {
    status.waiting_for = MissingApprovals();
    if (status.waiting_for.empty() && study.planning.has_value()) {
      status.waiting_for = fmt::format("its plan (isoscan-admin study plan {})", study.name);
    }
  } else if (phase == StudyPhase::kRunning) {
    status.waiting_for = failure.empty() ? WaitingFor(study.rounds, situation)
                                         : "the server, which tries again: " + failure;
  }
  return status;
}

StudyStatus StudyCourse::StatusFor(const std::string& site, bool connected, Time now) const {
  StudyStatus status{.name = study.name,
                     .digest = study.digest,
                     .toml = study.toml,
                     .phase = phase,
                     .round = round,
                     .rounds = rounds(),
                     .sites = {StatusOf(site, connected, now)},
                     .waiting_for = "",
                     .standard = study.harmonization.standard,
                     .final_scores = final_scores(),
                     .early_end = ""};
  return status;
}

bool StudyCourse::NoticeTime(Time now) {
  const RoundSituation situation = Situation(now);
  bool noticed = false;
  for (const Standing& standing : situation.sites) {
    if (!IsSilent(standing, now, study.rounds.no_progress_limit)) continue;
    Participant& participant = participants.at(standing.site);
    if (participant.silence_told) continue;
    participant.silence_told = noticed = true;
    spdlog::warn("site silent study={} site={} round={} since={}", study.name, standing.site, round,
                 ClockWords(standing.last_sign));
  }
  if (!deadline_told && IsPastDeadline(study.rounds, situation)) {
    deadline_told = noticed = true;
    spdlog::warn("deadline passed study={} round={}", study.name, round);
  }
  return noticed;
}

std::optional<Time> StudyCourse::NextDeadline(Time now) const {
  if (phase != StudyPhase::kRunning || advancing) return std::nullopt;
  if (retry_at.has_value()) return retry_at;
  const RoundSituation situation = Situation(now);
  if (IsDue(study.rounds, situation)) return now;
  std::optional<Time> next;
  const auto consider = [&](Time time) { next = std::min(next.value_or(time), time); };
  if (!deadline_told) consider(situation.since + study.rounds.round_deadline);
  for (const Standing& standing : situation.sites) {
    if (!standing.pending() || participants.at(standing.site).silence_told) continue;
    consider(standing.last_sign + study.rounds.no_progress_limit);
  }
  return next;
}

std::string StudyCourse::PhaseWords() const {
  switch (phase) {
    case StudyPhase::kCreated:
      return fmt::format("{} has not been started", study.name);
    case StudyPhase::kFinished:
      return fmt::format("{} has finished", study.name);
    case StudyPhase::kStopped:
      return fmt::format("{} has been stopped", study.name);
    case StudyPhase::kPaused:
    case StudyPhase::kRunning:
      break;
  }
  if (final_scores()) return fmt::format("{} collects its final scores", study.name);
  return fmt::format("round {} of {} is open", round, study.name);
}

void StudyCourse::EnterRound(int next, std::set<std::string> asked_by_it, Time now) {
  const RoundSituation closed = Situation(now);
  for (const Standing& standing : closed.sites) {
    const auto found = participants.find(standing.site);
    if (found == participants.end()) continue;
    Participant& participant = found->second;
    participant.activity.clear();
    participant.step = participant.steps = 0;
    // One that was given up in an earlier round than this, which did not ask it, is dead still.
    if (participant.silence_told || IsSilent(standing, now, study.rounds.no_progress_limit)) {
      continue;
    }
    participant.Sign(now);
  }
  round = next;
  asked = std::move(asked_by_it);
  round_opened = now;
  updates.clear();
  averaging.clear();
  deadline_told = false;
}

void StudyCourse::RestartClocks(Time now) {
  for (auto& [site, participant] : participants) participant.Sign(now);
  deadline_told = false;
}

}  // namespace isoscan
