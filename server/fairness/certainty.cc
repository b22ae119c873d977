#include "server/fairness/certainty.h"

#include <algorithm>
#include <map>
#include <utility>

#include "common/statistics/bootstrap_means.h"
#include "common/statistics/median_interval.h"
#include "server/fairness/fairness_statistics.h"

namespace isoscan {
namespace {

// Dice of the judged model's cases, and federated less alone on the same ones: NaN where there is
// none.
std::vector<std::vector<double>> SeriesOf(const SiteStatistics& site) {
  std::map<int, double> alone;
  if (site.local_only) {
    for (const CaseStatistics& scored : site.local_only->cases) {
      alone[scored.case_index] = scored.dice;
    }
  }
  std::vector<std::vector<double>> series(2);
  for (const CaseStatistics& scored : site.after->cases) {
    series[0].push_back(scored.dice);
    const auto other = alone.find(scored.case_index);
    series[1].push_back(other == alone.end() ? kNoScore : scored.dice - other->second);
  }
  return series;
}

std::optional<Interval> MedianOf(std::span<const double> values) {
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  return MedianInterval(sorted, kLevel);
}

Interval Possible(Interval interval, double lowest) { return interval.Within(lowest, 1); }

}  // namespace

void AddCertainty(StudyStatistics& study) {
  std::vector<SiteMean> means;
  std::vector<Comparison> comparisons;
  std::vector<SiteStatistics*> compared;
  for (SiteStatistics& site : study.sites) {
    if (!site.after || site.after->dice.n == 0) continue;
    const BootstrapMeans bootstrap = BootstrapMeans::Draw(SeriesOf(site), site.site.name);
    const std::int64_t cases = bootstrap.sample(0).n;
    site.certainty.mean = bootstrap.MeanInterval(0, RecommendedMethod(cases), kLevel);
    if (site.certainty.mean) site.certainty.mean = Possible(*site.certainty.mean, 0);
    site.certainty.median = MedianOf(bootstrap.values(0));
    if (site.joining && site.joining->difference.n > 0) {
      Comparison comparison = CompareWithMargin(bootstrap, 1, kMargin, kLevel);
      if (comparison.interval) comparison.interval = Possible(*comparison.interval, -1);
      site.certainty.joining = comparison;
      comparisons.push_back(std::move(comparison));
      compared.push_back(&site);
    }
    if (auto mean = MeanWithErrors(bootstrap, 0)) {
      means.push_back(*std::move(mean));
    } else {
      study.certainty.without_spread.push_back(site.site.name);
    }
  }
  const std::vector<Verdict> verdicts = Verdicts(comparisons, kLevel);
  for (std::size_t i = 0; i < compared.size(); ++i) compared[i]->certainty.verdict = verdicts[i];
  if (!study.certainty.without_spread.empty()) return;
  study.certainty.spread = CompareSites(means, kLevel);
  if (study.certainty.spread) {
    Spread& gap = study.certainty.spread->gap;
    gap.interval = Possible(gap.interval, 0);
  }
}

}  // namespace isoscan
