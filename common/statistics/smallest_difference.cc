#include "common/statistics/smallest_difference.h"

#include <cmath>

#include "common/statistics/distributions.h"

namespace isoscan {
namespace {

// How many standard errors a true difference must have.
double StandardErrorsToShow(double degrees, double level, double power) {
  const double critical = StudentTQuantile(1 - (1 - level) / 2, degrees);
  const auto shown = [&](double true_difference) {
    return 1 - NoncentralTProbability(critical, degrees, true_difference) +
           NoncentralTProbability(-critical, degrees, true_difference);
  };
  double low = 0;
  double high = 2 * critical;
  while (shown(high) < power) high *= 2;
  for (int step = 0; step < 60; ++step) {
    const double middle = (low + high) / 2;
    (shown(middle) < power ? low : high) = middle;
  }
  return high;
}

}  // namespace

std::optional<double> SmallestPairedDifference(const CaseSpread& differences, double level,
                                               double power) {
  if (differences.n < 2 || !(differences.sd > 0)) return std::nullopt;
  const auto n = static_cast<double>(differences.n);
  return StandardErrorsToShow(n - 1, level, power) * differences.sd / std::sqrt(n);
}

std::optional<double> SmallestDifference(const CaseSpread& first, const CaseSpread& second,
                                         double level, double power) {
  if (first.n < 2 || second.n < 2) return std::nullopt;
  const double variance_of_first = first.sd * first.sd / static_cast<double>(first.n);
  const double variance_of_second = second.sd * second.sd / static_cast<double>(second.n);
  const double variance = variance_of_first + variance_of_second;
  if (!(variance > 0)) return std::nullopt;
  const double degrees =
      variance * variance /
      (variance_of_first * variance_of_first / static_cast<double>(first.n - 1) +
       variance_of_second * variance_of_second / static_cast<double>(second.n - 1));
  return StandardErrorsToShow(degrees, level, power) * std::sqrt(variance);
}

}  // namespace isoscan
