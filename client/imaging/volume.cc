#include "client/imaging/volume.h"

#include <algorithm>
#include <cmath>

namespace isoscan {

std::array<double, 3> PhysicalPoint(const Geometry& geometry, const std::array<double, 3>& index) {
  std::array<double, 3> point = geometry.origin_mm;
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      point[row] += geometry.direction[row][axis] * geometry.spacing_mm[axis] * index[axis];
    }
  }
  return point;
}

double GreatestCornerDistance(const Geometry& left, const Geometry& right) {
  double greatest = 0;
  for (int corner = 0; corner < 8; ++corner) {
    const auto corner_of = [corner](const Geometry& geometry) {
      std::array<double, 3> index{};
      for (std::size_t axis = 0; axis < 3; ++axis) {
        index[axis] = (corner >> axis) & 1 ? static_cast<double>(geometry.size[axis] - 1) : 0.0;
      }
      return PhysicalPoint(geometry, index);
    };
    const std::array<double, 3> a = corner_of(left);
    const std::array<double, 3> b = corner_of(right);
    greatest = std::max(greatest, std::hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]));
  }
  return greatest;
}

bool SameGrid(const Geometry& left, const Geometry& right, double tolerance_mm) {
  return left.size == right.size && GreatestCornerDistance(left, right) <= tolerance_mm;
}

double GridToleranceOf(const Geometry& geometry) {
  return 0.25 * *std::min_element(geometry.spacing_mm.begin(), geometry.spacing_mm.end());
}

}  // namespace isoscan
