#include "common/statistics/median_interval.h"

#include <cstddef>
#include <cstdint>

#include "common/statistics/distributions.h"

namespace isoscan {

std::optional<Interval> MedianInterval(std::span<const double> sorted, double level) {
  // The median is below the k-th lowest of n cases when fewer than k lie below it: each does with
  // chance 1/2.
  const auto n = static_cast<std::int64_t>(sorted.size());
  const double tail = (1 - level) / 2;
  std::int64_t k = 0;
  while (k < n / 2 && BinomialProbability(k, n, 0.5) <= tail) ++k;
  if (k == 0) return std::nullopt;
  const auto rank = static_cast<std::size_t>(k);
  return Interval{.low = sorted[rank - 1],
                  .high = sorted[sorted.size() - rank],
                  .level = level,
                  .method = IntervalMethod::kOrderStatistics};
}

}  // namespace isoscan
