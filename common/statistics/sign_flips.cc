#include "common/statistics/sign_flips.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <vector>

#include "common/random/philox.h"

namespace isoscan {
namespace {

constexpr int kDraws = 10'000;

// Sums of the subsets of `values`, by bit mask; the empty one's is 0.
std::vector<double> SubsetSums(const std::vector<double>& values) {
  std::vector<double> sums = {0};
  sums.reserve(std::size_t{1} << values.size());
  for (const double value : values) {
    const std::size_t before = sums.size();
    for (std::size_t mask = 0; mask < before; ++mask) sums.push_back(sums[mask] + value);
  }
  return sums;
}

}  // namespace

double SignFlipProbability(std::span<const double> differences, double origin, std::uint64_t seed) {
  if (differences.empty()) return 1;
  std::vector<double> above(differences.begin(), differences.end());
  double size = 0;
  for (double& value : above) {
    value -= origin;
    size += std::fabs(value);
  }
  // The flipped sum is the sum less twice that of the subset that is flipped: it is as high where
  // the subset's sum is 0 or less. Sums that are equal but for rounding count as equal.
  const double rounding = 1e-13 * size;
  std::int64_t hits = 0;
  if (above.size() <= kMostExactSignFlips) {
    const std::vector<double> sums = SubsetSums(above);
    for (const double sum : sums) hits += sum <= rounding;
    return static_cast<double>(hits) / static_cast<double>(sums.size());
  }
  RandomStream random(seed, "sign flips");
  for (int draw = 0; draw < kDraws; ++draw) {
    double sum = 0;
    std::uint32_t flips = 0;
    for (std::size_t i = 0; i < above.size(); ++i) {
      if (i % 32 == 0) flips = random.NextBits();
      if (flips & 1) sum += above[i];
      flips >>= 1;
    }
    hits += sum <= rounding;
  }
  return static_cast<double>(1 + hits) / (1 + kDraws);
}

std::optional<Interval> SignFlipInterval(std::span<const double> differences, double level) {
  assert(differences.size() <= kMostExactSignFlips);
  std::vector<double> means = SubsetSums({differences.begin(), differences.end()});
  // An origin is rejected from below when the empty subset and those whose mean is at most the
  // origin are no more than this many of the 2^n.
  const auto rejected =
      static_cast<std::size_t>((1 - level) / 2 * static_cast<double>(means.size()) * (1 + 1e-12));
  if (rejected == 0) return std::nullopt;
  for (std::size_t mask = 1; mask < means.size(); ++mask) means[mask] /= std::popcount(mask);
  const auto first = means.begin() + 1;
  const auto low = first + static_cast<std::ptrdiff_t>(rejected - 1);
  const auto high = means.end() - static_cast<std::ptrdiff_t>(rejected);
  std::nth_element(first, low, means.end());
  const double lower = *low;
  std::nth_element(first, high, means.end());
  return Interval{
      .low = lower, .high = *high, .level = level, .method = IntervalMethod::kSignFlips};
}

}  // namespace isoscan
