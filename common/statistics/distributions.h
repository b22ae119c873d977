#pragma once

#include <cstdint>

namespace isoscan {

/// What the tests and intervals need of Boost.Math, so that no header shows it. The quantile of the
/// normal distribution is in common/random/philox.h. All are NaN for parameters that make no
/// distribution.

/// P(Z <= z) of a standard normal Z.
double NormalProbability(double z);

/// The t with P(T <= t) = p; `degrees` > 0, fractions too; 0 < p < 1.
double StudentTQuantile(double p, double degrees);

/// P(T <= t).
double StudentTProbability(double t, double degrees);

/// P(T <= t) of the noncentral t distribution: of (Z + noncentrality) / sqrt(chi^2 / degrees).
double NoncentralTProbability(double t, double degrees, double noncentrality);

/// The x with P(X <= x) = p of a beta distribution; a, b > 0.
double BetaQuantile(double p, double a, double b);

/// P(X <= successes) of a binomial distribution; 0 for negative `successes`.
double BinomialProbability(std::int64_t successes, std::int64_t trials, double chance);

}  // namespace isoscan
