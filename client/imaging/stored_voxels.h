#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace isoscan {

/// The voxels of one file as they are stored, x fastest.
struct StoredVoxels {
  std::array<std::int64_t, 3> size{};
  std::int16_t datatype = 0;  ///< NIfTI's number for it, in every format.
  std::size_t voxel_bytes = 0;
  bool swapped = false;  ///< Stored in the other byte order.
  double slope = 1;      ///< value = slope * stored + intercept.
  double intercept = 0;

  std::int64_t voxel_data_bytes() const {
    return size[0] * size[1] * size[2] * static_cast<std::int64_t>(voxel_bytes);
  }
};

}  // namespace isoscan
