#pragma once

#include <cstdint>

#include "common/statistics/interval.h"

namespace isoscan {

/// Of a proportion of which `hits` of `n` cases were seen, such as misses: covers at least `level`
/// whatever the proportion is, and so more than that on average. Requires 0 <= hits <= n, n >= 1.
///
/// Source: docs/references.md#clopper1934.
Interval ClopperPearson(std::int64_t hits, std::int64_t n, double level);

/// Shorter, and near `level` on average over proportions instead of at least. The same
/// requirements.
///
/// Source: docs/references.md#wilson1927, without continuity correction.
Interval Wilson(std::int64_t hits, std::int64_t n, double level);

}  // namespace isoscan
