#include "server/fairness/fairness_statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <numeric>

#include "absl/status/status.h"

#include "common/status/status_macros.h"

namespace isoscan {
namespace {

using Model = ModelScoresRecord::Model;

/// The scores that a site sent, each model once: the last one counts when a site repeats itself.
struct ScoresOfSite {
  std::map<int, const ModelScoresRecord*> by_round;
  const ModelScoresRecord* local_only = nullptr;
  const ModelScoresRecord* personal = nullptr;
};

absl::Status CheckLabels(const ModelScoresRecord& scores, std::size_t labels) {
  for (const CaseScoreRecord& scored : scores.cases) {
    if (scored.labels.size() == labels) continue;
    return absl::InvalidArgumentError(
        fmt::format("{} sent {} label scores for its case {}, the study has {} labels", scores.site,
                    scored.labels.size(), scored.case_index, labels));
  }
  return absl::OkStatus();
}

bool IsClosed(const RoundRecord& round) {
  return round.closed != Time{} || !round.model_digest.empty();
}

double SecondsOf(const RoundRecord& round) {
  if (round.closed <= round.opened) return 0;
  return std::chrono::duration<double>(round.closed - round.opened).count();
}

/// How many sites scored the model after each round; rounds without scores have no entry.
std::map<int, std::int64_t> SitesByScoredRound(
    const std::map<std::string, ScoresOfSite>& scores_of_sites) {
  std::map<int, std::int64_t> sites;
  for (const auto& [name, scores] : scores_of_sites) {
    for (const auto& [round, record] : scores.by_round) ++sites[round];
  }
  return sites;
}

std::optional<int> ScoredRound(const std::map<int, std::int64_t>& sites_by_round, bool finished) {
  for (auto round = sites_by_round.rbegin(); round != sites_by_round.rend(); ++round) {
    if (round->first == 0) return std::nullopt;
    // While a study runs, the scores of its newest model come in one by one: a model that half of
    // the sites have scored would compare other sites than the one before it.
    const auto previous = std::next(round);
    const bool complete = finished || previous == sites_by_round.rend() || previous->first == 0 ||
                          round->second >= previous->second;
    if (complete) return round->first;
  }
  return std::nullopt;
}

void AddParticipation(const std::vector<RoundRecord>& rounds, SiteStatistics& statistics) {
  for (const RoundRecord& round : rounds) {
    for (const ParticipationRecord& part : round.sites) {
      if (part.site != statistics.site.name ||
          part.outcome != ParticipationRecord::Outcome::kContributed) {
        continue;
      }
      ++statistics.contributed_rounds;
      TimeUse& time = statistics.time;
      time.training += part.seconds_training;
      time.scoring += part.seconds_scoring;
      time.aggregating += round.seconds_aggregating;
      time.waiting += std::max(0.0, SecondsOf(round) - part.seconds_training -
                                        part.seconds_scoring - round.seconds_aggregating);
    }
  }
}

void RankSites(StudyStatistics& study) {
  std::vector<double> means;
  double sum_over_cases = 0;
  for (std::size_t i = 0; i < study.sites.size(); ++i) {
    const std::optional<ModelStatistics>& after = study.sites[i].after;
    if (!after || after->dice.n == 0) continue;
    const auto score = [&study](std::size_t site) { return study.sites[site].after->dice.mean; };
    if (!study.best || score(i) > score(*study.best)) study.best = i;
    if (!study.worst || score(i) < score(*study.worst)) study.worst = i;
    study.cases += after->dice.n;
    sum_over_cases += after->dice.mean * static_cast<double>(after->dice.n);
    means.push_back(after->dice.mean);
  }
  if (means.empty()) return;
  study.gap =
      study.sites[*study.best].after->dice.mean - study.sites[*study.worst].after->dice.mean;
  study.mean_over_cases = sum_over_cases / static_cast<double>(study.cases);
  study.mean_over_sites = Describe(std::move(means)).mean;
}

}  // namespace

double Quantile(const std::vector<double>& sorted, double fraction) {
  if (sorted.empty()) return kNoScore;
  const double position = fraction * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  if (below + 1 >= sorted.size()) return sorted.back();
  return sorted[below] + (position - std::floor(position)) * (sorted[below + 1] - sorted[below]);
}

Distribution Describe(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  return {.n = static_cast<std::int64_t>(values.size()),
          .mean = std::accumulate(values.begin(), values.end(), 0.0) /
                  static_cast<double>(values.size()),
          .median = Quantile(values, 0.5),
          .lower_quartile = Quantile(values, 0.25),
          .upper_quartile = Quantile(values, 0.75),
          .lowest = values.front(),
          .highest = values.back()};
}

LabelOutcome OutcomeOf(const LabelScoreRecord& score) {
  const bool nothing_to_score = score.reference_voxels == 0 && score.predicted_voxels == 0;
  if (std::isnan(score.dice) && nothing_to_score) return LabelOutcome::kBothEmpty;
  if (!(score.dice >= 0 && score.dice <= 1)) return LabelOutcome::kUnusable;
  if (score.dice > 0) return LabelOutcome::kScored;
  if (nothing_to_score) return LabelOutcome::kUnusable;
  return score.reference_voxels > 0 ? LabelOutcome::kMiss : LabelOutcome::kFalseAlarm;
}

ModelStatistics Summarize(std::vector<CaseScoreRecord> cases, std::size_t labels) {
  std::sort(cases.begin(), cases.end(), [](const CaseScoreRecord& a, const CaseScoreRecord& b) {
    return a.case_index < b.case_index;
  });
  ModelStatistics model;
  model.labels.resize(labels);
  std::vector<double> case_dice;
  std::vector<std::vector<double>> label_dice(labels);

  for (const CaseScoreRecord& scored : cases) {
    double sum = 0;
    int defined = 0;
    for (std::size_t i = 0; i < labels; ++i) {
      LabelStatistics& label = model.labels[i];
      const LabelOutcome outcome = OutcomeOf(scored.labels[i]);
      label.misses += outcome == LabelOutcome::kMiss;
      label.false_alarms += outcome == LabelOutcome::kFalseAlarm;
      label.both_empty += outcome == LabelOutcome::kBothEmpty;
      label.unusable += outcome == LabelOutcome::kUnusable;
      if (outcome == LabelOutcome::kBothEmpty || outcome == LabelOutcome::kUnusable) continue;
      label_dice[i].push_back(scored.labels[i].dice);
      sum += scored.labels[i].dice;
      ++defined;
    }
    model.cases.push_back(
        {scored.case_index, scored.cohort, defined > 0 ? sum / defined : kNoScore});
    if (defined > 0) {
      case_dice.push_back(model.cases.back().dice);
      model.lowest.push_back(model.cases.back());
    } else {
      ++model.unscored_cases;
    }
  }

  for (std::size_t i = 0; i < labels; ++i) {
    model.labels[i].dice = Describe(std::move(label_dice[i]));
    model.misses += model.labels[i].misses;
    model.false_alarms += model.labels[i].false_alarms;
  }
  model.dice = Describe(std::move(case_dice));
  std::stable_sort(
      model.lowest.begin(), model.lowest.end(),
      [](const CaseStatistics& a, const CaseStatistics& b) { return a.dice < b.dice; });
  if (model.lowest.size() > kLowestCases) model.lowest.resize(kLowestCases);
  return model;
}

PairedDifference Compare(const ModelStatistics& first, const ModelStatistics& second) {
  std::map<int, double> dice_of_second;
  for (const CaseStatistics& scored : second.cases) {
    dice_of_second[scored.case_index] = scored.dice;
  }
  PairedDifference result;
  std::vector<double> differences;
  for (const CaseStatistics& scored : first.cases) {
    const auto other = dice_of_second.find(scored.case_index);
    if (other == dice_of_second.end()) continue;
    const double difference = scored.dice - other->second;
    if (std::isnan(difference)) continue;
    differences.push_back(difference);
    result.better += difference > 0;
    result.worse += difference < 0;
  }
  result.difference = Describe(std::move(differences));
  return result;
}

absl::StatusOr<StudyStatistics> Summarize(const StudyRecord& record) {
  const std::size_t labels = record.study.labels.size();
  std::map<std::string, SiteRecord> sites;
  for (const SiteRecord& site : record.sites) sites[site.name] = site;
  std::map<std::string, ScoresOfSite> scores_of_sites;
  for (const ModelScoresRecord& scores : record.scores) {
    RETURN_IF_ERROR(CheckLabels(scores, labels));
    sites[scores.site].name = scores.site;
    ScoresOfSite& of_site = scores_of_sites[scores.site];
    if (scores.model == Model::kLocalOnly) {
      of_site.local_only = &scores;
    } else if (scores.model == Model::kPersonal) {
      of_site.personal = &scores;
    } else {
      of_site.by_round[scores.after_round] = &scores;
    }
  }

  StudyStatistics study;
  for (const RoundRecord& round : record.rounds) {
    if (!IsClosed(round)) continue;
    study.rounds = std::max(study.rounds, round.round);
    study.seconds += SecondsOf(round);
    study.seconds_aggregating += round.seconds_aggregating;
  }
  study.scored_round = ScoredRound(SitesByScoredRound(scores_of_sites), record.finished);

  for (const auto& [name, site] : sites) {
    SiteStatistics statistics;
    statistics.site = site;
    statistics.too_few = site.held_out_cases < kFewestCasesToConclude;
    const ScoresOfSite& scores = scores_of_sites[name];
    const int last_round = std::max(study.rounds, study.scored_round.value_or(0));
    for (int round = 0; round <= last_round; ++round) {
      const auto found = scores.by_round.find(round);
      if (found == scores.by_round.end()) {
        statistics.mean_by_round.push_back(kNoScore);
        continue;
      }
      ModelStatistics model = Summarize(found->second->cases, labels);
      statistics.mean_by_round.push_back(model.dice.mean);
      if (round == 0) {
        statistics.before = std::move(model);
      } else if (round == study.scored_round) {
        statistics.after = std::move(model);
        statistics.certificate = scores.by_round.at(round)->certificate;
      }
    }
    if (scores.local_only) statistics.local_only = Summarize(scores.local_only->cases, labels);
    if (statistics.after && statistics.local_only) {
      statistics.joining = Compare(*statistics.after, *statistics.local_only);
    }
    if (scores.personal) statistics.personal = Summarize(scores.personal->cases, labels);
    if (statistics.after && statistics.personal) {
      statistics.owning = Compare(*statistics.personal, *statistics.after);
    }
    AddParticipation(record.rounds, statistics);
    study.sites.push_back(std::move(statistics));
  }
  RankSites(study);
  AddCertainty(study);
  GlobalModelScores scores;
  AddScores(record.scores, labels, scores);
  study.ranking = RankModels(record.study.rounds.best_by, scores, NewestScoredModel(record));
  return study;
}

}  // namespace isoscan
