#include "server/fairness/best_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "server/fairness/fairness_statistics.h"

namespace isoscan {
namespace {

double ScoreOf(RoundsPlan::BestBy rule, const std::vector<SiteScore>& sites) {
  double sum = 0;
  double lowest = kNoScore;
  std::int64_t cases = 0;
  for (const SiteScore& site : sites) {
    if (site.cases == 0) continue;
    sum += site.mean * static_cast<double>(site.cases);
    cases += site.cases;
    if (!(lowest <= site.mean)) lowest = site.mean;
  }
  if (rule == RoundsPlan::BestBy::kWorstSite) return lowest;
  return cases == 0 ? kNoScore : sum / static_cast<double>(cases);
}

}  // namespace

void AddScores(const std::vector<ModelScoresRecord>& scores, std::size_t labels,
               GlobalModelScores& known) {
  for (const ModelScoresRecord& record : scores) {
    if (record.model != ModelScoresRecord::Model::kGlobal) continue;
    const Distribution dice = Summarize(record.cases, labels).dice;
    known[record.after_round][record.site] = {.cases = dice.n, .mean = dice.mean};
  }
}

const JudgedModel* ModelRanking::best() const {
  const auto best = std::max_element(
      models.begin(), models.end(),
      [](const JudgedModel& a, const JudgedModel& b) { return a.score < b.score; });
  return best == models.end() ? nullptr : &*best;
}

ModelRanking RankModels(RoundsPlan::BestBy rule, const GlobalModelScores& scores, int newest) {
  ModelRanking ranking;
  const auto after = scores.upper_bound(newest);
  if (after == scores.begin()) return ranking;
  for (const auto& [site, score] : std::prev(after)->second) ranking.judges.push_back(site);
  for (auto model = scores.begin(); model != after; ++model) {
    std::vector<SiteScore> sites;
    for (const std::string& judge : ranking.judges) {
      const auto found = model->second.find(judge);
      if (found != model->second.end()) sites.push_back(found->second);
    }
    if (sites.size() != ranking.judges.size()) continue;
    const double score = ScoreOf(rule, sites);
    if (!std::isnan(score)) ranking.models.push_back({.round = model->first, .score = score});
  }
  return ranking;
}

std::string WhyTrainingEnds(const RoundsPlan& plan, const ModelRanking& ranking) {
  if (plan.patience == 0 || ranking.models.empty()) return "";
  JudgedModel last_gain = ranking.models.front();
  for (const JudgedModel& model : ranking.models) {
    if (model.score > last_gain.score + plan.least_gain) last_gain = model;
  }
  const auto since =
      std::count_if(ranking.models.begin(), ranking.models.end(),
                    [&](const JudgedModel& model) { return model.round > last_gain.round; });
  if (since < plan.patience) return "";
  return fmt::format("{} models without a gain of more than {} over the {:.4f} of round {} ({})",
                     since, plan.least_gain, last_gain.score, last_gain.round,
                     InWords(plan.best_by));
}

int NewestScoredModel(const StudyRecord& record) {
  if (record.rounds.empty()) return -1;
  return record.rounds.back().round - (record.finished ? 0 : 1);
}

std::string InWords(RoundsPlan::BestBy rule) {
  return rule == RoundsPlan::BestBy::kCases ? "mean Dice over all held-out cases"
                                            : "mean Dice at the worst served site";
}

}  // namespace isoscan
