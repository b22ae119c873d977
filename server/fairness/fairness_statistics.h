#pragma once

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "server/fairness/best_model.h"
#include "server/fairness/certainty.h"
#include "server/fairness/study_record.h"

namespace isoscan {

/// A site with fewer held-out cases than this is shown, and marked as too few to conclude from.
inline constexpr std::int64_t kFewestCasesToConclude = 10;

/// How many of a site's lowest-scoring cases the report lists, by index.
inline constexpr std::size_t kLowestCases = 5;

inline constexpr double kNoScore = std::numeric_limits<double>::quiet_NaN();

/// What the scores of some cases look like. Every number is NaN when n is 0.
struct Distribution {
  std::int64_t n = 0;
  double mean = kNoScore;
  double median = kNoScore;
  double lower_quartile = kNoScore;
  double upper_quartile = kNoScore;
  double lowest = kNoScore;
  double highest = kNoScore;
};

/// `values` in any order, all finite.
Distribution Describe(std::vector<double> values);

/// Linear interpolation between order statistics; `sorted` ascending, `fraction` in [0, 1]; NaN for
/// no value. Source: docs/references.md#hyndman1996, definition 7 (the default of R and NumPy).
double Quantile(const std::vector<double>& sorted, double fraction);

/// What one label score says, before any mean is taken. Source: docs/fairness.md, "Empty labels".
enum class LabelOutcome {
  kScored,      ///< Label and prediction meet: Dice is in (0, 1].
  kMiss,        ///< The label is there and the model found none of it: Dice 0, and counted.
  kFalseAlarm,  ///< The label is not there and the model drew it: Dice 0, and counted.
  kBothEmpty,   ///< Neither is there: right, without a Dice; counted, never averaged.
  kUnusable,  ///< No Dice in [0, 1] although there is something to score: counted, never averaged.
};
LabelOutcome OutcomeOf(const LabelScoreRecord& score);

/// One label over all cases of one site. The outcomes add up to the number of cases.
struct LabelStatistics {
  Distribution dice;  ///< Over cases that are scored, missed or falsely alarmed.
  std::int64_t misses = 0;
  std::int64_t false_alarms = 0;
  std::int64_t both_empty = 0;
  std::int64_t unusable = 0;
};

struct CaseStatistics {
  int case_index = 0;
  std::string cohort;      ///< The site's own name for its folder; empty where it has one only.
  double dice = kNoScore;  ///< Mean over the labels that have one; NaN when none has.
};

/// One model on the held-out cases of one site. The site's score is dice.mean: the mean over cases
/// of the mean over labels.
struct ModelStatistics {
  Distribution dice;                    ///< Over cases that have a Dice.
  std::vector<CaseStatistics> cases;    ///< By index.
  std::vector<CaseStatistics> lowest;   ///< The kLowestCases lowest, ascending.
  std::vector<LabelStatistics> labels;  ///< In the study's order.
  std::int64_t misses = 0;              ///< Over all labels.
  std::int64_t false_alarms = 0;
  std::int64_t unscored_cases = 0;  ///< Without a Dice for any label.
};

/// Every case of `cases` has `labels` label scores.
ModelStatistics Summarize(std::vector<CaseScoreRecord> cases, std::size_t labels);

/// One model against another on the same cases: first minus second, case by case.
struct PairedDifference {
  Distribution difference;  ///< Over cases that both models have a Dice for.
  std::int64_t better = 0;  ///< Cases where the first is higher.
  std::int64_t worse = 0;
};
PairedDifference Compare(const ModelStatistics& first, const ModelStatistics& second);

/// Where a site's time went, in seconds, over the rounds that it contributed to.
struct TimeUse {
  double training = 0;
  double scoring = 0;
  double aggregating = 0;  ///< The server's work, which the site waits for.
  double waiting = 0;      ///< The rest of the rounds: transfer, and the wait for other sites.
};

struct SiteStatistics {
  SiteRecord site;
  bool too_few = false;                       ///< Fewer than kFewestCasesToConclude held-out cases.
  std::optional<ModelStatistics> before;      ///< The model before training.
  std::optional<ModelStatistics> after;       ///< The model after StudyStatistics::scored_round.
  std::optional<ModelStatistics> local_only;  ///< The model that the site trained alone.
  std::optional<ModelStatistics> personal;    ///< The site's own model beside the federated one.
  /// Of the model after StudyStatistics::scored_round.
  std::optional<InvarianceCertificate> certificate;
  std::optional<PairedDifference> joining;  ///< `after` minus `local_only`, by case.
  std::optional<PairedDifference> owning;   ///< `personal` minus `after`, by case.
  SiteCertainty certainty;
  std::vector<double> mean_by_round;  ///< Site score after 0, 1, ... rounds; NaN where not scored.
  std::int64_t contributed_rounds = 0;
  TimeUse time;
};

struct StudyStatistics {
  int rounds = 0;  ///< Aggregated so far.
  /// The model that the report judges, by the rounds in it: the last one that was scored, in a
  /// study that still runs the last one scored by as many sites as the one before it. nullopt
  /// before any trained model was scored.
  std::optional<int> scored_round;
  std::vector<SiteStatistics> sites;  ///< By name.
  /// Indices into `sites`, over those with a score after scored_round; the first by name of equals.
  std::optional<std::size_t> best;
  std::optional<std::size_t> worst;
  double gap = kNoScore;   ///< Score of the best site minus that of the worst; NaN without both.
  std::int64_t cases = 0;  ///< Scored held-out cases of all sites.
  double mean_over_cases = kNoScore;  ///< Every case counts the same.
  double mean_over_sites = kNoScore;  ///< Every site counts the same.
  ModelRanking ranking;               ///< Which model was the best.
  StudyCertainty certainty;
  double seconds = 0;  ///< From opening to closing, over all rounds.
  double seconds_aggregating = 0;
};

/// Errors: INVALID_ARGUMENT when a case has not as many label scores as the study has labels.
absl::StatusOr<StudyStatistics> Summarize(const StudyRecord& record);

}  // namespace isoscan
