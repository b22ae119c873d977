#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "client/kernels/convolution.h"
#include "client/kernels/convolution_tiles.h"

// How convolution.cc and winograd_convolution.cc divide their work.

namespace isoscan::kernels {

using Word = std::uint32_t;

/// What a unit of work packs at most, in words: 4 MiB, which a core's share of the last cache
/// holds.
constexpr std::int64_t kSlabWords = 1 << 20;

inline std::int64_t CeilDivide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Memory that is written before it is read.
template <typename T>
std::unique_ptr<T[]> Uninitialized(std::int64_t count) {
  return std::make_unique_for_overwrite<T[]>(static_cast<std::size_t>(count));
}

/// Output features in blocks of 32, and one of 16 at the end where there is an odd number of them.
struct Block {
  std::int64_t first;
  int vectors;
  std::int64_t width() const { return vectors * kLanes; }
};

inline std::vector<Block> Blocks(std::int64_t features) {
  std::vector<Block> blocks;
  for (std::int64_t first = 0; first < features; first += kWidest) {
    blocks.push_back({first, features - first >= kWidest ? 2 : 1});
  }
  return blocks;
}

/// Planes [first, first + count) of a sample, with the planes that their kernels reach.
struct Slab {
  std::int64_t sample;
  std::int64_t first;
  std::int64_t count;
};

inline std::vector<Slab> Slabs(const Convolution3d& shape, std::int64_t planes) {
  std::vector<Slab> slabs;
  for (std::int64_t sample = 0; sample < shape.samples; ++sample) {
    for (std::int64_t first = 0; first < shape.size[0]; first += planes) {
      slabs.push_back({sample, first, std::min(planes, shape.size[0] - first)});
    }
  }
  return slabs;
}

/// A slab's rows with zeros around them.
struct PaddedGrid {
  PaddedGrid(const Convolution3d& shape, std::int64_t planes_of_slab, std::int64_t row_length)
      : around{shape.kernel[0] / 2, shape.kernel[1] / 2, shape.kernel[2] / 2},
        planes(planes_of_slab + 2 * around[0]),
        rows(shape.size[1] + 2 * around[1]),
        row(row_length) {}

  std::int64_t plane() const { return rows * row; }
  std::int64_t channel() const { return planes * plane(); }

  std::array<std::int64_t, 3> around;
  std::int64_t planes;
  std::int64_t rows;
  std::int64_t row;  ///< Its length in whatever is stored.
};

/// Calls copy(source row, destination offset) for every row of the slab's padded channel that lies
/// in the volume, and clear(destination offset) for the others.
template <typename Copy, typename Clear>
void ForRows(const Convolution3d& shape, const Slab& slab, const PaddedGrid& grid, Copy copy,
             Clear clear) {
  for (std::int64_t plane = 0; plane < grid.planes; ++plane) {
    const std::int64_t z = slab.first + plane - grid.around[0];
    const bool inside = z >= 0 && z < shape.size[0];
    for (std::int64_t row = 0; row < grid.rows; ++row) {
      const std::int64_t y = row - grid.around[1];
      const std::int64_t to = plane * grid.plane() + row * grid.row;
      if (inside && y >= 0 && y < shape.size[1]) {
        copy((z * shape.size[1] + y) * shape.size[2], to);
      } else {
        clear(to);
      }
    }
  }
}

/// How a row of `width` sums is cut into tiles: in parts as equal as can be.
struct RowTiles {
  explicit RowTiles(std::int64_t width)
      : parts(CeilDivide(width, kMostVoxels)),
        rows(width <= kMostVoxels / 2 ? 2 : 1),
        starts(static_cast<std::size_t>(parts + 1)) {
    for (std::int64_t part = 0; part <= parts; ++part) {
      starts[static_cast<std::size_t>(part)] = part * width / parts;
    }
  }

  std::int64_t parts;
  std::int64_t rows;  ///< Narrow volumes: two rows make a tile.
  std::vector<std::int64_t> starts;
};

/// First and last tap along an axis that meet the volume anywhere from voxel `first` to `last`.
struct TapRange {
  TapRange(std::int64_t kernel, std::int64_t size, std::int64_t first_voxel,
           std::int64_t last_voxel)
      : first(std::max<std::int64_t>(0, kernel / 2 - last_voxel)),
        last(std::min(kernel - 1, kernel / 2 + size - 1 - first_voxel)) {}
  std::int64_t first;
  std::int64_t last;
};

/// Voxels along an axis, of those from `from` on, whose input under tap `tap` lies in the volume.
struct VoxelRange {
  VoxelRange(std::int64_t kernel, std::int64_t size, std::int64_t tap, std::int64_t from,
             std::int64_t length)
      : first(std::max(from, kernel / 2 - tap)),
        count(std::min(from + length, size + kernel / 2 - tap) - first) {}
  std::int64_t first;
  std::int64_t count;  ///< Not positive: none.
};

/// Taps of the rows [y, y + rows) of plane z: at the volume's faces a third of a kernel of 3 sees
/// nothing but zeros.
/// `row_taps`: how many weights a row of the kernel has, 1 where they are transformed.
inline void FindTaps(const Convolution3d& shape, const PaddedGrid& grid, std::int64_t z,
                     std::int64_t y, std::int64_t rows, std::int64_t row_taps, const Block& block,
                     std::vector<Tap>& taps) {
  const TapRange planes(shape.kernel[0], shape.size[0], z, z);
  const TapRange lines(shape.kernel[1], shape.size[1], y, y + rows - 1);
  taps.clear();
  for (std::int64_t a = planes.first; a <= planes.last; ++a) {
    for (std::int64_t b = lines.first; b <= lines.last; ++b) {
      for (std::int64_t c = 0; c < row_taps; ++c) {
        taps.push_back({a * grid.plane() + b * grid.row + c,
                        ((a * shape.kernel[1] + b) * row_taps + c) * block.width()});
      }
    }
  }
}

/// So many that a unit fits its cache, and that every thread has several units.
inline std::int64_t PlanesOfSlab(const Convolution3d& shape, std::int64_t words_of_plane,
                                 int threads) {
  const std::int64_t fitting = std::max<std::int64_t>(1, kSlabWords / words_of_plane);
  const std::int64_t shared = CeilDivide(shape.samples * shape.size[0], std::int64_t{8} * threads);
  return std::clamp<std::int64_t>(std::min(fitting, shared), 1, shape.size[0]);
}

}  // namespace isoscan::kernels
