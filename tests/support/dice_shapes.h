#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "common/random/philox.h"
#include "common/statistics/distributions.h"

namespace isoscan {

/// A large population of cases whose mean is known, to draw a site's few cases from.
struct DiceShape {
  std::string name;
  std::vector<double> values;
  double mean = 0;

  std::vector<double> Sample(std::size_t cases, RandomStream& random) const {
    std::vector<double> sample(cases);
    for (double& value : sample) {
      value =
          values[static_cast<std::size_t>(random.Below(static_cast<std::int64_t>(values.size())))];
    }
    return sample;
  }
};

/// The quantiles of equal steps of probability, so that a shape has no randomness of its own.
template <typename Quantile>
DiceShape ShapeOf(std::string name, Quantile quantile) {
  constexpr int kCases = 20'000;
  DiceShape shape{.name = std::move(name), .values = {}};
  for (int i = 0; i < kCases; ++i) shape.values.push_back(quantile((i + 0.5) / kCases));
  shape.mean = std::accumulate(shape.values.begin(), shape.values.end(), 0.0) / kCases;
  return shape;
}

/// A share of misses (Dice 0) among cases that are else beta(9, 1.6): mean 0.85, with a tail of
/// poor ones.
inline DiceShape SkewedDice(double misses) {
  const std::string name =
      misses == 0 ? "skewed" : std::to_string(static_cast<int>(100 * misses + 0.5)) + " % missed";
  return ShapeOf(name, [misses](double p) {
    return p < misses ? 0 : BetaQuantile((p - misses) / (1 - misses), 9, 1.6);
  });
}

/// The shapes that Dice has in practice, from kind to unkind.
inline std::vector<DiceShape> DiceShapes() {
  return {SkewedDice(0),
          ShapeOf("two groups",
                  [](double p) {
                    return p < 0.5 ? BetaQuantile(2 * p, 12, 12) : BetaQuantile(2 * p - 1, 40, 5);
                  }),
          SkewedDice(0.1), SkewedDice(0.3),
          // 95 % within 0.01 of 0.9; the rest anywhere below.
          ShapeOf("nearly all 0.9", [](double p) {
            return p < 0.05 ? 18 * p : 0.9 + 0.005 * NormalQuantile((p - 0.05) / 0.95);
          })};
}

}  // namespace isoscan
