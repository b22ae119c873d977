#include "client/evaluation/score_summary.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>

namespace isoscan {
namespace {

template <typename Metric>
MetricSummary SummaryOf(const std::vector<LabelScore>& scores, Metric metric) {
  std::vector<double> values;
  std::vector<double> where_measured;
  for (const LabelScore& score : scores) {
    const double value = metric(score);
    if (std::isnan(value)) continue;  // Both empty: Summarize() counts it.
    values.push_back(value);
    if (score.measured()) where_measured.push_back(value);
  }
  return {.mean = MeanOf(values),
          .median = MedianOf(values),
          .mean_where_measured = MeanOf(where_measured)};
}

}  // namespace

double MeanOf(const std::vector<double>& values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double MedianOf(std::vector<double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

LabelSummary Summarize(const std::vector<LabelScore>& scores) {
  LabelSummary summary;
  summary.cases = static_cast<std::int64_t>(scores.size());
  for (const LabelScore& score : scores) {
    switch (score.outcome()) {
      case ScoreOutcome::kScored:
        ++summary.scored;
        break;
      case ScoreOutcome::kMiss:
        ++summary.misses;
        break;
      case ScoreOutcome::kFalseAlarm:
        ++summary.false_alarms;
        break;
      case ScoreOutcome::kBothEmpty:
        ++summary.both_empty;
        break;
    }
  }
  summary.dice = SummaryOf(scores, [](const LabelScore& score) { return score.dice(); });
  summary.hd_mm = SummaryOf(scores, [](const LabelScore& score) { return score.hd_mm; });
  summary.hd95_mm = SummaryOf(scores, [](const LabelScore& score) { return score.hd95_mm; });
  summary.assd_mm = SummaryOf(scores, [](const LabelScore& score) { return score.assd_mm; });
  for (std::size_t i = 0; i < (scores.empty() ? 0 : scores.front().nsd.size()); ++i) {
    summary.nsd.push_back(SummaryOf(scores, [i](const LabelScore& score) { return score.nsd[i]; }));
  }
  summary.volume_error_ml =
      SummaryOf(scores, [](const LabelScore& score) { return score.volume_error_ml(); });
  summary.relative_volume_error =
      SummaryOf(scores, [](const LabelScore& score) { return score.relative_volume_error(); });
  return summary;
}

}  // namespace isoscan
