#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace isoscan {

/// Dice of the cases of each site (or cohort), in the same order in every repetition; NaN for a
/// case without any label on either side, which no mean counts.
using CaseScores = std::map<std::string, std::vector<double>>;

/// Each case's mean over repetitions of one experiment.
/// Requires: the same sites and numbers of cases in each, at least one.
CaseScores MeanOverRepetitions(const std::vector<CaseScores>& repetitions);

double MeanOf(const std::vector<double>& dice);
/// Over all cases, each counting once.
double MeanOf(const CaseScores& scores);

struct Interval {
  double low = 0;
  double high = 0;
};

/// The middle 95 % of the means of samples: cases are drawn with replacement within their site, so
/// each site keeps its share. The same scores give the same interval.
/// Source: docs/references.md#efron1993 (percentile bootstrap).
Interval BootstrapInterval(const CaseScores& scores);

}  // namespace isoscan
