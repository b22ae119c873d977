// What happens by itself: rounds close, studies end.

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <system_error>

#include "common/process/fault_point.h"
#include "common/status/status_macros.h"
#include "common/study/schedule.h"
#include "common/weights/sha256.h"
#include "server/aggregation/federated_average.h"
#include "server/aggregation/round_aggregate.h"
#include "server/rounds/coordinator.h"
#include "server/rounds/coordinator_state.h"
#include "server/rounds/participation.h"

namespace isoscan {
namespace {

// Of each site that takes part, by the training cases that it declared; capped as the mean's
// weights.
std::map<std::string, double> SharesOf(const RoundsPlan& plan, const RoundSituation& situation) {
  std::vector<std::string> sites;
  std::vector<std::int64_t> cases;
  for (const Standing& site : situation.sites) {
    if (!site.takes_part()) continue;
    sites.push_back(site.site);
    cases.push_back(site.training_cases);
  }
  const std::vector<double> weights = SiteWeights(cases, plan.maximum_site_weight);
  std::map<std::string, double> shares;
  for (std::size_t i = 0; i < sites.size(); ++i) shares[sites[i]] = weights[i];
  return shares;
}

// The sites' parts in what came out, in the place of what training cases would give them.
std::vector<ParticipationRecord> WithParts(std::vector<ParticipationRecord> participation,
                                           const std::vector<SitePart>& parts) {
  for (const SitePart& part : parts) {
    const auto site = std::find_if(
        participation.begin(), participation.end(),
        [&part](const ParticipationRecord& record) { return record.site == part.site; });
    site->weight = part.weight;
    if (part.left_out.empty()) continue;
    site->outcome = ParticipationRecord::Outcome::kLeftOut;
    site->reason = fmt::format("not chosen: {}", part.left_out);
  }
  return participation;
}

// How long after a failure (a full disk) the next attempt waits.
constexpr std::chrono::seconds kRetryAfter(5);

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

/// One round on its way to be closed: a copy of what it is made of, so that it is aggregated while
/// sites go on talking to the coordinator.
struct Coordinator::State::Closing {
  std::string study;
  int round = 0;
  RoundsPlan plan;
  TrainingPlan training;
  std::string global_model;              ///< Digest of the one that the updates were trained from.
  ServerState state;                     ///< Of the round before.
  std::map<std::string, double> shares;  ///< Of every site that takes part, by training cases.
  WeightsMetadata metadata;              ///< Of the model that comes out.
  std::map<std::string, JournaledUpdate> updates;
  std::vector<ParticipationRecord> participation;
};

struct Coordinator::State::Aggregated {
  GlobalModelRecord model;
  ServerState state;
  std::vector<ParticipationRecord> participation;
};

std::filesystem::path Coordinator::State::WeightsOf(const Closing& closing,
                                                    const std::string& site) const {
  return uploads.PathOf(site, closing.study, closing.round,
                        closing.updates.at(site).weights_digest);
}

absl::StatusOr<Coordinator::State::Aggregated> Coordinator::State::Aggregate(
    const Closing& closing) const {
  RoundInput input{.round = closing.round,
                   .contributions = {},
                   .shares = closing.shares,
                   .model = models.PathOf(closing.global_model),
                   .model_digest = closing.global_model,
                   .state = {},
                   .state_digest = closing.state.digest,
                   .site_weights = closing.state.site_weights};
  // Always what lies on the disk, never what memory still holds: a restart cannot show.
  if (!closing.state.digest.empty()) input.state = models.StatePathOf(closing.state.digest);
  for (const ParticipationRecord& site : closing.participation) {
    const auto update = closing.updates.find(site.site);
    if (update == closing.updates.end()) continue;
    // Every site takes as many steps in each round.
    const std::int64_t steps = update->second.steps;
    input.contributions.push_back({.update = {.site = site.site,
                                              .weights = WeightsOf(closing, site.site),
                                              .weight = site.weight,
                                              .digest = update->second.weights_digest},
                                   .effective_steps = EffectiveSteps(
                                       closing.training, {.first = (closing.round - 1) * steps,
                                                          .count = steps,
                                                          .total = closing.plan.rounds * steps}),
                                   .loss_before = update->second.loss_before.value_or(0)});
  }
  const RoundOutput output{.model = models.DraftOf(closing.study),
                           .metadata = closing.metadata,
                           .state = models.StateDraftOf(closing.study)};
  ISOSCAN_FAULT_POINT("close.before_averaging");
  if (closing.plan.strategy.kind != StrategyPlan::Kind::kFedAvg) {
    // Of the others most read it, and some without looking at its sums.
    RETURN_IF_ERROR(models.Check(closing.global_model));
  }
  ASSIGN_OR_RETURN(RoundParts parts,
                   AggregateRound(closing.plan, closing.training, std::move(input), output));
  ISOSCAN_FAULT_POINT("close.drafts_written");
  Aggregated aggregated;
  if (HasState(closing.plan.strategy)) {
    ASSIGN_OR_RETURN(aggregated.state, models.KeepState(output.state));
  }
  aggregated.state.site_weights = std::move(parts.site_weights);
  ASSIGN_OR_RETURN(aggregated.model, models.Keep(output.model, closing.round));
  aggregated.participation = WithParts(closing.participation, parts.sites);
  return aggregated;
}

absl::StatusOr<bool> Coordinator::State::DropLostUpdates(const Closing& closing) {
  bool dropped = false;
  for (const auto& [site, update] : closing.updates) {
    const absl::StatusOr<std::string> digest = Sha256OfFile(WeightsOf(closing, site));
    // Bytes that the disk does not give back any more are lost like those that have changed.
    if (digest.ok() ? *digest == update.weights_digest
                    : absl::IsResourceExhausted(digest.status())) {
      continue;
    }
    absl::MutexLock lock(&mutex);
    StudyCourse& course = studies.at(closing.study);
    const auto current = course.updates.find(site);
    if (course.round != closing.round || current == course.updates.end() ||
        current->second != update) {
      continue;
    }
    RETURN_IF_ERROR(journal.DropUpdate(closing.study, closing.round, site));
    ISOSCAN_FAULT_POINT("close.update_dropped");
    course.updates.erase(current);
    std::error_code error;
    std::filesystem::remove(WeightsOf(closing, site), error);
    spdlog::error("staged update lost study={} site={} round={}: the site is asked again",
                  closing.study, site, closing.round);
    dropped = true;
  }
  return dropped;
}

absl::StatusOr<std::string> Coordinator::State::WhyTrainingEndsAfter(
    const StudyCourse& course, int round, GlobalModelScores& scores) const {
  const RoundsPlan& plan = course.study.rounds;
  if (plan.patience == 0 || round == course.rounds()) return "";
  // Of rounds before this one scores do not change any more; with its updates came those of the
  // model that it started from.
  scores = course.closed_scores;
  const int first = scores.empty() ? 0 : scores.rbegin()->first + 1;
  ASSIGN_OR_RETURN(const std::vector<ModelScoresRecord> news,
                   journal.GlobalScores(course.study.name, first));
  AddScores(news, course.study.labels.size(), scores);
  return WhyTrainingEnds(plan, RankModels(plan.best_by, scores, round - 1));
}

absl::StatusOr<bool> Coordinator::State::CloseRound(const Closing& closing) {
  const auto start = std::chrono::steady_clock::now();
  absl::StatusOr<Aggregated> aggregated = Aggregate(closing);
  if (!aggregated.ok()) {
    {
      absl::MutexLock lock(&mutex);
      studies.at(closing.study).averaging.clear();
    }
    // A staged file may have been damaged behind the server's back.
    ASSIGN_OR_RETURN(const bool dropped, DropLostUpdates(closing));
    if (dropped) return true;
    return aggregated.status();
  }

  ISOSCAN_FAULT_POINT("close.averaged");
  absl::MutexLock lock(&mutex);
  StudyCourse& course = studies.at(closing.study);
  course.averaging.clear();
  // Meanwhile an update may have been added or taken back, or the study paused: the rules decide
  // anew, and this aggregate is forgotten.
  if (course.phase != StudyPhase::kRunning || course.round != closing.round ||
      course.updates != closing.updates) {
    models.Remove(aggregated->model.digest);
    models.RemoveState(aggregated->state.digest);
    return true;
  }
  const Time now = clock.Now();
  GlobalModelScores scores;
  ASSIGN_OR_RETURN(std::string ends_training, WhyTrainingEndsAfter(course, closing.round, scores));
  const RoundRecord closed{.round = closing.round,
                           .opened = course.round_opened,
                           .closed = now,
                           .model_digest = aggregated->model.digest,
                           .seconds_aggregating = SecondsSince(start),
                           .ends_training = std::move(ends_training),
                           .sites = std::move(aggregated->participation)};
  std::set<std::string> asked = course.SitesAskedBy(closing.round + 1);
  RETURN_IF_ERROR(journal.CloseRound(
      closing.study, {.record = closed, .model = aggregated->model, .state = aggregated->state},
      asked));
  spdlog::info("round closed study={} round={} updates={} seconds={:.3f} model={}", closing.study,
               closing.round, closing.updates.size(), closed.seconds_aggregating,
               aggregated->model.digest.substr(0, 12));
  course.models.push_back(aggregated->model);
  course.state = std::move(aggregated->state);
  course.closed_scores = std::move(scores);
  if (!closed.ends_training.empty()) {
    spdlog::info("training ends early study={} round={} of={} reason=\"{}\"", closing.study,
                 closing.round, course.rounds(), closed.ends_training);
    course.early_end = EarlyEnd{.round = closing.round, .reason = closed.ends_training};
  }
  course.EnterRound(closing.round + 1, std::move(asked), now);
  models.RemoveState(closing.state.digest);
  TidyLater(course, course.round);
  return true;
}

void Coordinator::State::TidyLater(const StudyCourse& course, int open_round) {
  Leftovers& of_study = leftovers[course.study.name];
  of_study.open_round = open_round;
  of_study.sites.clear();
  for (const auto& [site, participant] : course.participants) of_study.sites.push_back(site);
}

void Coordinator::State::Tidy(const std::string& study) {
  Leftovers of_study;
  {
    absl::MutexLock lock(&mutex);
    const auto found = leftovers.find(study);
    if (found == leftovers.end()) return;
    of_study = std::move(found->second);
    leftovers.erase(found);
  }
  ISOSCAN_FAULT_POINT("close.before_tidying");
  for (const std::string& site : of_study.sites) {
    uploads.RemoveOtherRounds(site, study, of_study.open_round);
  }
  ISOSCAN_FAULT_POINT("close.tidied");
}

absl::StatusOr<bool> Coordinator::State::AdvanceStudy(const std::string& study) {
  Closing closing;
  {
    absl::MutexLock lock(&mutex);
    StudyCourse& course = studies.at(study);
    if (course.phase != StudyPhase::kRunning) return false;
    const Time now = clock.Now();
    const bool noticed = course.NoticeTime(now);
    const RoundSituation situation = course.Situation(now);
    if (!IsDue(course.study.rounds, situation)) return noticed;
    if (course.final_scores()) {
      RETURN_IF_ERROR(journal.FinishStudy(study, now));
      models.RemoveState(course.state.digest);
      course.state = {};
      course.phase = StudyPhase::kFinished;
      course.phase_since = now;
      TidyLater(course, /*open_round=*/0);
      spdlog::info("study finished study={} scored={} of={}", study, course.scored.size(),
                   course.participants.size());
      return true;
    }
    closing = {.study = study,
               .round = course.round,
               .plan = course.study.rounds,
               .training = course.study.training,
               .global_model = course.models.back().digest,
               .state = course.state,
               .shares = SharesOf(course.study.rounds, situation),
               .metadata = WeightsMetadataOf(course.study, course.round),
               .updates = course.updates,
               .participation = ParticipationOf(course.study.rounds, situation, course.updates)};
    for (const auto& [site, update] : course.updates) course.averaging.insert(site);
  }
  return CloseRound(closing);
}

std::optional<std::string> Coordinator::State::TakeDueStudy() {
  absl::MutexLock lock(&mutex);
  const Time now = clock.Now();
  auto turn = studies.upper_bound(last_turn);
  for (std::size_t looked_at = 0; looked_at < studies.size(); ++looked_at, ++turn) {
    if (turn == studies.end()) turn = studies.begin();
    auto& [name, course] = *turn;
    const std::optional<Time> due = course.NextDeadline(now);
    if (!due.has_value() || *due > now) continue;
    course.advancing = true;
    last_turn = name;
    return name;
  }
  return std::nullopt;
}

absl::Status Coordinator::Advance() {
  absl::Status first_failure;
  while (const std::optional<std::string> study = state_->TakeDueStudy()) {
    const absl::StatusOr<bool> changed = state_->AdvanceStudy(*study);
    // At once: other studies, and the removal of what is left, may keep this thread for long.
    if (changed.ok() && *changed) state_->Announce();
    // Before the study's next round can be closed, of which nothing may go.
    state_->Tidy(*study);
    {
      absl::MutexLock lock(&state_->mutex);
      StudyCourse& course = state_->studies.at(*study);
      course.advancing = false;
      course.retry_at.reset();
      course.failure = std::string(changed.status().message());
      if (!changed.ok()) course.retry_at = state_->clock.Now() + kRetryAfter;
    }
    if (changed.ok()) continue;
    state_->Announce();
    // One study's failure does not hold up the others.
    first_failure.Update(changed.status());
    spdlog::error("round cannot go on study={} code={} reason=\"{}\" next_try_seconds={}", *study,
                  absl::StatusCodeToString(changed.status().code()),
                  std::string(changed.status().message()), kRetryAfter.count());
  }
  return first_failure;
}

std::optional<Time> Coordinator::NextDeadline() const {
  absl::MutexLock lock(&state_->mutex);
  std::optional<Time> next;
  for (const auto& [name, course] : state_->studies) {
    const std::optional<Time> time = course.NextDeadline(state_->clock.Now());
    if (time.has_value()) next = std::min(next.value_or(*time), *time);
  }
  return next;
}

}  // namespace isoscan
