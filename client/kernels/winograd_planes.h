#pragma once

#include <cstdint>

// The inner loops of packed_convolution.cc, compiled for AVX-512; what convolution_tiles.h says
// about headers of such files holds here, too.
//
// Winograd's algorithm along rows and columns at once: a tile of outputs of a kernel of 3 x 3 takes
// fewer products than it has weights. float32: F(4 x 4, 3 x 3), 36 products instead of 144, points
// 0, 1, -1, 2, -2 and infinity. bfloat16: F(2 x 2, 3 x 3), 16 instead of 36, whose transforms are
// sums alone: larger tiles would cost digits that bfloat16 does not have.
// Source: docs/references.md#lavin2016.

namespace isoscan::kernels {

/// Outputs of a tile along an axis, products along it (outputs + 2).
inline constexpr int kFloat32Outputs = 4;
inline constexpr int kFloat32Products = 6;
inline constexpr int kBfloat16Outputs = 2;
inline constexpr int kBfloat16Products = 4;

/// products[6 i + j][t], t < tiles, of the input under a row of tiles: 6 rows of `width` numbers,
/// the first one above the tiles; the first tile begins one number before them, and zeros are on
/// both sides. `stride` numbers lie between products.
void TransformPlane(const float* const* rows, std::int64_t width, std::int64_t tiles,
                    float* products, std::int64_t stride);

/// products[4 i + j][t] of a pair of channels: 4 rows of the first, 4 of the second.
void TransformPlane(const std::uint16_t* const* rows, std::int64_t width, std::int64_t tiles,
                    std::uint32_t* products, std::int64_t stride);

/// outputs[a][m t + b][lane] of products[n i + j][t][lane], for m x m outputs by n x n products; a
/// in steps of `row_stride`, products in steps of `stride`.
void TransformPlaneOutputFloat32(const float* products, std::int64_t stride, std::int64_t tiles,
                                 std::int64_t lanes, float* outputs, std::int64_t row_stride);
void TransformPlaneOutputBfloat16(const float* products, std::int64_t stride, std::int64_t tiles,
                                  std::int64_t lanes, float* outputs, std::int64_t row_stride);

}  // namespace isoscan::kernels
