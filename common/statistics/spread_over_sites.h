#pragma once

#include <optional>
#include <span>
#include <vector>

#include "common/statistics/bootstrap_means.h"
#include "common/statistics/interval.h"

namespace isoscan {

/// What is known of one site's mean.
struct SiteMean {
  double mean = 0;
  /// By how much it may be off, one draw per replicate; as many at every site, none infinite.
  std::vector<double> errors;
};

/// From a series of a site's bootstrap: t times the standard error of the mean, which is as skewed
/// as the cases are and, for few cases, as wide as Student's t; cut at 8 standard errors, where few
/// cases would give infinite ones. nullopt where the sample has no spread.
std::optional<SiteMean> MeanWithErrors(const BootstrapMeans& bootstrap, std::size_t series);

/// A number that says how unequal the sites' true means are.
struct Spread {
  double observed = 0;
  /// The true values that do not make the observed one improbable in either direction. Its low end
  /// is 0 (for Jain's index, the high end 1) where equal sites would explain what was observed.
  Interval interval;
};

struct SpreadOverSites {
  Spread gap;  ///< Highest mean less the lowest.
  Spread sd;   ///< Standard deviation over the sites, divided by their number.
  /// Jain's index of the errors 1 - mean: (sum)^2 / (sites * sum of squares); 1 is equal. nullopt
  /// where the mean error is 0 or less.
  std::optional<Spread> jain_on_error;
  /// How likely equal sites would be to show a gap as large as the observed one.
  double p_equal = 1;
  /// The gap between two sites, all others half way, that these numbers of cases would have shown
  /// (an interval that leaves out 0) with chance `power`.
  double smallest_gap = 0;
};

/// The observed gap is too large on average: it is a maximum over sites of what noise adds. So its
/// own bootstrap distribution, which has noise added twice, gives no interval. Instead this asks
/// which true gaps agree with the observed one. The true means are thought of as the observed ones,
/// pulled together or apart around their mean by one factor; of each factor it is counted how many
/// replicates of the errors give an observed gap as large, or as small. That is one test for all
/// sites together, so nothing is to be corrected for their number. It judges these sites; it takes
/// them for no sample of others.
///
/// nullopt for fewer than 2 sites. Requires as many errors, at least 1, at every site.
/// Cost: some 100 passes over all errors; 200 sites with 10,000 in half a second.
/// Source: docs/references.md#carpenter1999 (test inversion bootstrap); Jain: #jain1984; what the
///         intervals cover: docs/fairness.md.
std::optional<SpreadOverSites> CompareSites(std::span<const SiteMean> sites, double level = 0.95,
                                            double power = 0.8);

}  // namespace isoscan
