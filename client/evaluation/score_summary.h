#pragma once

#include <cstdint>
#include <vector>

#include "client/evaluation/surface_metrics.h"

namespace isoscan {

/// One metric over the cases that it is defined in; NaN without any.
struct MetricSummary {
  double mean = 0;
  double median = 0;
  /// Over the cases that have the label on both sides alone: without the worst values that stand
  /// for the others. Never to be shown without the numbers of misses and false alarms.
  double mean_where_measured = 0;
};

/// One label over several cases. Where both sides are empty that is counted and in no mean; misses
/// and false alarms are counted and in every mean. docs/evaluation.md.
struct LabelSummary {
  std::int64_t cases = 0;
  std::int64_t scored = 0;
  std::int64_t misses = 0;
  std::int64_t false_alarms = 0;
  std::int64_t both_empty = 0;
  MetricSummary dice;
  MetricSummary hd_mm;
  MetricSummary hd95_mm;
  MetricSummary assd_mm;
  std::vector<MetricSummary> nsd;  ///< One per tolerance.
  MetricSummary volume_error_ml;
  MetricSummary relative_volume_error;  ///< Over the cases whose reference has the label.
};

/// All `scores` are of the same tolerances.
LabelSummary Summarize(const std::vector<LabelScore>& scores);

/// NaN without any.
double MeanOf(const std::vector<double>& values);
double MedianOf(std::vector<double> values);

}  // namespace isoscan
