// What sites ask of the coordinator: approval, assignments, uploads, submissions.

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <system_error>
#include <tuple>

#include "common/process/fault_point.h"
#include "common/status/printable.h"
#include "common/status/status_macros.h"
#include "common/weights/sha256.h"
#include "server/aggregation/federated_average.h"
#include "server/aggregation/update_distances.h"
#include "server/rounds/coordinator.h"
#include "server/rounds/coordinator_state.h"
#include "server/rounds/submission_rules.h"

namespace isoscan {
namespace {

// What a site's file may be larger than the server's own: its header may say more.
constexpr std::int64_t kHeaderAllowanceBytes = 64 * 1024;
constexpr std::size_t kMaximumActivityBytes = 64;

absl::Status WrongRound(const StudyCourse& course, int round) {
  return absl::FailedPreconditionError(
      fmt::format("round {} is not open: {}", round, course.PhaseWords()));
}

// OK when work of this site for `round` is wanted.
absl::Status CheckAsked(const StudyCourse& course, const std::string& site, int round) {
  if (!course.open() || round != course.round) return WrongRound(course, round);
  if (course.Asks(site)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      fmt::format("round {} of {} asks other sites than {}", round, course.study.name, site));
}

// OK when the site's update of `round` may be taken now.
absl::Status CheckOpen(const StudyCourse& course, const std::string& site, int round) {
  if (course.final_scores()) return WrongRound(course, round);
  return CheckAsked(course, site, round);
}

// OK unless the mean is being made of another update of this site.
absl::Status CheckReplaceable(const StudyCourse& course, const std::string& site) {
  if (!course.averaging.contains(site)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      fmt::format("round {} of {} is being closed with the update that {} handed in before",
                  course.round, course.study.name, site));
}

// What a site is told of weights that may not count. It is blamed for what it sent, never for what
// the server's disk has made of that: then it is asked for the same weights again.
absl::Status WhoseFault(const std::string& site, const std::string& digest,
                        const std::filesystem::path& weights, const absl::Status& screened) {
  const absl::StatusOr<std::string> here = Sha256OfFile(weights);
  if (here.ok() && *here == digest) {
    return absl::InvalidArgumentError(absl::IsInvalidArgument(screened)
                                          ? std::string(screened.message())
                                          : fmt::format("{} sent weights that are damaged: {}",
                                                        site, std::string(screened.message())));
  }
  if (absl::IsResourceExhausted(here.status())) return here.status();
  std::error_code error;
  std::filesystem::remove(weights, error);
  if (error) {
    return absl::UnavailableError(fmt::format("the server cannot use the weights {} of {}: {}",
                                              digest, site, error.message()));
  }
  return absl::DataLossError(fmt::format(
      "the weights {} of {} were damaged on the server's disk ({}): upload them again", digest,
      site, here.ok() ? "their SHA-256 is " + *here : std::string(here.status().message())));
}

JournaledUpdate WithoutScores(const std::string& site, const SiteUpdate& update) {
  return {.site = site,
          .weights_digest = update.weights_digest,
          .training_cases = update.training_cases,
          .steps = update.steps,
          .mean_loss = update.mean_loss,
          .seconds_training = update.seconds_training,
          .seconds_scoring = update.seconds_scoring,
          .loss_before = update.loss_before};
}

}  // namespace

std::vector<StudyStatus> Coordinator::StudiesOf(const std::string& site) const {
  absl::MutexLock lock(&state_->mutex);
  std::vector<StudyStatus> statuses;
  for (const auto& [name, course] : state_->studies) {
    if (!course.admits(site)) continue;
    if (IsOver(course.phase) && !course.participants.contains(site)) continue;
    statuses.push_back(
        course.StatusFor(site, state_->connected.contains(site), state_->clock.Now()));
  }
  return statuses;
}

absl::Status Coordinator::Approve(const std::string& site, const std::string& study,
                                  const std::string& digest, const SiteRecord& cohort) {
  if (!IsName(site)) {
    return absl::InvalidArgumentError(fmt::format("'{}' is no site name", site));
  }
  SiteRecord declared = cohort;
  declared.name = site;
  declared.withdrawn = false;
  {
    absl::MutexLock lock(&state_->mutex);
    ASSIGN_OR_RETURN(StudyCourse* const course, state_->Find(study));
    if (!course->admits(site)) {
      return absl::FailedPreconditionError(fmt::format(
          "{} declares its sites, and {} is none of them: ask the coordinator", study, site));
    }
    if (!course->draft_digest.empty() && digest == course->draft_digest) {
      return absl::FailedPreconditionError(fmt::format(
          "{} has been planned since its draft was offered: read the plan (isoscan-client study "
          "show {}) and approve it",
          study, study));
    }
    if (digest != course->study.digest) {
      return absl::FailedPreconditionError(fmt::format(
          "{} approved {} with digest {}, the server's has {}: read the study again and approve it",
          site, study, digest.substr(0, 12), course->study.digest.substr(0, 12)));
    }
    RETURN_IF_ERROR(CheckCohort(declared, course->study));
    if (IsOver(course->phase)) {
      return absl::FailedPreconditionError(
          fmt::format("it is too late to approve: {}", course->PhaseWords()));
    }
    // What a site declares caps its weight and fixes its held-out cases, so it stays as it was.
    if (const Participant* known = course->Active(site);
        known != nullptr && course->phase != StudyPhase::kCreated) {
      if (known->cohort.training_cases == declared.training_cases &&
          known->cohort.held_out_cases == declared.held_out_cases) {
        return absl::OkStatus();
      }
      return absl::FailedPreconditionError(fmt::format(
          "{} takes part with {} training and {} held-out cases and cannot declare {} and {} while "
          "{} is running: withdraw and approve again",
          site, known->cohort.training_cases, known->cohort.held_out_cases, declared.training_cases,
          declared.held_out_cases, study));
    }
    const Time now = state_->clock.Now();
    const AskedSites also_asked{.round = course->round, .sites = course->AlsoAsked(site, "")};
    RETURN_IF_ERROR(JournalTrouble(state_->journal.Approve(study, declared, also_asked, now)));
    course->asked.insert(also_asked.sites.begin(), also_asked.sites.end());
    Participant& participant = course->participants[site];
    participant.cohort = std::move(declared);
    participant.Sign(now);
    spdlog::info("study approved study={} site={} training_cases={} held_out_cases={}", study, site,
                 participant.cohort.training_cases, participant.cohort.held_out_cases);
  }
  state_->Announce();
  return absl::OkStatus();
}

absl::Status Coordinator::Withdraw(const std::string& site, const std::string& study) {
  {
    absl::MutexLock lock(&state_->mutex);
    ASSIGN_OR_RETURN(StudyCourse* const course, state_->Find(study));
    if (course->Active(site) == nullptr) return absl::OkStatus();
    if (IsOver(course->phase)) {
      return absl::FailedPreconditionError(
          fmt::format("it is too late to withdraw: {}, and what {} contributed stays",
                      course->PhaseWords(), site));
    }
    const AskedSites also_asked{.round = course->round, .sites = course->AlsoAsked("", site)};
    RETURN_IF_ERROR(JournalTrouble(state_->journal.Withdraw(study, site, also_asked)));
    for (const std::string& other : also_asked.sites) {
      course->asked.insert(other);
      course->Active(other)->Sign(state_->clock.Now());
    }
    course->participants[site].cohort.withdrawn = true;
    course->participants[site].cohort.fingerprint.reset();
    course->updates.erase(site);
    course->scored.erase(site);
    course->scored_local_only.erase(site);
    state_->uploads.RemoveOtherRounds(site, study, /*open_round=*/0);
    spdlog::info("site withdrew study={} site={} round={}", study, site, course->round);
  }
  state_->Announce();
  return absl::OkStatus();
}

std::vector<Assignment> Coordinator::AssignmentsOf(const std::string& site) const {
  absl::MutexLock lock(&state_->mutex);
  struct Turn {
    bool over = false;
    std::int64_t priority = 0;
    std::int64_t served = 0;
    std::vector<Assignment> asked;
  };
  std::vector<Turn> turns;
  for (const auto& [name, course] : state_->studies) {
    std::vector<Assignment> asked = course.AssignmentsOf(site);
    if (asked.empty()) continue;
    turns.push_back({.over = IsOver(course.phase),
                     .priority = course.study.rounds.priority,
                     .served = course.Active(site)->served,
                     .asked = std::move(asked)});
  }
  std::stable_sort(turns.begin(), turns.end(), [](const Turn& a, const Turn& b) {
    return std::tuple(!a.over, -a.priority, a.served) < std::tuple(!b.over, -b.priority, b.served);
  });
  std::vector<Assignment> assignments;
  for (const Turn& turn : turns) {
    assignments.insert(assignments.end(), turn.asked.begin(), turn.asked.end());
  }
  return assignments;
}

void Coordinator::State::SignOfLife(const std::string& site) {
  for (auto& [name, course] : studies) {
    if (Participant* participant = course.Active(site)) participant->Sign(clock.Now());
  }
}

void Coordinator::SetConnected(const std::string& site, bool connected) {
  {
    absl::MutexLock lock(&state_->mutex);
    if (connected) {
      state_->connected.insert(site);
    } else {
      state_->connected.erase(site);
    }
    state_->SignOfLife(site);
  }
  state_->Announce();
}

absl::Status Coordinator::ReportProgress(const std::string& site, const std::string& study,
                                         int round, const std::string& activity, std::int64_t step,
                                         std::int64_t steps) {
  if (activity.size() > kMaximumActivityBytes) {
    return absl::InvalidArgumentError(fmt::format("{} sent an activity of {} bytes, at most {}",
                                                  site, activity.size(), kMaximumActivityBytes));
  }
  // It is shown on operators' terminals.
  if (Printable(activity) != activity) {
    return absl::InvalidArgumentError(
        fmt::format("{} sent an activity that cannot be printed: '{}'", site, Printable(activity)));
  }
  {
    absl::MutexLock lock(&state_->mutex);
    ASSIGN_OR_RETURN(StudyCourse* const course, state_->FindFor(site, study));
    RETURN_IF_ERROR(CheckAsked(*course, site, round));
    Participant& participant = *course->Active(site);
    // The same report again shows that the site is connected, not that its work goes on.
    if (participant.activity == activity && participant.step == step &&
        participant.steps == steps) {
      return absl::OkStatus();
    }
    state_->SignOfLife(site);
    participant.activity = activity;
    participant.step = step;
    participant.steps = steps;
  }
  state_->Announce();
  return absl::OkStatus();
}

void Coordinator::NoteTransfer(const std::string& site, const std::string& study) {
  absl::MutexLock lock(&state_->mutex);
  // Nobody is told: it can only move a deadline further away.
  const auto found = state_->studies.find(study);
  if (found == state_->studies.end() || found->second.Active(site) == nullptr) return;
  state_->SignOfLife(site);
}

absl::StatusOr<std::filesystem::path> Coordinator::Model(const std::string& site,
                                                         const std::string& study,
                                                         const std::string& digest) const {
  absl::MutexLock lock(&state_->mutex);
  const auto found = state_->studies.find(study);
  if (found != state_->studies.end() && found->second.Active(site) != nullptr) {
    for (const GlobalModelRecord& model : found->second.models) {
      if (model.digest == digest) return state_->models.PathOf(digest);
    }
  }
  return absl::NotFoundError(
      fmt::format("there is no model {} in a study {} of {}", digest, study, site));
}

absl::StatusOr<std::filesystem::path> Coordinator::UploadPath(const std::string& site,
                                                              const std::string& study, int round,
                                                              const std::string& digest,
                                                              std::int64_t bytes) {
  if (!IsSha256(digest)) {
    return absl::InvalidArgumentError(
        fmt::format("{} announced weights with the digest '{}': 64 hexadecimal digits are needed",
                    site, digest.substr(0, 64)));
  }
  {
    absl::MutexLock lock(&state_->mutex);
    ASSIGN_OR_RETURN(StudyCourse* const course, state_->FindFor(site, study));
    RETURN_IF_ERROR(CheckOpen(*course, site, round));
    const std::int64_t limit = course->models.front().bytes + kHeaderAllowanceBytes;
    if (bytes < 1 || bytes > limit) {
      return absl::InvalidArgumentError(
          fmt::format("{} announced {} bytes of weights, a model of {} has at most {}", site, bytes,
                      study, limit));
    }
    std::set<std::string> keep = {digest};
    if (const auto taken = course->updates.find(site); taken != course->updates.end()) {
      keep.insert(taken->second.weights_digest);
    }
    for (const auto& [owner, used] : course->screening) {
      if (owner == site) keep.insert(used);
    }
    RETURN_IF_ERROR(state_->uploads.Prepare(site, study, round, keep));
    course->Active(site)->Sign(state_->clock.Now());
  }
  ISOSCAN_FAULT_POINT("upload.folder_made");
  return state_->uploads.PathOf(site, study, round, digest);
}

absl::Status Coordinator::SubmitUpdate(const std::string& site, const SiteUpdate& update) {
  if (!IsSha256(update.weights_digest)) {
    return absl::InvalidArgumentError(fmt::format("{} handed in weights with the digest '{}'", site,
                                                  update.weights_digest.substr(0, 64)));
  }
  std::filesystem::path weights;
  std::string global_model;  // Its digest.
  Study study;
  TensorShapes shapes;
  {
    absl::MutexLock lock(&state_->mutex);
    ASSIGN_OR_RETURN(StudyCourse* const course, state_->FindFor(site, update.study));
    const absl::Status open = CheckOpen(*course, site, update.round);
    if (!open.ok()) {
      // The site may have missed the answer to an update that was taken.
      const absl::StatusOr<std::optional<std::string>> taken =
          state_->journal.TakenWeights(update.study, update.round, site);
      RETURN_IF_ERROR(JournalTrouble(taken.status()));
      return *taken == update.weights_digest ? absl::OkStatus() : open;
    }
    if (const auto taken = course->updates.find(site);
        taken != course->updates.end() && taken->second.weights_digest == update.weights_digest &&
        course->averaging.contains(site)) {
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(CheckReplaceable(*course, site));
    weights = state_->uploads.PathOf(site, update.study, update.round, update.weights_digest);
    std::error_code error;
    if (!std::filesystem::exists(weights, error)) {
      return absl::DataLossError(
          fmt::format("the weights {} of {} are not here for round {} of {}: upload them",
                      update.weights_digest, site, update.round, update.study));
    }
    study = course->study;
    shapes = course->shapes;
    global_model = course->models.back().digest;
    course->screening.emplace(site, update.weights_digest);
    course->Active(site)->Sign(state_->clock.Now());
  }

  ISOSCAN_FAULT_POINT("submit.before_screening");
  absl::Status screened = ScreenUpdate(site, weights, shapes);
  if (screened.ok()) screened = CheckWeightsMetadata(study, site, weights);
  ISOSCAN_FAULT_POINT("submit.screened");
  // What lies in the folder lasts as long as the folder. Mostly it was synced with the file.
  const absl::Status lasting = state_->uploads.Sync(site, update.study, update.round);
  if (!screened.ok()) {
    screened = WhoseFault(site, update.weights_digest, weights, screened);
  } else if (const double limit = study.rounds.strategy.maximum_update_norm; limit > 0) {
    // Of a model that has decayed, every update would be far away.
    const absl::Status model = state_->models.Check(global_model);
    screened = model.ok()
                   ? CheckUpdateNorm(site, weights, state_->models.PathOf(global_model), limit)
                   : absl::UnavailableError(model.message());
    if (absl::IsInvalidArgument(screened)) {
      screened = WhoseFault(site, update.weights_digest, weights, screened);
    }
  }

  {
    absl::MutexLock lock(&state_->mutex);
    // A study is never removed, so it is still there.
    StudyCourse& course = state_->studies.at(update.study);
    course.screening.erase(course.screening.find({site, update.weights_digest}));
    if (!screened.ok()) {
      spdlog::warn("update refused study={} site={} round={} reason={}", update.study, site,
                   update.round, std::string(screened.message()));
      return screened;
    }
    RETURN_IF_ERROR(lasting);
    // Meanwhile the round may have closed, or the site withdrawn.
    RETURN_IF_ERROR(state_->FindFor(site, update.study).status());
    RETURN_IF_ERROR(CheckOpen(course, site, update.round));
    RETURN_IF_ERROR(CheckReplaceable(course, site));
    Participant& participant = *course.Active(site);
    RETURN_IF_ERROR(CheckUpdate(course.study, participant.cohort, update));
    const Time now = state_->clock.Now();
    RETURN_IF_ERROR(JournalTrouble(state_->journal.TakeUpdate(site, update, now)));
    course.updates[site] = WithoutScores(site, update);
    participant.served = ++state_->served;
    state_->SignOfLife(site);
    spdlog::info("update taken study={} site={} round={} cases={} loss={:.4f}", update.study, site,
                 update.round, update.training_cases, update.mean_loss);
  }
  state_->Announce();
  return absl::OkStatus();
}

absl::Status Coordinator::SubmitScores(const std::string& site, const std::string& study,
                                       Assignment::Kind kind,
                                       const std::vector<CaseScoreRecord>& scores,
                                       const std::optional<InvarianceCertificate>& certificate,
                                       const std::vector<CaseScoreRecord>& personal) {
  const bool local_only = kind == Assignment::Kind::kLocalOnly;
  if (!local_only && kind != Assignment::Kind::kScore) {
    return absl::InvalidArgumentError(
        fmt::format("{} sent scores for an assignment that asks for none", site));
  }
  {
    absl::MutexLock lock(&state_->mutex);
    ASSIGN_OR_RETURN(StudyCourse* const course, state_->FindFor(site, study));
    std::set<std::string>& scored = local_only ? course->scored_local_only : course->scored;
    if (IsOver(course->phase) && scored.contains(site)) return absl::OkStatus();
    if (!course->open() || !course->final_scores()) {
      return absl::FailedPreconditionError(
          fmt::format("final scores are not asked for now: {}", course->PhaseWords()));
    }
    if (local_only && !course->study.evaluation.local_only) {
      return absl::FailedPreconditionError(
          fmt::format("{} does not compare with local-only models", study));
    }
    Participant& participant = *course->Active(site);
    if (scores.empty()) {
      return absl::InvalidArgumentError(
          fmt::format("{} sent no scores; it declared {} held-out cases", site,
                      participant.cohort.held_out_cases));
    }
    RETURN_IF_ERROR(CheckScores(course->study, participant.cohort, scores));
    if (certificate.has_value()) {
      if (local_only || !course->study.evaluation.certificate) {
        return absl::InvalidArgumentError(
            fmt::format("{} sent an invariance certificate that {} does not ask for", site, study));
      }
      RETURN_IF_ERROR(CheckCertificate(participant.cohort, *certificate));
    }
    using Model = ModelScoresRecord::Model;
    if (!personal.empty()) {
      if (local_only || course->study.training.personal == 0) {
        return absl::InvalidArgumentError(
            fmt::format("{} sent scores of a personal model that {} does not have", site, study));
      }
      RETURN_IF_ERROR(CheckScores(course->study, participant.cohort, personal));
      // The final model's come last: with them the site is done.
      RETURN_IF_ERROR(JournalTrouble(state_->journal.TakeScores(
          study, {.model = Model::kPersonal, .after_round = 0, .site = site, .cases = personal})));
    }
    RETURN_IF_ERROR(JournalTrouble(
        state_->journal.TakeScores(study, {.model = local_only ? Model::kLocalOnly : Model::kGlobal,
                                           .after_round = local_only ? 0 : course->last_round(),
                                           .site = site,
                                           .cases = scores,
                                           .certificate = certificate})));
    scored.insert(site);
    participant.served = ++state_->served;
    state_->SignOfLife(site);
    spdlog::info("scores taken study={} site={} model={}", study, site,
                 local_only ? "local-only" : "final");
  }
  state_->Announce();
  return absl::OkStatus();
}

}  // namespace isoscan
