#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "client/evaluation/label_extents.h"

namespace isoscan {

/// Points of a grid that are in a set, one bit each: a brain's mask fits into the second cache.
///
/// Around the grid lie empty rows (`margin` of them before and behind, in y and in z) and an empty
/// word before and behind each row, so that whoever looks at a point's neighbours need not ask
/// whether they are there.
class BitGrid {
 public:
  static constexpr std::int64_t kWord = 64;

  /// Empty. Memory: an eighth of a byte a point, margins included.
  explicit BitGrid(const std::array<std::int64_t, 3>& size,
                   const std::array<std::int64_t, 2>& margin = {1, 1});

  const std::array<std::int64_t, 3>& size() const { return size_; }
  /// Words that hold the points of a row.
  std::int64_t words() const { return row_stride_ - 2; }
  /// Words from a row to the next in y, and in z.
  std::int64_t row_stride() const { return row_stride_; }
  std::int64_t slice_stride() const { return slice_stride_; }

  /// Bit i of word w is point 64 w + i; words -1 and words() are empty. `y` and `z` may lie in the
  /// margins.
  std::uint64_t* Row(std::int64_t y, std::int64_t z) { return words_.data() + Offset(y, z); }
  const std::uint64_t* Row(std::int64_t y, std::int64_t z) const {
    return words_.data() + Offset(y, z);
  }

 private:
  std::int64_t Offset(std::int64_t y, std::int64_t z) const {
    return (z + margin_[1]) * slice_stride_ + (y + margin_[0]) * row_stride_ + 1;
  }

  std::array<std::int64_t, 3> size_;
  std::array<std::int64_t, 2> margin_;
  std::int64_t row_stride_;
  std::int64_t slice_stride_;
  std::vector<std::uint64_t> words_;
};

/// The voxels of `box` that hold `value`, which is not 0. Threads: OpenMP's.
BitGrid VoxelsOf(const LabelMap& labels, std::uint8_t value, const VoxelBox& box);

}  // namespace isoscan
