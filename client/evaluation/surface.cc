#include "client/evaluation/surface.h"

#include <bit>
#include <cassert>
#include <cstddef>
#include <limits>
#include <numeric>

#include "client/kernels/vector_clones.h"

namespace isoscan {
namespace {

/// Grids of fewer words are done before another thread wakes up.
constexpr std::int64_t kManyWords = 1 << 12;

/// Bits of `word`, one point further: bit i holds what point i - 1 is.
std::uint64_t FromBefore(const std::uint64_t* word) { return word[0] << 1 | word[-1] >> 63; }
std::uint64_t FromBehind(const std::uint64_t* word) { return word[0] >> 1 | word[1] << 63; }

/// The rows of voxels that meet in row (y, z) of corners.
std::array<const std::uint64_t*, 4> RowsAround(const BitGrid& mask, std::int64_t y,
                                               std::int64_t z) {
  return {mask.Row(y - 1, z - 1), mask.Row(y, z - 1), mask.Row(y - 1, z), mask.Row(y, z)};
}

/// Marks the elements of a slice; returns how many there are.
ISOSCAN_VECTOR_CLONES
std::int64_t MarkElements(const BitGrid& mask, std::int64_t z, BitGrid& surface) {
  std::int64_t points = 0;
  for (std::int64_t y = 0; y < surface.size()[1]; ++y) {
    const auto rows = RowsAround(mask, y, z);
    std::uint64_t* const to = surface.Row(y, z);
    std::uint64_t any_before = 0;
    std::uint64_t all_before = 0;
    for (std::int64_t w = 0; w < surface.words(); ++w) {
      // Corners are one more than voxels: the last word may be the empty one behind a mask's row.
      const std::uint64_t any = rows[0][w] | rows[1][w] | rows[2][w] | rows[3][w];
      const std::uint64_t all = rows[0][w] & rows[1][w] & rows[2][w] & rows[3][w];
      to[w] = (any | any << 1 | any_before) & ~(all & (all << 1 | all_before));
      any_before = any >> 63;
      all_before = all >> 63;
      points += std::popcount(to[w]);
    }
  }
  return points;
}

/// Marks the border voxels of a slice; returns how many there are.
ISOSCAN_VECTOR_CLONES
std::int64_t MarkBorder(const BitGrid& mask, std::int64_t z, BitGrid& surface) {
  std::int64_t points = 0;
  for (std::int64_t y = 0; y < surface.size()[1]; ++y) {
    const std::uint64_t* const row = mask.Row(y, z);
    const std::uint64_t* const up = mask.Row(y - 1, z);
    const std::uint64_t* const down = mask.Row(y + 1, z);
    const std::uint64_t* const front = mask.Row(y, z - 1);
    const std::uint64_t* const back = mask.Row(y, z + 1);
    std::uint64_t* const to = surface.Row(y, z);
    for (std::int64_t w = 0; w < surface.words(); ++w) {
      to[w] = row[w] &
              ~(FromBefore(row + w) & FromBehind(row + w) & up[w] & down[w] & front[w] & back[w]);
      points += std::popcount(to[w]);
    }
  }
  return points;
}

/// Voxels x - 1 and x of a row, as bits 0 and 1.
unsigned PairAt(const std::uint64_t* row, std::int64_t x) {
  const std::int64_t bit = x & (BitGrid::kWord - 1);
  const std::uint64_t* const word = row + x / BitGrid::kWord;
  const std::uint64_t pair = bit == 0 ? word[0] << 1 | word[-1] >> 63 : word[0] >> (bit - 1);
  return static_cast<unsigned>(pair & 3);
}

unsigned CodeAt(const std::array<const std::uint64_t*, 4>& rows, std::int64_t x) {
  unsigned code = 0;
  for (unsigned i = 0; i < rows.size(); ++i) code |= PairAt(rows[i], x) << (2 * i);
  return code;
}

ISOSCAN_VECTOR_CLONES
void ListPoints(const BitGrid& mask, SurfaceDefinition definition, const BitGrid& surface,
                std::int64_t z, SurfacePoint* to) {
  for (std::int64_t y = 0; y < surface.size()[1]; ++y) {
    const std::uint64_t* const row = surface.Row(y, z);
    const auto rows = RowsAround(mask, y, z);
    for (std::int64_t w = 0; w < surface.words(); ++w) {
      for (std::uint64_t rest = row[w]; rest != 0; rest &= rest - 1) {
        const std::int64_t x = w * BitGrid::kWord + std::countr_zero(rest);
        to->x = static_cast<std::uint16_t>(x);
        to->y = static_cast<std::uint16_t>(y);
        to->z = static_cast<std::uint16_t>(z);
        to->code = definition == SurfaceDefinition::kElements
                       ? static_cast<std::uint8_t>(CodeAt(rows, x))
                       : std::uint8_t{0};
        ++to;
      }
    }
  }
}

}  // namespace

Surface SurfaceOf(const BitGrid& mask, SurfaceDefinition definition,
                  const std::array<std::int64_t, 2>& margin) {
  std::array<std::int64_t, 3> size = mask.size();
  const bool elements = definition == SurfaceDefinition::kElements;
  for (std::int64_t& points : size) {
    assert(points < std::numeric_limits<std::uint16_t>::max());
    points += elements ? 1 : 0;
  }
  Surface surface{.grid = BitGrid(size, margin), .points = {}};
  const bool large = size[2] * mask.slice_stride() > kManyWords;
  std::vector<std::int64_t> first(static_cast<std::size_t>(size[2]) + 1);
#pragma omp parallel for if (large)
  for (std::int64_t z = 0; z < size[2]; ++z) {
    first[static_cast<std::size_t>(z) + 1] =
        elements ? MarkElements(mask, z, surface.grid) : MarkBorder(mask, z, surface.grid);
  }
  std::partial_sum(first.begin(), first.end(), first.begin());
  surface.points.resize(static_cast<std::size_t>(first.back()));
#pragma omp parallel for if (large)
  for (std::int64_t z = 0; z < size[2]; ++z) {
    ListPoints(mask, definition, surface.grid, z,
               surface.points.data() + first[static_cast<std::size_t>(z)]);
  }
  return surface;
}

}  // namespace isoscan
