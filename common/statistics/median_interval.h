#pragma once

#include <optional>
#include <span>

#include "common/statistics/interval.h"

namespace isoscan {

/// Of the median of the distribution that the cases are from: the innermost pair of order
/// statistics (the k-th lowest and the k-th highest case) that covers at least `level`, whatever
/// the distribution. No draws. nullopt where even the lowest and the highest case cover less: 5
/// cases or fewer at 0.95.
///
/// `sorted` ascending, without NaN.
/// Source: docs/references.md#conover1999, section 3.2.
std::optional<Interval> MedianInterval(std::span<const double> sorted, double level);

}  // namespace isoscan
