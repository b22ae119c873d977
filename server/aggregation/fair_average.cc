#include "server/aggregation/fair_average.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>

#include "absl/status/status.h"

namespace isoscan {
namespace {

constexpr double kLeastFairLoss = 1e-10;

// In name order, so that it is the same sum for everybody.
SiteShares Normalized(SiteShares shares) {
  double sum = 0;
  for (const auto& [site, share] : shares) sum += share;
  for (auto& [site, share] : shares) share /= sum;
  return shares;
}

}  // namespace

absl::StatusOr<std::vector<double>> FairFactors(double q, double smoothness,
                                                const std::vector<FairUpdate>& updates) {
  double largest = kLeastFairLoss;
  for (const FairUpdate& update : updates) {
    for (const double number : {update.share, update.loss, update.squared_change}) {
      if (number >= 0 && std::isfinite(number)) continue;
      return absl::InvalidArgumentError(
          fmt::format("an update has a share of {}, a loss of {} and a squared change of {}, where "
                      "numbers from 0 are needed",
                      update.share, update.loss, update.squared_change));
    }
    largest = std::max(largest, update.loss);
  }
  // Above and below the line F^q is taken as (F / largest)^q, which cannot overflow.
  std::vector<double> factors;
  double divisor = 0;
  for (const FairUpdate& update : updates) {
    const double loss = std::max(update.loss, kLeastFairLoss);
    const double power = std::pow(loss / largest, q);
    factors.push_back(update.share * power * smoothness);
    divisor += update.share * (q * power / loss * smoothness * smoothness * update.squared_change +
                               smoothness * power);
  }
  for (double& factor : factors) factor /= divisor;
  return factors;
}

std::vector<double> NearestOnSimplex(std::vector<double> point) {
  std::vector<double> sorted = point;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  double sum = 0;
  double shift = 0;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    sum += sorted[i];
    const double candidate = (sum - 1) / static_cast<double>(i + 1);
    if (sorted[i] > candidate) shift = candidate;
  }
  for (double& value : point) value = std::max(0.0, value - shift);
  return point;
}

SiteShares LambdaFor(const SiteShares& kept, const SiteShares& shares) {
  SiteShares lambda;
  double of_known = 0;
  double new_share = 0;
  for (const auto& [site, share] : shares) {
    if (const auto found = kept.find(site); found != kept.end()) {
      lambda[site] = found->second;
      of_known += found->second;
    } else {
      new_share += share;
    }
  }
  // Those left over may have been the ones that counted for nothing.
  if (of_known <= 0) return Normalized(shares);
  for (const auto& [site, share] : shares) {
    const auto known = lambda.find(site);
    if (known == lambda.end()) {
      lambda[site] = share;
    } else {
      known->second *= (1 - new_share) / of_known;
    }
  }
  return Normalized(std::move(lambda));
}

SiteShares LambdaAfter(const SiteShares& lambda, const std::map<std::string, double>& losses,
                       double learning_rate) {
  double mean = 0;
  for (const auto& [site, loss] : losses) mean += loss / static_cast<double>(losses.size());
  std::vector<double> point;
  for (const auto& [site, weight] : lambda) {
    const auto loss = losses.find(site);
    // Only differences count: every number may be shifted by the same.
    point.push_back(weight + (loss == losses.end() ? 0 : learning_rate * (loss->second - mean)));
  }
  point = NearestOnSimplex(std::move(point));
  SiteShares after;
  std::size_t i = 0;
  for (const auto& [site, weight] : lambda) after[site] = point[i++];
  return after;
}

}  // namespace isoscan
