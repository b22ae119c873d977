#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "common/statistics/bootstrap_means.h"
#include "common/statistics/interval.h"

namespace isoscan {

/// From so many differences on the bootstrap judges; below, sign flips do.
inline constexpr std::int64_t kFewestDifferencesOfBootstrap = 15;

/// What may be said of a new model against an old one on the same cases.
enum class Verdict {
  kBetter,      ///< The mean difference is above 0.
  kNotWorse,    ///< It is above -margin.
  kCannotTell,  ///< These cases show none of the others.
  kHarmed,      ///< It is below -margin.
};
/// "better", "not worse", "cannot tell", "harmed".
std::string_view WordsFor(Verdict verdict);

/// One site's differences, new less old.
struct Comparison {
  CaseSample differences;
  /// Of the mean difference: two-sided, for this site alone. nullopt where there is none.
  std::optional<Interval> interval;
  // How likely differences like these would be if the mean were 0 or less (better), -margin or less
  // (not worse), -margin or more (harmed). 1 where the cases say nothing.
  double p_better = 1;
  double p_not_worse = 1;
  double p_harmed = 1;
};

/// `series` is one of differences. Below kFewestDifferencesOfBootstrap cases the probabilities and
/// the interval are those of sign flips, exact for a symmetric distribution: 6 cases can reach
/// 1/64, 5 can conclude nothing at 0.975. From there on they are those of the replicates' t, which
/// follow the skewness of the cases (docs/references.md#efron1993, 16.4).
///
/// Differences that are all equal: a bootstrap has nothing to draw, so sign flips judge any number.
/// `margin` >= 0.
Comparison CompareWithMargin(const BootstrapMeans& bootstrap, std::size_t series, double margin,
                             double level = 0.95);

/// One verdict per site, in the order given. The three questions are each asked of all sites at
/// once (Holm): the chance that any site gets "better", any gets "not worse" or any gets "harmed"
/// without being so is at most (1 - level) / 2 for each of the three.
std::vector<Verdict> Verdicts(std::span<const Comparison> sites, double level = 0.95);

}  // namespace isoscan
