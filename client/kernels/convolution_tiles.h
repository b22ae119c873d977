#pragma once

#include <cstdint>

// The inner loops of convolution.cc, compiled for AVX-512. This header is included by a file that
// is compiled so, hence it has no function of its own and includes nothing that has: the linker
// could take such a function's AVX-512 form for all of the program.

namespace isoscan::kernels {

/// Numbers travel as 32-bit words: one float32, or two bfloat16 that are multiplied and added
/// together.
enum class Words { kFloat32, kBfloat16 };

/// Lanes of a vector of words.
inline constexpr std::int64_t kLanes = 16;
/// Output features of a block: two vectors.
inline constexpr std::int64_t kWidest = 2 * kLanes;
/// Voxels of a tile at most: 12 x 2 accumulators leave registers for the weights.
inline constexpr std::int64_t kMostVoxels = 12;

/// One of a kernel's weights: where its input lies from the tile's own, and its place in the
/// kernel.
struct Tap {
  std::int64_t input;    ///< In words.
  std::int64_t weights;  ///< In words.
};

/// Sums products over channels and taps for `rows` x `width` output voxels.
struct Tile {
  const std::uint32_t* input;   ///< Word of the first voxel under the first tap, first channel.
  std::int64_t channel_stride;  ///< In words.
  std::int64_t row_stride;      ///< From one output row to the next, in words.
  std::int64_t channels;        ///< Bfloat16: pairs of channels.
  const Tap* taps;              ///< Those that do not lie wholly in the zeros around the volume.
  std::int64_t tap_count;
  const std::uint32_t* weights;  ///< [channels][taps of the kernel][16 x vectors].
  std::int64_t weights_stride;   ///< From one channel to the next, in words.
  const float* start;            ///< What the sums start from: [16 x vectors].
  float* output;                 ///< [rows][width][16 x vectors].
  std::int64_t output_stride;    ///< From one voxel to the next, in floats.
};

using TileFunction = void (*)(const Tile& tile);

/// For `vectors` 1 or 2, `rows` 1 or 2, rows x width at most kMostVoxels.
TileFunction FindTile(Words words, int vectors, int rows, int width);

/// Adds to the gradients of `inputs` x 16 x `vectors` weights the products of all rows of a block.
struct GradientBlock {
  const char* input;          ///< First row of the first input.
  std::int64_t input_stride;  ///< From one input to the next; in bytes, as the two below.
  std::int64_t plane_stride;
  std::int64_t row_stride;
  const std::uint32_t* output_gradient;  ///< [planes][rows][words][16 x vectors].
  std::int64_t gradient_plane_stride;    ///< In words, from one plane to the next.
  std::int64_t planes;
  std::int64_t rows;
  std::int64_t words;        ///< Of a row: voxels in float32, pairs of voxels in bfloat16.
  float* sums;               ///< [inputs][16 x vectors].
  std::int64_t sums_stride;  ///< From one input to the next, in floats.
};

using GradientFunction = void (*)(const GradientBlock& block);

/// For `vectors` 1 or 2 and `inputs` 1, 3, 4, 8 or 12.
GradientFunction FindGradient(Words words, int vectors, int inputs);

// Winograd's algorithm along x for rows of three weights. In float32 F(4, 3): four outputs by six
// products instead of twelve; points 0, 1, -1, 2, -2 and infinity. In bfloat16 F(2, 3): two by four
// instead of six; points 0, 1, -1 and infinity, so that no transform adds more than two numbers
// that are then rounded to 8 bits, or halves anything but weights, which are float32.
// Source: docs/references.md#lavin2016.

/// products[j][t], t < tiles, of the voxels 4 t - 1 .. 4 t + 4 of a row, or 2 t - 1 .. 2 t + 2;
/// zeros beyond its ends.
void TransformInput(const std::uint32_t* row, std::int64_t width, std::int64_t tiles,
                    std::uint32_t* products);
void TransformInput(const std::uint16_t* row, std::int64_t width, std::int64_t tiles,
                    std::uint16_t* products);
/// The same of two rows: words of a product of each.
void TransformInputs(const std::uint16_t* low, const std::uint16_t* high, std::int64_t width,
                     std::int64_t tiles, std::uint32_t* products);

/// products[j][n][lane] of the weights [n][3][lane]; `stride` numbers from one j to the next.
void TransformWeights(Words words, const float* weights, std::int64_t count, std::int64_t lanes,
                      float* products, std::int64_t stride);

/// outputs[t][4 or 2][lane] of the sums of products[j][t][lane], plus start[lane].
void TransformOutput(Words words, const float* products, std::int64_t count, std::int64_t lanes,
                     std::int64_t stride, const float* start, float* outputs);

/// The transposes of the last two, for gradients. products[j][t][lane] of the output's gradients
/// [4 t][lane], or products[j][t] of a row of them, zeros beyond its end.
void TransformOutputGradient(const float* outputs, std::int64_t tiles, std::int64_t lanes,
                             float* products, std::int64_t stride);
void TransformOutputGradient(const std::uint16_t* row, std::int64_t width, std::int64_t tiles,
                             std::uint16_t* products, std::int64_t stride);
/// weights[n][3][lane] of the sums of products[j][n][lane].
void TransformWeightGradient(Words words, const float* products, std::int64_t count,
                             std::int64_t lanes, std::int64_t stride, float* weights);

/// to[column][row] = from[row][column], of 32-bit words; strides in words.
void Transpose(const std::uint32_t* from, std::int64_t rows, std::int64_t columns,
               std::int64_t from_stride, std::uint32_t* to, std::int64_t to_stride);

/// Rounds to the nearest bfloat16, ties to even.
void Round(const float* from, std::int64_t count, std::uint16_t* to);

/// to[i] = from[i * stride].
void Gather(const std::uint32_t* from, std::int64_t count, std::int64_t stride, std::uint32_t* to);
void Gather(const std::uint16_t* from, std::int64_t count, std::int64_t stride, std::uint16_t* to);

/// Of `count` numbers, float32 or bfloat16 by their bits, in double.
double Sum(const std::uint32_t* values, std::int64_t count);
double Sum(const std::uint16_t* values, std::int64_t count);

/// to[i] = a[i] | b[i] << 16.
void Interleave(const std::uint16_t* a, const std::uint16_t* b, std::int64_t count,
                std::uint32_t* to);

}  // namespace isoscan::kernels
