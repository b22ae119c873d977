#include "common/statistics/distributions.h"

#include <cmath>
#include <numbers>

#include <boost/math/distributions/beta.hpp>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/non_central_t.hpp>
#include <boost/math/distributions/students_t.hpp>

namespace isoscan {
namespace {

namespace math = boost::math;

// Answers NaN or infinity where the default throws.
using Quiet =
    math::policies::policy<math::policies::domain_error<math::policies::ignore_error>,
                           math::policies::pole_error<math::policies::ignore_error>,
                           math::policies::overflow_error<math::policies::ignore_error>,
                           math::policies::evaluation_error<math::policies::ignore_error>>;

}  // namespace

double NormalProbability(double z) { return std::erfc(-z / std::numbers::sqrt2) / 2; }

double StudentTQuantile(double p, double degrees) {
  return math::quantile(math::students_t_distribution<double, Quiet>(degrees), p);
}

double StudentTProbability(double t, double degrees) {
  return math::cdf(math::students_t_distribution<double, Quiet>(degrees), t);
}

double NoncentralTProbability(double t, double degrees, double noncentrality) {
  return math::cdf(math::non_central_t_distribution<double, Quiet>(degrees, noncentrality), t);
}

double BetaQuantile(double p, double a, double b) {
  return math::quantile(math::beta_distribution<double, Quiet>(a, b), p);
}

double BinomialProbability(std::int64_t successes, std::int64_t trials, double chance) {
  if (successes < 0) return 0;
  return math::cdf(math::binomial_distribution<double, Quiet>(static_cast<double>(trials), chance),
                   static_cast<double>(successes));
}

}  // namespace isoscan
