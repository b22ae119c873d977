#include "common/statistics/spread_over_sites.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <functional>
#include <numeric>

namespace isoscan {
namespace {

constexpr double kMostStandardErrors = 8;

// The means of some sites, in every replicate: what a spread is computed from.
struct Moments {
  double lowest = 0;
  double highest = 0;
  double sum = 0;
  double squares = 0;  // Of the distances from the mean of the observed means.
};

enum class Statistic { kGap, kSd, kVariationOfError };

// Replicates that are computed together, in vectors that fit into the first cache.
constexpr std::size_t kTogether = 512;

// From so many errors on, several threads are faster than one.
constexpr std::size_t kManyErrors = 100'000;

class Replicates {
 public:
  explicit Replicates(std::span<const SiteMean> sites) : sites_(sites) {
    for (const SiteMean& site : sites) centre_ += site.mean;
    centre_ /= static_cast<double>(sites.size());
  }

  double centre() const { return centre_; }
  std::size_t count() const { return sites_.front().errors.size(); }

  double Observed(Statistic statistic, std::span<const double> deviations) const {
    Moments moments;
    for (const double deviation : deviations) Include(deviation, moments);
    return Value(statistic, moments);
  }

  // Of each replicate, with true means at `centre` + factor * deviations.
  std::vector<double> Values(Statistic statistic, std::span<const double> deviations,
                             double factor) const {
    std::vector<double> values(count());
    const auto chunks = static_cast<std::int64_t>((count() + kTogether - 1) / kTogether);
#pragma omp parallel for schedule(static) if (count() * sites_.size() > kManyErrors)
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      const std::size_t first = static_cast<std::size_t>(chunk) * kTogether;
      const std::size_t size = std::min(kTogether, count() - first);
      std::vector<double> lowest(size, HUGE_VAL);
      std::vector<double> highest(size, -HUGE_VAL);
      std::vector<double> sum(size, 0);
      std::vector<double> squares(size, 0);
      for (std::size_t k = 0; k < sites_.size(); ++k) {
        const double shift = factor * deviations[k];
        const double* const errors = sites_[k].errors.data() + first;
        for (std::size_t i = 0; i < size; ++i) {
          const double value = shift + errors[i];
          lowest[i] = std::min(lowest[i], value);
          highest[i] = std::max(highest[i], value);
          sum[i] += value;
          squares[i] += value * value;
        }
      }
      for (std::size_t i = 0; i < size; ++i) {
        values[first + i] = Value(statistic, {lowest[i], highest[i], sum[i], squares[i]});
      }
    }
    return values;
  }

  double ShareAtLeast(double value, Statistic statistic, std::span<const double> deviations,
                      double factor) const {
    const std::vector<double> values = Values(statistic, deviations, factor);
    const auto hits = std::count_if(values.begin(), values.end(),
                                    [value](double other) { return other >= value; });
    return static_cast<double>(hits) / static_cast<double>(values.size());
  }

 private:
  static void Include(double deviation, Moments& moments) {
    moments.lowest = std::min(moments.lowest, deviation);
    moments.highest = std::max(moments.highest, deviation);
    moments.sum += deviation;
    moments.squares += deviation * deviation;
  }

  double Value(Statistic statistic, const Moments& moments) const {
    if (statistic == Statistic::kGap) return moments.highest - moments.lowest;
    const auto sites = static_cast<double>(sites_.size());
    const double mean = moments.sum / sites;
    const double sd = std::sqrt(std::max(0.0, moments.squares / sites - mean * mean));
    if (statistic == Statistic::kSd) return sd;
    const double mean_error = 1 - (centre_ + mean);
    return mean_error > 0 ? sd / mean_error : HUGE_VAL;
  }

  std::span<const SiteMean> sites_;
  double centre_ = 0;
};

// The factor at which `grows`, a function that grows from below `target` to above it, crosses it: 0
// where it is not below at 0.
double Crossing(const std::function<double(double)>& grows, double target) {
  if (grows(0) > target) return 0;
  double low = 0;
  double high = 1;
  while (grows(high) <= target && high < 1e6) {
    low = high;
    high *= 2;
  }
  for (int step = 0; step < 20; ++step) {
    const double middle = (low + high) / 2;
    (grows(middle) <= target ? low : high) = middle;
  }
  return (low + high) / 2;
}

Spread SpreadOf(const Replicates& replicates, Statistic statistic,
                std::span<const double> deviations, double level) {
  const double tail = (1 - level) / 2;
  const double observed = replicates.Observed(statistic, deviations);
  // Of sites that are equal to the last bit no direction is known: the first two stand for all.
  std::vector<double> direction(deviations.begin(), deviations.end());
  if (observed == 0) {
    direction[0] = 0.01;
    direction[1] = -0.01;
  }
  const auto share = [&](double factor) {
    return replicates.ShareAtLeast(observed, statistic, direction, factor);
  };
  const auto value_at = [&](double factor) {
    std::vector<double> scaled = direction;
    for (double& deviation : scaled) deviation *= factor;
    return replicates.Observed(statistic, scaled);
  };
  return {.observed = observed,
          .interval = {.low = value_at(Crossing(share, tail)),
                       .high = value_at(Crossing(share, 1 - tail)),
                       .level = level,
                       .method = IntervalMethod::kTestInversion}};
}

double SmallestGap(const Replicates& replicates, std::size_t best, std::size_t worst,
                   std::size_t sites, double level, double power) {
  std::vector<double> direction(sites, 0);
  std::vector<double> equal = replicates.Values(Statistic::kGap, direction, 0);
  const double critical = QuantileInPlace(equal, 1 - (1 - level) / 2);
  if (critical == 0) return 0;
  direction[best] = critical / 2;
  direction[worst] = -critical / 2;
  return critical *
         Crossing(
             [&](double factor) {
               return replicates.ShareAtLeast(critical, Statistic::kGap, direction, factor);
             },
             power);
}

// Of errors: a larger variation is a smaller index.
Spread JainOf(const Spread& variation) {
  const auto jain = [](double coefficient) { return 1 / (1 + coefficient * coefficient); };
  Spread spread{.observed = jain(variation.observed), .interval = variation.interval};
  spread.interval.low = jain(variation.interval.high);
  spread.interval.high = jain(variation.interval.low);
  return spread;
}

}  // namespace

std::optional<SiteMean> MeanWithErrors(const BootstrapMeans& bootstrap, std::size_t series) {
  const CaseSample& sample = bootstrap.sample(series);
  if (!sample.HasSpread()) return std::nullopt;
  const double error = sample.sd / std::sqrt(static_cast<double>(sample.n));
  SiteMean site{.mean = sample.mean, .errors = {}};
  site.errors.reserve(bootstrap.t(series).size());
  for (const double t : bootstrap.t(series)) {
    site.errors.push_back(std::clamp(t, -kMostStandardErrors, kMostStandardErrors) * error);
  }
  return site;
}

std::optional<SpreadOverSites> CompareSites(std::span<const SiteMean> sites, double level,
                                            double power) {
  if (sites.size() < 2) return std::nullopt;
  for ([[maybe_unused]] const SiteMean& site : sites) {
    assert(!site.errors.empty() && site.errors.size() == sites.front().errors.size());
  }
  const Replicates replicates(sites);
  std::vector<double> deviations;
  for (const SiteMean& site : sites) deviations.push_back(site.mean - replicates.centre());

  SpreadOverSites result;
  result.gap = SpreadOf(replicates, Statistic::kGap, deviations, level);
  result.sd = SpreadOf(replicates, Statistic::kSd, deviations, level);
  if (replicates.centre() < 1) {
    result.jain_on_error =
        JainOf(SpreadOf(replicates, Statistic::kVariationOfError, deviations, level));
  }
  const auto count = static_cast<double>(replicates.count());
  result.p_equal =
      (1 + count * replicates.ShareAtLeast(result.gap.observed, Statistic::kGap, deviations, 0)) /
      (1 + count);
  const auto [worst, best] = std::minmax_element(deviations.begin(), deviations.end());
  result.smallest_gap =
      SmallestGap(replicates, static_cast<std::size_t>(best - deviations.begin()),
                  static_cast<std::size_t>(worst - deviations.begin()), sites.size(), level, power);
  return result;
}

}  // namespace isoscan
