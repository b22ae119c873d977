#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/study/study.h"
#include "server/fairness/study_record.h"

namespace isoscan {

/// A site's score of one model: the mean over its held-out cases of the mean over labels.
struct SiteScore {
  std::int64_t cases = 0;  ///< That have a Dice.
  double mean = 0;         ///< NaN without such cases.
};

/// By rounds aggregated into the global model, then by site.
using GlobalModelScores = std::map<int, std::map<std::string, SiteScore>>;

/// Of the global models among `scores`; takes the place of what `known` had of the same model and
/// site. Every case has `labels` label scores.
void AddScores(const std::vector<ModelScoresRecord>& scores, std::size_t labels,
               GlobalModelScores& known);

struct JudgedModel {
  int round = 0;     ///< 0: the initial weights.
  double score = 0;  ///< Under the rule; never NaN.
};

/// The global models that may be compared.
struct ModelRanking {
  std::vector<std::string> judges;  ///< By name.
  std::vector<JudgedModel> models;  ///< By round.

  /// Of the highest score, the earlier of equals; nullptr without models.
  const JudgedModel* best() const;
};

/// Compares like with like: the judges are the sites that scored the newest model, and only models
/// that every one of them scored are among the ranked. `newest` is the last round whose model's
/// scores are complete (what is known of later ones is left aside); where no site scored that, the
/// one before. A pure function, so that a restart ranks the same.
ModelRanking RankModels(RoundsPlan::BestBy rule, const GlobalModelScores& scores, int newest);

/// Why training ends before the study's last round: since the model that was the last to exceed all
/// before it by more than `least_gain`, as many models have been judged as `patience` says. Empty:
/// it goes on.
std::string WhyTrainingEnds(const RoundsPlan& plan, const ModelRanking& ranking);

/// The last round whose model's scores are complete; -1: none. The model of round r is scored in
/// round r + 1, the last one at the end of the study.
int NewestScoredModel(const StudyRecord& record);

/// "mean Dice over all held-out cases", "mean Dice at the worst served site".
std::string InWords(RoundsPlan::BestBy rule);

}  // namespace isoscan
