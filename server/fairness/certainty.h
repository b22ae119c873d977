#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/statistics/interval.h"
#include "common/statistics/non_inferiority.h"
#include "common/statistics/spread_over_sites.h"

namespace isoscan {

struct StudyStatistics;

/// Of every interval and test of the report.
inline constexpr double kLevel = 0.95;
/// By how much Dice a federated model may be worse than the site's own and still be "not worse".
inline constexpr double kMargin = 0.01;

/// How sure a site's numbers are.
struct SiteCertainty {
  /// Of the mean Dice of the judged model. nullopt where its cases say nothing of their spread:
  /// one, or all with the same Dice.
  std::optional<Interval> mean;
  std::optional<Interval> median;  ///< Of 6 cases or more.
  /// Federated less alone, where the site trained alone. The verdict holds for all sites together.
  std::optional<Comparison> joining;
  Verdict verdict = Verdict::kCannotTell;
};

/// How sure the differences between sites are.
struct StudyCertainty {
  /// nullopt for fewer than 2 scored sites, or where `without_spread` names one.
  std::optional<SpreadOverSites> spread;
  std::vector<std::string> without_spread;  ///< Scored sites whose mean has no interval.
};

/// Fills in SiteStatistics::certainty and StudyStatistics::certainty from the scores of cases. The
/// same scores give the same numbers, whatever the number of threads.
///
/// Source: docs/fairness.md, "How sure it is".
void AddCertainty(StudyStatistics& study);

}  // namespace isoscan
