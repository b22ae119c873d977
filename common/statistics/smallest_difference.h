#pragma once

#include <cstdint>
#include <optional>

namespace isoscan {

/// The spread of some cases' values.
struct CaseSpread {
  std::int64_t n = 0;
  double sd = 0;  ///< Of the sample: divided by n - 1.
};

/// The smallest true mean of `differences` (pairs on the same cases) that a two-sided t test at
/// 1 - level finds with chance `power`, were their spread the one that was seen. nullopt with fewer
/// than 2 cases or without spread.
///
/// Exact for normal differences, by the noncentral t distribution: more than (1.96 + 0.84) sd /
/// sqrt(n) for few cases. Source: docs/references.md#cohen1988, chapter 2.
std::optional<double> SmallestPairedDifference(const CaseSpread& differences, double level = 0.95,
                                               double power = 0.8);

/// The same for the difference of the means of two groups of cases, by Welch's t test. nullopt
/// where a group has fewer than 2 cases, or neither has spread.
///
/// Source: docs/references.md#welch1947.
std::optional<double> SmallestDifference(const CaseSpread& first, const CaseSpread& second,
                                         double level = 0.95, double power = 0.8);

}  // namespace isoscan
