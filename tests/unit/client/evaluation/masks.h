/// Label maps for tests of what compares two of them.
#pragma once

#include <array>
#include <cstdint>

#include "client/imaging/volume.h"
#include "common/random/philox.h"

namespace isoscan {

inline LabelMap EmptyMap(const std::array<std::int64_t, 3>& size,
                         const std::array<double, 3>& spacing_mm = {1, 1, 1}) {
  LabelMap labels;
  labels.geometry.size = size;
  labels.geometry.spacing_mm = spacing_mm;
  labels.voxels.resize(static_cast<std::size_t>(labels.geometry.voxels()));
  return labels;
}

inline std::uint8_t& At(LabelMap& labels, std::int64_t x, std::int64_t y, std::int64_t z) {
  const auto& size = labels.geometry.size;
  return labels.voxels[static_cast<std::size_t>((z * size[1] + y) * size[0] + x)];
}

/// Gives voxels first ... end - 1 a label.
inline void Fill(LabelMap& labels, const std::array<std::int64_t, 3>& first,
                 const std::array<std::int64_t, 3>& end, std::uint8_t label) {
  for (std::int64_t z = first[2]; z < end[2]; ++z) {
    for (std::int64_t y = first[1]; y < end[1]; ++y) {
      for (std::int64_t x = first[0]; x < end[0]; ++x) At(labels, x, y, z) = label;
    }
  }
}

/// So many boxes of random places, sizes and labels; they may lie over each other.
inline LabelMap RandomBoxes(const std::array<std::int64_t, 3>& size,
                            const std::array<double, 3>& spacing_mm, int boxes, int labels,
                            RandomStream& random) {
  LabelMap map = EmptyMap(size, spacing_mm);
  for (int i = 0; i < boxes; ++i) {
    std::array<std::int64_t, 3> first;
    std::array<std::int64_t, 3> end;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      const auto length = static_cast<double>(size[axis]);
      first[axis] = static_cast<std::int64_t>(random.Uniform(0, length));
      end[axis] = std::min(
          size[axis], first[axis] + 1 + static_cast<std::int64_t>(random.Uniform(0, length / 2)));
    }
    Fill(map, first, end, static_cast<std::uint8_t>(random.Uniform(1, labels + 1)));
  }
  return map;
}

}  // namespace isoscan
