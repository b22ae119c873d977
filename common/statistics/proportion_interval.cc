#include "common/statistics/proportion_interval.h"

#include <cassert>
#include <cmath>

#include "common/random/philox.h"
#include "common/statistics/distributions.h"

namespace isoscan {

Interval ClopperPearson(std::int64_t hits, std::int64_t n, double level) {
  assert(n >= 1 && hits >= 0 && hits <= n);
  const double tail = (1 - level) / 2;
  const auto seen = static_cast<double>(hits);
  const auto missed = static_cast<double>(n - hits);
  return {.low = hits == 0 ? 0 : BetaQuantile(tail, seen, missed + 1),
          .high = hits == n ? 1 : BetaQuantile(1 - tail, seen + 1, missed),
          .level = level,
          .method = IntervalMethod::kClopperPearson};
}

Interval Wilson(std::int64_t hits, std::int64_t n, double level) {
  assert(n >= 1 && hits >= 0 && hits <= n);
  const double z = NormalQuantile(1 - (1 - level) / 2);
  const auto cases = static_cast<double>(n);
  const double share = static_cast<double>(hits) / cases;
  const double weight = 1 + z * z / cases;
  const double centre = (share + z * z / (2 * cases)) / weight;
  const double half =
      z / weight * std::sqrt(share * (1 - share) / cases + z * z / (4 * cases * cases));
  // At its ends the formula is 0 and 1 but for rounding.
  return {.low = hits == 0 ? 0 : centre - half,
          .high = hits == n ? 1 : centre + half,
          .level = level,
          .method = IntervalMethod::kWilson};
}

}  // namespace isoscan
