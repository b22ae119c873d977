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

/// Mean Dice of one arm less that of another on the same cases, with the middle 95 % of samples.
struct Difference {
  double mean = 0;
  Interval interval;
};

/// Paired by case: a sample draws cases within their site, the same ones for both, and the
/// repetitions of each arm with replacement, since another seed would have given another model. The
/// same scores give the same interval. A case counts where both arms have a Dice of it. With the
/// few repetitions that one can afford, an interval over them is too narrow rather than too wide.
/// Source: docs/references.md#owen2007 (cases and repetitions as crossed factors).
/// Errors: FAILED_PRECONDITION arms of other sites or numbers of cases, with the numbers.
absl::StatusOr<Difference> PairedDifference(const std::vector<CaseScores>& arm,
                                            const std::vector<CaseScores>& other);

}  // namespace isoscan
