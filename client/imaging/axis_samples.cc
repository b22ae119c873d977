#include "client/imaging/axis_samples.h"

#include <algorithm>
#include <cmath>

#include "client/kernels/vector_clones.h"

namespace isoscan {

std::vector<double> SampleCoordinates(const Geometry& source, const Geometry& target,
                                      std::size_t axis) {
  double offset_mm = 0;
  for (std::size_t row = 0; row < 3; ++row) {
    offset_mm += source.direction[row][axis] * (target.origin_mm[row] - source.origin_mm[row]);
  }
  std::vector<double> coordinates(static_cast<std::size_t>(target.size[axis]));
  const auto last = static_cast<double>(source.size[axis] - 1);
  for (std::size_t i = 0; i < coordinates.size(); ++i) {
    const double coordinate =
        (offset_mm + target.spacing_mm[axis] * static_cast<double>(i)) / source.spacing_mm[axis];
    // A coordinate that is whole but for rounding must not blend its neighbour in.
    const double whole = std::round(coordinate);
    const double snapped = std::abs(coordinate - whole) < 1e-9 * (1 + last) ? whole : coordinate;
    coordinates[i] = std::clamp(snapped, 0.0, last);
  }
  return coordinates;
}

std::vector<Taps> LinearTaps(const std::vector<double>& coordinates, std::int64_t size) {
  std::vector<Taps> taps(coordinates.size());
  for (std::size_t i = 0; i < taps.size(); ++i) {
    const auto lower = static_cast<std::int64_t>(std::floor(coordinates[i]));
    const double share = coordinates[i] - static_cast<double>(lower);
    taps[i].index = {lower, share > 0 ? std::min(lower + 1, size - 1) : lower, 0, 0};
    taps[i].weight = {static_cast<float>(1 - share), static_cast<float>(share), 0, 0};
  }
  return taps;
}

std::array<std::vector<Taps>, 3> LinearTapsOf(const Geometry& from, const Geometry& to) {
  std::array<std::vector<Taps>, 3> taps;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    taps[axis] = LinearTaps(SampleCoordinates(from, to, axis), from.size[axis]);
  }
  return taps;
}

bool SharesDirection(const Geometry& left, const Geometry& right) {
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      if (std::abs(left.direction[row][axis] - right.direction[row][axis]) > 1e-6) return false;
    }
  }
  return true;
}

ISOSCAN_VECTOR_CLONES
void BlendTwo(float* to, const float* a, const float* b, float weight_a, float weight_b,
              std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) to[i] = weight_a * a[i] + weight_b * b[i];
}

}  // namespace isoscan
