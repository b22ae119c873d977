#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace isoscan {

/// One label per voxel of a canonical grid, at first all 0. Label maps are long stretches of one
/// label, so each slice is kept as runs: a few hundredths of a byte per voxel; of noise one byte.
class LabelSlices {
 public:
  LabelSlices() = default;
  explicit LabelSlices(const std::array<std::int64_t, 3>& size);

  bool empty() const { return slices_.empty(); }

  /// The voxels of the slice `z`, x fastest. `voxels` is resized.
  void Read(std::int64_t z, std::vector<std::uint8_t>& voxels) const;

  /// `voxels` are as many as Read() gives.
  void Write(std::int64_t z, const std::vector<std::uint8_t>& voxels);

 private:
  std::size_t slice_voxels_ = 0;
  /// Pairs of a label and the length of its run less 1, or, where these would be no shorter, the
  /// voxels themselves; empty: all 0.
  std::vector<std::vector<std::uint8_t>> slices_;
};

}  // namespace isoscan
