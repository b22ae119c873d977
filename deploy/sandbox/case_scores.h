#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace isoscan {

/// Dice of the cases of each site (or cohort), in the same order in every repetition; NaN for a
/// case without any label on either side, which no mean counts.
using CaseScores = std::map<std::string, std::vector<double>>;

/// Each case's mean over repetitions of one experiment, at least one.
/// Errors: FAILED_PRECONDITION a repetition of other sites or numbers of cases than the first, with
/// the numbers.
absl::StatusOr<CaseScores> MeanOverRepetitions(const std::vector<CaseScores>& repetitions);

/// How many cases a mean is of.
std::int64_t CasesWithDice(const CaseScores& scores);

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
