#include "server/aggregation/geometric_median.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <utility>

namespace isoscan {
namespace {

constexpr double kSmoothing = 1e-6;
constexpr double kTolerance = 1e-12;
constexpr int kMaximumTurns = 1000;

// The update with the least weighted sum of distances to the others.
std::size_t Medoid(const Distances& distances, const std::vector<double>& shares) {
  std::size_t medoid = 0;
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < shares.size(); ++i) {
    double sum = 0;
    for (std::size_t k = 0; k < shares.size(); ++k) {
      sum += shares[k] * std::sqrt(distances.Between(i, k));
    }
    if (sum >= least) continue;
    least = sum;
    medoid = i;
  }
  return medoid;
}

// The least number that at least half of the shares do not exceed.
double WeightedMedian(const std::vector<double>& numbers, const std::vector<double>& shares) {
  std::vector<std::pair<double, double>> sorted;
  for (std::size_t k = 0; k < numbers.size(); ++k) sorted.emplace_back(numbers[k], shares[k]);
  std::sort(sorted.begin(), sorted.end());
  double sum = 0;
  for (const auto& [number, share] : sorted) {
    sum += share;
    if (sum >= 0.5) return number;
  }
  return sorted.back().first;
}

void Normalize(std::vector<double>& weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight /= sum;
}

}  // namespace

std::vector<double> GeometricMedianWeights(const Distances& distances,
                                           const std::vector<double>& shares) {
  const std::size_t count = shares.size();
  const std::size_t origin = Medoid(distances, shares);
  std::vector<double> lengths(count);
  for (std::size_t k = 0; k < count; ++k) {
    lengths[k] = std::sqrt(distances.Between(origin, k));
  }
  const double scale = WeightedMedian(lengths, shares);
  std::vector<double> weights(count);
  if (scale == 0) {
    // Half of the shares lie in one point, which is the median then.
    for (std::size_t k = 0; k < count; ++k) weights[k] = lengths[k] == 0 ? shares[k] : 0;
    Normalize(weights);
    return weights;
  }

  // Inner products of the differences from the medoid. Where one update is very far away, they
  // drown in its distances' rounding; no longer than the lengths allow, they do no harm.
  const auto inner = [&](std::size_t i, std::size_t j) {
    const double bound = lengths[i] * lengths[j];
    const double product =
        (distances.Between(origin, i) + distances.Between(origin, j) - distances.Between(i, j)) / 2;
    return std::clamp(product, -bound, bound);
  };
  for (std::size_t k = 0; k < count; ++k) weights[k] = shares[k] / std::max(lengths[k], scale);
  Normalize(weights);
  for (int turn = 0; turn < kMaximumTurns; ++turn) {
    // Of x - origin: its products with the updates' differences, and its square.
    std::vector<double> products(count, 0.0);
    double square = 0;
    for (std::size_t j = 0; j < count; ++j) {
      for (std::size_t k = 0; k < count; ++k) products[j] += weights[k] * inner(k, j);
      square += weights[j] * products[j];
    }
    std::vector<double> next(count);
    for (std::size_t k = 0; k < count; ++k) {
      const double distance =
          std::sqrt(std::max(square - 2 * products[k] + lengths[k] * lengths[k], 0.0));
      next[k] = shares[k] / std::max(distance, kSmoothing * scale);
    }
    Normalize(next);
    double moved = 0;
    for (std::size_t k = 0; k < count; ++k) {
      moved = std::max(moved, std::abs(next[k] - weights[k]));
    }
    weights = std::move(next);
    if (moved < kTolerance) break;
  }
  return weights;
}

}  // namespace isoscan
