#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "client/evaluation/surface.h"

namespace isoscan {

/// Exact Euclidean distances from the points of one surface to the nearest of another on the same
/// grid, in time linear in the grid's size.
///
/// Nearly all points of a useful segmentation lie close to the reference: around each, the rows of
/// the other grid are looked at from near to far, 57 points at a time, until none can be nearer.
/// Where that would take long, for points that are far, those of a plane of constant x get their
/// distances from a transform of the plane (Felzenszwalb and Huttenlocher's lower envelopes along y
/// and z). Source: docs/references.md#felzenszwalb2012.
class NearestPoints {
 public:
  /// A row of points, relative to the one that is searched from.
  struct Row {
    std::int64_t y = 0;
    std::int64_t z = 0;
    double squared_mm = 0;
  };

  explicit NearestPoints(const std::array<double, 3>& spacing_mm);

  /// What the grid of `to` needs around it, at least.
  const std::array<std::int64_t, 2>& margin() const { return margin_; }

  /// In mm2, for each of from.points; infinity where `to` has none. Memory: 8 bytes a point and,
  /// for those that are far, per thread 8 bytes for each point of a plane of y and z. Threads:
  /// OpenMP's; their number does not show in the result.
  std::vector<double> SquaredDistances(const Surface& from, const Surface& to) const;

 private:
  std::array<double, 3> spacing_mm_;
  std::array<std::int64_t, 2> margin_{};
  std::vector<Row> rows_;        ///< From near to far.
  std::vector<double> along_x_;  ///< Squared distance of so many points; infinity if not seen.
  double searched_squared_ = 0;  ///< Whatever is at most as far as this is found.
};

}  // namespace isoscan
