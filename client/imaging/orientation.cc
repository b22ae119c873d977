#include "client/imaging/orientation.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <utility>

namespace isoscan {
namespace {

/// Canonical axis a runs along the stored axis `source[a]`, backwards when `flipped[a]`.
struct AxisOrder {
  std::array<std::size_t, 3> source;
  std::array<bool, 3> flipped;

  bool identity() const {
    return source == std::array<std::size_t, 3>{0, 1, 2} && !flipped[0] && !flipped[1] &&
           !flipped[2];
  }
};

AxisOrder NearestToLps(const Geometry& geometry) {
  // Of the six assignments the one whose axes lie nearest, in sum, to the patient's; the first wins
  // a tie, so the identity does.
  std::array<std::size_t, 3> order{0, 1, 2};
  std::array<std::size_t, 3> best = order;
  double best_alignment = -1;
  do {
    double alignment = 0;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      alignment += std::abs(geometry.direction[axis][order[axis]]);
    }
    if (alignment > best_alignment + 1e-9) {
      best_alignment = alignment;
      best = order;
    }
  } while (std::next_permutation(order.begin(), order.end()));

  AxisOrder result{.source = best, .flipped = {}};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    result.flipped[axis] = geometry.direction[axis][best[axis]] < 0;
  }
  return result;
}

Geometry Reordered(const Geometry& geometry, const AxisOrder& order) {
  Geometry result = geometry;
  std::array<double, 3> first_voxel{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const std::size_t source = order.source[axis];
    result.size[axis] = geometry.size[source];
    result.spacing_mm[axis] = geometry.spacing_mm[source];
    for (std::size_t row = 0; row < 3; ++row) {
      const double cosine = geometry.direction[row][source];
      result.direction[row][axis] = order.flipped[axis] ? -cosine : cosine;
    }
    if (order.flipped[axis]) first_voxel[source] = static_cast<double>(geometry.size[source] - 1);
  }
  result.origin_mm = PhysicalPoint(geometry, first_voxel);
  return result;
}

CanonicalWalk WalkOf(const Geometry& stored, const AxisOrder& order) {
  const std::array<std::int64_t, 3> stride{1, stored.size[0], stored.size[0] * stored.size[1]};
  CanonicalWalk walk;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const std::size_t source = order.source[axis];
    walk.step[axis] = order.flipped[axis] ? -stride[source] : stride[source];
    if (order.flipped[axis]) walk.first += (stored.size[source] - 1) * stride[source];
  }
  return walk;
}

/// Calls copy(canonical index, stored index) for every voxel.
template <typename Copy>
void ForEachPair(const std::array<std::int64_t, 3>& canonical_size, const CanonicalWalk& walk,
                 Copy copy) {
  // A small volume is done before another thread wakes up.
  const bool large = canonical_size[0] * canonical_size[1] * canonical_size[2] > (1 << 18);
#pragma omp parallel for if (large)
  for (std::int64_t z = 0; z < canonical_size[2]; ++z) {
    for (std::int64_t y = 0; y < canonical_size[1]; ++y) {
      const std::int64_t row = (z * canonical_size[1] + y) * canonical_size[0];
      const std::int64_t start = walk.first + z * walk.step[2] + y * walk.step[1];
      for (std::int64_t x = 0; x < canonical_size[0]; ++x) {
        copy(static_cast<std::size_t>(row + x), static_cast<std::size_t>(start + x * walk.step[0]));
      }
    }
  }
}

template <typename Image>
Image Canonical(const Image& image) {
  const AxisOrder order = NearestToLps(image.geometry);
  if (order.identity()) return image;
  Image result;
  result.geometry = Reordered(image.geometry, order);
  result.voxels.resize(image.voxels.size());
  ForEachPair(result.geometry.size, WalkOf(image.geometry, order),
              [&](std::size_t canonical, std::size_t stored) {
                result.voxels[canonical] = image.voxels[stored];
              });
  return result;
}

/// For an order that only flips, which is its own inverse: rows change places in pairs.
void FlipInPlace(Volume& volume, const AxisOrder& order) {
  const auto [width, height, depth] = volume.geometry.size;
  const std::ptrdiff_t rows = height * depth;
#pragma omp parallel for if (volume.geometry.voxels() > (1 << 18))
  for (std::ptrdiff_t row = 0; row < rows; ++row) {
    const std::ptrdiff_t y = row % height;
    const std::ptrdiff_t z = row / height;
    const std::ptrdiff_t other =
        (order.flipped[2] ? depth - 1 - z : z) * height + (order.flipped[1] ? height - 1 - y : y);
    if (other < row) continue;
    const auto first = volume.voxels.begin() + row * width;
    const auto second = volume.voxels.begin() + other * width;
    if (other > row) std::swap_ranges(first, first + width, second);
    if (!order.flipped[0]) continue;
    std::reverse(first, first + width);
    if (other > row) std::reverse(second, second + width);
  }
}

template <typename Image>
Image InOrderOf(const Image& image, const Geometry& original) {
  assert(CanonicalGeometry(original).size == image.geometry.size);
  Image result;
  result.geometry = original;
  result.voxels.resize(image.voxels.size());
  ForEachPair(image.geometry.size, WalkOf(original, NearestToLps(original)),
              [&](std::size_t canonical, std::size_t stored) {
                result.voxels[stored] = image.voxels[canonical];
              });
  return result;
}

}  // namespace

Geometry CanonicalGeometry(const Geometry& geometry) {
  return Reordered(geometry, NearestToLps(geometry));
}

CanonicalWalk CanonicalWalkOf(const Geometry& stored) {
  return WalkOf(stored, NearestToLps(stored));
}

Volume ToCanonical(const Volume& volume) { return Canonical(volume); }

LabelMap ToCanonical(const LabelMap& labels) { return Canonical(labels); }

Volume ToCanonical(Volume&& volume) {
  const AxisOrder order = NearestToLps(volume.geometry);
  if (order.source != std::array<std::size_t, 3>{0, 1, 2}) return Canonical(volume);
  if (!order.identity()) {
    FlipInPlace(volume, order);
    volume.geometry = Reordered(volume.geometry, order);
  }
  return std::move(volume);
}

LabelMap FromCanonical(const LabelMap& labels, const Geometry& original) {
  return InOrderOf(labels, original);
}

Volume FromCanonical(const Volume& volume, const Geometry& original) {
  return InOrderOf(volume, original);
}

}  // namespace isoscan
