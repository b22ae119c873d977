#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "common/statistics/interval.h"

namespace isoscan {

/// Up to so many differences all 2^n ways of signs are gone through; above, a seeded sample of
/// them.
inline constexpr std::size_t kMostExactSignFlips = 20;

/// One-sided test of differences against `origin`: how likely a mean at least as far above it would
/// be if each difference lay on either side of `origin` with the same chance (a distribution that
/// is symmetric about it, or about less). The least possible answer is 2^-n; 1 for no differences.
///
/// Above kMostExactSignFlips differences, (1 + hits) / (1 + draws) over 10,000 draws: valid for any
/// number of them (docs/references.md#phipson2010).
/// Source: docs/references.md#fisher1935, section 21.
double SignFlipProbability(std::span<const double> differences, double origin, std::uint64_t seed);

/// The origins that the test above rejects in neither direction, each at (1 - level) / 2: an
/// interval for the centre of a symmetric distribution that is exact for any n. nullopt where 2^-n
/// is above that (5 differences or fewer at 0.95).
///
/// Requires at most kMostExactSignFlips differences.
/// Source: docs/references.md#hartigan1969 (the means of the subsets of the differences).
std::optional<Interval> SignFlipInterval(std::span<const double> differences, double level);

}  // namespace isoscan
