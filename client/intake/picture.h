#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace isoscan {

/// A canonical volume in 8 x 8 x 8 blocks of equal share of its extent, x fastest: enough to tell
/// what is bright and what is dark, and where. NaN where a block holds no voxel that counts.
using Picture = std::vector<float>;
inline constexpr std::size_t kPictureEdge = 8;

/// Takes the block means of voxels that are given one by one.
class PictureMaker {
 public:
  /// `size` of the canonical volume, x, y, z.
  explicit PictureMaker(const std::array<std::int64_t, 3>& size);

  /// The block of voxel (x, y, z) is AxisBlock(0, x) + AxisBlock(1, y) + AxisBlock(2, z).
  std::size_t AxisBlock(std::size_t axis, std::int64_t index) const {
    return axis_blocks_[axis][static_cast<std::size_t>(index)];
  }
  void Add(std::size_t block, double value) {
    sums_[block] += value;
    ++counts_[block];
  }

  /// The means over blocks with at least `least_share` of their voxels, less their mean, over their
  /// standard deviation: an affine map of the volume changes nothing. A flat one is all NaN.
  Picture Finish(double least_share) const;

 private:
  std::array<std::int64_t, 3> size_;
  std::array<std::vector<std::size_t>, 3> axis_blocks_;
  std::vector<double> sums_;
  std::vector<std::int64_t> counts_;
};

/// Pearson's correlation over the blocks that both have; 0 when these are fewer than 27, or flat.
double Correlation(const Picture& left, const Picture& right);

/// Per block the median over the pictures that have it; NaN where fewer than half have.
Picture MedianPicture(const std::vector<const Picture*>& pictures);

}  // namespace isoscan
