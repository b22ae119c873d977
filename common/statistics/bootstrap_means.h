#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "common/statistics/interval.h"

namespace isoscan {

/// Linear interpolation between order statistics, as Quantile of server/fairness
/// (docs/references.md#hyndman1996, definition 7), without sorting: `values` is reordered. Where a
/// neighbour is infinite, so is the answer. Requires a value, none of them NaN.
double QuantileInPlace(std::span<double> values, double fraction);

struct BootstrapOptions {
  std::uint64_t seed = 1;
  int replicates = 10'000;
  int threads = 0;  ///< 0: as many as OpenMP starts.
};

/// The values that some cases have.
struct CaseSample {
  std::int64_t n = 0;
  double mean = 0;
  double sd = 0;    ///< Divided by n - 1; exactly 0 where all are equal.
  double skew = 0;  ///< sum d^3 / (sum d^2)^1.5 with d = value - mean; 0 where all are equal.

  /// Whether the sample says anything of how sure its mean is: 2 cases that differ.
  bool HasSpread() const { return sd > 0; }
};

/// NaN is no value.
CaseSample SampleOf(std::span<const double> values);

/// The means of one site's cases, drawn again and again with replacement.
///
/// A series is one number of each case: Dice of a label or a model, or the difference of two
/// models' on the same case. All series of a site are drawn together: replicate r draws the same
/// cases for each. The draws are a function of (seed, site, replicate, number of cases), so neither
/// the number of threads nor that of the series changes a bit of any of them; two sites' are
/// independent.
///
/// Cost: for each case drawn a quarter of a Philox block and 2 additions a series. The columns of a
/// site lie in blocks of 8, one cache line a case, which are summed while they are in the first
/// cache: 10 series of 500 cases, 10,000 times, in 20-30 ms.
/// Source: docs/references.md#efron1993.
class BootstrapMeans {
 public:
  /// `series` of equal lengths: entry i of each is case i's, NaN where the case has none (such as a
  /// label that is neither there nor predicted). A replicate's mean is over the drawn cases that
  /// have one.
  static BootstrapMeans Draw(std::span<const std::vector<double>> series, std::string_view site,
                             const BootstrapOptions& options = {});

  const CaseSample& sample(std::size_t series) const { return series_[series].sample; }
  /// The values of the cases that have one, in the order given.
  std::span<const double> values(std::size_t series) const { return series_[series].values; }
  /// Of each replicate that drew a case with a value; none where the sample has no spread.
  std::span<const double> means(std::size_t series) const { return series_[series].means; }
  /// (mean - sample.mean) / standard error of the replicate's cases, for the same replicates;
  /// infinite where they are all equal (and 0 where their mean is the sample's, too).
  std::span<const double> t(std::size_t series) const { return series_[series].t; }

  /// Of the mean of the distribution that the cases are from. nullopt where the sample has no
  /// spread: one case, or cases that are all equal, say nothing of how sure their mean is.
  ///
  /// kStudentised may be infinite at an end, where too many replicates have equal cases: nothing
  /// bounds the mean then but what is possible (Interval::Within).
  /// Requires kStudentT, kPercentile, kBca or kStudentised.
  /// Source: docs/references.md#efron1993, 13.3 (percentile) and 12.5 (studentised), #efron1987
  ///         (BCa; acceleration by the jackknife).
  std::optional<Interval> MeanInterval(std::size_t series, IntervalMethod method,
                                       double level = 0.95) const;

 private:
  struct Series {
    CaseSample sample;
    std::vector<double> values;
    std::vector<double> means;
    std::vector<double> t;
  };
  std::vector<Series> series_;
};

/// The method that comes nearest to its level for the mean of so many cases, over the shapes that
/// Dice has: docs/fairness.md, "How sure it is", from tests/benchmarks/coverage_bench.cc.
IntervalMethod RecommendedMethod(std::int64_t cases);

}  // namespace isoscan
