#include "client/evaluation/bit_grid.h"

#include <algorithm>
#include <cstring>

#include "client/imaging/byte_bits.h"
#include "client/kernels/vector_clones.h"

namespace isoscan {
namespace {

/// Grids of fewer words are filled before another thread wakes up.
constexpr std::int64_t kManyWords = 1 << 13;

ISOSCAN_VECTOR_CLONES
void PackRow(const std::uint8_t* voxels, std::int64_t count, std::uint8_t value,
             std::uint64_t* words) {
  const std::uint64_t pattern = 0x0101010101010101 * std::uint64_t{value};
  for (; count > 0; count -= BitGrid::kWord, voxels += BitGrid::kWord) {
    const std::int64_t here = std::min(count, BitGrid::kWord);
    std::array<std::uint64_t, BitGrid::kWord / 8> bytes{};
    if (here == BitGrid::kWord) {
      std::memcpy(bytes.data(), voxels, BitGrid::kWord);
    } else {
      std::memcpy(bytes.data(), voxels, static_cast<std::size_t>(here));
    }
    for (std::uint64_t& eight : bytes) eight ^= pattern;
    *words++ = ~NonzeroBytes(bytes);  // What lies behind the row is background, and no value.
  }
}

}  // namespace

BitGrid::BitGrid(const std::array<std::int64_t, 3>& size, const std::array<std::int64_t, 2>& margin)
    : size_(size),
      margin_(margin),
      row_stride_((size[0] + kWord - 1) / kWord + 2),
      slice_stride_((size[1] + 2 * margin[0]) * row_stride_),
      words_(static_cast<std::size_t>((size[2] + 2 * margin[1]) * slice_stride_)) {}

BitGrid VoxelsOf(const LabelMap& labels, std::uint8_t value, const VoxelBox& box) {
  const std::array<std::int64_t, 3>& whole = labels.geometry.size;
  BitGrid grid({box.end[0] - box.first[0], box.end[1] - box.first[1], box.end[2] - box.first[2]});
  const std::array<std::int64_t, 3>& size = grid.size();
#pragma omp parallel for if (size[2] * grid.slice_stride() > kManyWords)
  for (std::int64_t z = 0; z < size[2]; ++z) {
    for (std::int64_t y = 0; y < size[1]; ++y) {
      const std::int64_t row =
          ((box.first[2] + z) * whole[1] + box.first[1] + y) * whole[0] + box.first[0];
      PackRow(labels.voxels.data() + row, size[0], value, grid.Row(y, z));
    }
  }
  return grid;
}

}  // namespace isoscan
