#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "server/aggregation/update_distances.h"

namespace isoscan {

/// Of each update of `among` (indices of `distances`), in their order: the sum of the squared
/// distances to the `neighbours` of them that are nearest to it.
std::vector<double> KrumScores(const Distances& distances, const std::vector<std::size_t>& among,
                               std::size_t neighbours);

/// Which updates were chosen, in ascending order, and why each other was not (by update; empty
/// where it was chosen).
struct Selection {
  std::vector<std::size_t> chosen;
  std::vector<std::string> left_out;
};

/// The `kept` updates with the lowest scores, where each is measured by its n - f - 2 nearest; of
/// equals the first. With `kept` 1 it is Krum, with more Multi-Krum. Up to `faulty` of the updates
/// may be anything.
///
///   s(i) = sum_{i -> j} |x_i - x_j|^2, i -> j: the n - f - 2 nearest to i
///
/// There must be at least 2 f + 3 updates, and `kept` of them.
/// Source: docs/references.md#blanchard2017, section 4 (Krum) and 5 (Multi-Krum).
Selection SelectByKrum(const Distances& distances, std::size_t faulty, std::size_t kept);

/// Bulyan's first half: what Krum chooses is set aside, and Krum asked again among the rest, until
/// theta = n - 2 f are chosen. Among r that are left the r - f - 2 nearest count, but at least one:
/// in the last turns the formula has none.
///
/// There must be at least 4 f + 3 updates.
/// Source: docs/references.md#elmhamdi2018, section 4.
Selection SelectForBulyan(const Distances& distances, std::size_t faulty);

}  // namespace isoscan
