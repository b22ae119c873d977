#include "server/rounds/coordinator.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <tuple>

#include "common/process/fault_point.h"
#include "common/status/status_macros.h"
#include "common/study/initial_weights.h"
#include "common/version.h"
#include "common/weights/safetensors.h"
#include "server/rounds/coordinator_state.h"

namespace isoscan {
namespace {

// The mean over the cases of the sites that take part, in site-name order; empty where the study
// gives its standard or needs none.
absl::StatusOr<std::vector<double>> StandardOf(const StudyCourse& course) {
  const HarmonizationPlan& plan = course.study.harmonization;
  const std::size_t length = StandardLength(plan.normalize) * course.study.channels.size();
  if (length == 0 || !plan.standard.empty()) return std::vector<double>();
  std::map<std::string, CaseSum> sums;
  for (const auto& [site, participant] : course.participants) {
    if (!participant.cohort.withdrawn) sums[site] = participant.cohort.standard;
  }
  return PopulationMean(sums, length);
}

}  // namespace

Coordinator::Coordinator(std::unique_ptr<State> state) : state_(std::move(state)) {}
Coordinator::~Coordinator() = default;

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Open(Journal& journal, const Clock& clock,
                                                               std::filesystem::path models,
                                                               std::filesystem::path uploads) {
  auto state = std::make_unique<State>(journal, clock, std::move(models), std::move(uploads));
  ASSIGN_OR_RETURN(std::vector<JournaledStudy> studies, journal.Studies());
  state->models.RemoveDrafts();
  std::set<std::string> states;
  for (const JournaledStudy& study : studies) states.insert(study.state.digest);
  state->models.RemoveStatesBut(states);
  // By time: how long ago each site contributed to each study.
  std::vector<std::tuple<Time, std::string, std::string>> contributions;
  {
    absl::MutexLock lock(&state->mutex);
    for (JournaledStudy& journaled : studies) {
      const std::string name = journaled.name;
      for (const JournaledParticipant& site : journaled.participants) {
        if (site.last_update == Time{}) continue;
        contributions.emplace_back(site.last_update, name, site.cohort.name);
      }
      absl::StatusOr<StudyCourse> course =
          StudyCourse::FromJournal(std::move(journaled), clock.Now());
      if (!course.ok()) {
        // One that another version has written; the other studies need not wait for it.
        spdlog::error(
            "study set aside study={} reason=\"{}\" advice=\"run the version that created it, or "
            "create it anew under another name\"",
            name, std::string(course.status().message()));
        state->set_aside.insert(name);
        continue;
      }
      ISOSCAN_FAULT_POINT("open.before_tidying");
      // A server that was killed between closing a round and tidying up left files behind.
      state->RemoveUploads(*course, course->open() ? course->round : 0);
      if (course->open()) {
        // Sites would ask for it in vain: the coordinator is to know before they do.
        const absl::Status intact = state->models.Check(course->models.back().digest);
        if (!intact.ok()) {
          spdlog::error(
              "model damaged study={} round={} reason=\"{}\" action=\"put the file back from a "
              "backup; sites wait for it\"",
              name, course->models.back().round, std::string(intact.message()));
        }
      }
      spdlog::info("study read study={} round={} sites={}", name, course->round,
                   course->participants.size());
      state->studies.emplace(name, *std::move(course));
    }
    std::sort(contributions.begin(), contributions.end());
    for (const auto& [time, study, site] : contributions) {
      const auto found = state->studies.find(study);
      if (found == state->studies.end()) continue;
      found->second.participants.at(site).served = ++state->served;
    }
  }
  return std::unique_ptr<Coordinator>(new Coordinator(std::move(state)));
}

void Coordinator::Observe(std::function<void()> changed) {
  absl::MutexLock lock(&state_->mutex);
  state_->observers.push_back(std::move(changed));
}

// --- State ---------------------------------------------------------------------------------------

absl::StatusOr<StudyCourse*> Coordinator::State::Find(const std::string& study) {
  const auto found = studies.find(study);
  if (found == studies.end()) {
    return absl::NotFoundError(fmt::format("there is no study {}", study));
  }
  return &found->second;
}

absl::StatusOr<StudyCourse*> Coordinator::State::FindFor(const std::string& site,
                                                         const std::string& study) {
  ASSIGN_OR_RETURN(StudyCourse* const course, Find(study));
  if (course->Active(site) == nullptr) {
    return absl::FailedPreconditionError(
        fmt::format("{} takes no part in {}: approve it first (isoscan-client study approve {})",
                    site, study, study));
  }
  return course;
}

void Coordinator::State::Announce() {
  std::vector<std::function<void()>> to_call;
  {
    absl::MutexLock lock(&mutex);
    to_call = observers;
  }
  for (const std::function<void()>& changed : to_call) changed();
}

absl::StatusOr<GlobalModelRecord> Coordinator::State::MakeInitialModel(const Study& study) const {
  ASSIGN_OR_RETURN(const NamedTensors weights, models.StartingWeights(study));
  const std::filesystem::path draft = models.DraftOf(study.name);
  RETURN_IF_ERROR(WriteSafetensors(draft, weights, WeightsMetadataOf(study, /*round=*/0)));
  return models.Keep(draft, /*round=*/0);
}

void Coordinator::State::RemoveUploads(const StudyCourse& course, int open_round) const {
  for (const auto& [site, participant] : course.participants) {
    uploads.RemoveOtherRounds(site, course.study.name, open_round);
  }
}

absl::StatusOr<StudyStatus> Coordinator::State::MoveTo(const std::string& study, StudyPhase phase,
                                                       const std::string& verb) {
  StudyStatus status;
  {
    absl::MutexLock lock(&mutex);
    ASSIGN_OR_RETURN(StudyCourse* const course, Find(study));
    if (!MayFollow(course->phase, phase) ||
        (phase == StudyPhase::kRunning && course->phase != StudyPhase::kPaused)) {
      return absl::FailedPreconditionError(
          fmt::format("cannot {} {}: it {}", verb, study,
                      course->phase == StudyPhase::kCreated    ? "has not been started"
                      : course->phase == StudyPhase::kRunning  ? "is running"
                      : course->phase == StudyPhase::kPaused   ? "is paused already"
                      : course->phase == StudyPhase::kFinished ? "has finished"
                                                               : "has been stopped"));
    }
    const Time now = clock.Now();
    RETURN_IF_ERROR(journal.SetPhase(study, phase, now));
    course->phase = phase;
    course->phase_since = now;
    if (phase == StudyPhase::kRunning) course->RestartClocks(now);
    if (phase == StudyPhase::kStopped) RemoveUploads(*course, /*open_round=*/0);
    spdlog::info("study {} study={} round={}", verb, study, course->round);
    status = StatusOf(*course);
  }
  Announce();
  return status;
}

// --- The coordinator's (operator's) side
// -----------------------------------------------------------

absl::StatusOr<StudyStatus> Coordinator::CreateStudy(const std::string& toml) {
  ASSIGN_OR_RETURN(Study study, ParseStudy(toml, "study.toml"));
  absl::MutexLock creating(&state_->creating);
  {
    absl::MutexLock lock(&state_->mutex);
    const auto found = state_->studies.find(study.name);
    if (found != state_->studies.end()) {
      if (found->second.study.digest == study.digest ||
          found->second.draft_digest == study.digest) {
        return state_->StatusOf(found->second);
      }
      return absl::AlreadyExistsError(fmt::format(
          "there is another study {} (digest {}, yours has {}): give yours another name",
          study.name, found->second.study.digest.substr(0, 12), study.digest.substr(0, 12)));
    }
    if (state_->set_aside.contains(study.name)) {
      return absl::AlreadyExistsError(fmt::format(
          "study {} of another version is set aside under this name (the server's log says why): "
          "give yours another name",
          study.name));
    }
  }

  // Of a draft, which has no network, a file without a tensor.
  ASSIGN_OR_RETURN(const GlobalModelRecord initial, state_->MakeInitialModel(study));
  StudyStatus status;
  {
    absl::MutexLock lock(&state_->mutex);
    const Time now = state_->clock.Now();
    RETURN_IF_ERROR(state_->journal.CreateStudy(study, initial, now));
    JournaledStudy journaled;
    journaled.name = study.name;
    journaled.toml = toml;
    journaled.created = journaled.phase_since = now;
    journaled.models = {initial};
    ASSIGN_OR_RETURN(StudyCourse course, StudyCourse::FromJournal(std::move(journaled), now));
    spdlog::info("study created study={} digest={} model_bytes={}", study.name, study.digest,
                 initial.bytes);
    status = state_->StatusOf(course);
    state_->studies.emplace(study.name, std::move(course));
  }
  state_->Announce();
  return status;
}

absl::StatusOr<StudyStatus> Coordinator::StartStudy(const std::string& study) {
  StudyStatus status;
  {
    absl::MutexLock lock(&state_->mutex);
    ASSIGN_OR_RETURN(StudyCourse* const course, state_->Find(study));
    if (course->phase != StudyPhase::kCreated) {
      return absl::FailedPreconditionError(
          course->phase == StudyPhase::kPaused
              ? fmt::format("{} is paused: resume it", study)
              : fmt::format("{} was started before: {}", study, course->PhaseWords()));
    }
    const std::string missing = course->MissingApprovals();
    if (!missing.empty()) {
      return absl::FailedPreconditionError(
          fmt::format("{} cannot start yet, it needs {} (isoscan-client study approve {})", study,
                      missing, study));
    }
    RETURN_IF_ERROR(CheckPlanned(course->study));
    ASSIGN_OR_RETURN(const std::vector<double> standard, StandardOf(*course));
    const Time now = state_->clock.Now();
    std::set<std::string> asked = course->SitesAskedBy(1);
    RETURN_IF_ERROR(state_->journal.StartStudy(study, standard, asked, now));
    if (!standard.empty()) course->study.harmonization.standard = standard;
    for (auto& [site, participant] : course->participants) {
      participant.at_start = !participant.cohort.withdrawn;
    }
    course->phase = StudyPhase::kRunning;
    course->phase_since = now;
    course->EnterRound(1, std::move(asked), now);
    course->RestartClocks(now);
    spdlog::info("study started study={} sites={}", study, course->participants.size());
    if (!standard.empty()) {
      spdlog::info("standard fixed study={} standard={}", study, fmt::join(standard, ","));
    }
    status = state_->StatusOf(*course);
  }
  state_->Announce();
  return status;
}

absl::StatusOr<StudyStatus> Coordinator::PauseStudy(const std::string& study) {
  return state_->MoveTo(study, StudyPhase::kPaused, "pause");
}

absl::StatusOr<StudyStatus> Coordinator::ResumeStudy(const std::string& study) {
  return state_->MoveTo(study, StudyPhase::kRunning, "resume");
}

absl::StatusOr<StudyStatus> Coordinator::StopStudy(const std::string& study) {
  return state_->MoveTo(study, StudyPhase::kStopped, "stop");
}

absl::StatusOr<StudyStatus> Coordinator::Status(const std::string& study) const {
  absl::MutexLock lock(&state_->mutex);
  ASSIGN_OR_RETURN(const StudyCourse* const course, state_->Find(study));
  return state_->StatusOf(*course);
}

std::vector<StudyStatus> Coordinator::Studies() const {
  absl::MutexLock lock(&state_->mutex);
  std::vector<StudyStatus> statuses;
  for (const auto& [name, course] : state_->studies) statuses.push_back(state_->StatusOf(course));
  return statuses;
}

absl::StatusOr<StudyRecord> Coordinator::Record(const std::string& study) const {
  StudyRecord record;
  // Under the lock, so that rounds and scores are of one moment.
  absl::MutexLock lock(&state_->mutex);
  ASSIGN_OR_RETURN(const StudyCourse* const course, state_->Find(study));
  record.study = course->study;
  record.finished = course->phase == StudyPhase::kFinished;
  record.created = course->created;
  if (IsOver(course->phase)) record.ended = course->phase_since;
  record.model_bytes = course->models.front().bytes;
  record.initial_model_digest = course->models.front().digest;
  for (const auto& [site, participant] : course->participants) {
    record.sites.push_back(participant.cohort);
  }
  ASSIGN_OR_RETURN(record.rounds, state_->journal.ClosedRounds(study));
  for (RoundRecord& round : record.rounds) {
    for (ParticipationRecord& part : round.sites) part.declared = course->Declares(part.site);
  }
  ASSIGN_OR_RETURN(record.scores, state_->journal.Scores(study));
  record.software_version = kVersion;
  return record;
}

absl::StatusOr<std::vector<GlobalModelRecord>> Coordinator::Models(const std::string& study) const {
  absl::MutexLock lock(&state_->mutex);
  ASSIGN_OR_RETURN(const StudyCourse* const course, state_->Find(study));
  return course->models;
}

absl::StatusOr<std::filesystem::path> Coordinator::ModelOfRound(const std::string& study,
                                                                int round) const {
  absl::MutexLock lock(&state_->mutex);
  ASSIGN_OR_RETURN(const StudyCourse* const course, state_->Find(study));
  if (round < 0 || static_cast<std::size_t>(round) >= course->models.size()) {
    return absl::NotFoundError(fmt::format("{} has no model of round {}: there are 0 to {}", study,
                                           round, course->models.size() - 1));
  }
  return state_->models.PathOf(course->models[static_cast<std::size_t>(round)].digest);
}

absl::StatusOr<BestModel> Coordinator::Best(const std::string& study) const {
  ASSIGN_OR_RETURN(const StudyRecord record, Record(study));
  GlobalModelScores scores;
  AddScores(record.scores, record.study.labels.size(), scores);
  BestModel best{.model = {}, .rule = record.study.rounds.best_by, .score = 0, .ranking = {}};
  best.ranking = RankModels(best.rule, scores, NewestScoredModel(record));
  const JudgedModel* const judged = best.ranking.best();
  if (judged == nullptr) {
    return absl::FailedPreconditionError(fmt::format(
        "no model of {} has been scored yet: the scores of a round's model come with the next "
        "round",
        study));
  }
  best.score = judged->score;
  ASSIGN_OR_RETURN(const std::vector<GlobalModelRecord> models, Models(study));
  best.model = models.at(static_cast<std::size_t>(judged->round));
  return best;
}

}  // namespace isoscan
