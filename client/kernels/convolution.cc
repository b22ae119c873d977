#include "client/kernels/convolution.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "client/kernels/convolution_slabs.h"
#include "client/kernels/convolution_tiles.h"
#include "client/kernels/winograd_convolution.h"

namespace isoscan {
namespace {

using kernels::Block;
using kernels::Blocks;
using kernels::CeilDivide;
using kernels::FindTaps;
using kernels::ForRows;
using kernels::kLanes;
using kernels::kSlabWords;
using kernels::kWidest;
using kernels::PaddedGrid;
using kernels::PlanesOfSlab;
using kernels::RowTiles;
using kernels::Slab;
using kernels::Slabs;
using kernels::Uninitialized;
using kernels::VoxelRange;
using kernels::Word;
using kernels::Words;

template <typename Number>
constexpr Words kWords = std::is_same_v<Number, Bfloat16> ? Words::kBfloat16 : Words::kFloat32;
/// Channels that share a word in Convolve().
template <typename Number>
constexpr std::int64_t kChannelsPerWord = std::is_same_v<Number, Bfloat16> ? 2 : 1;

bool HasProcessor([[maybe_unused]] Words words) {
#ifdef __x86_64__
  __builtin_cpu_init();
  const bool wide = __builtin_cpu_supports("avx512f") != 0 &&
                    __builtin_cpu_supports("avx512bw") != 0 &&
                    __builtin_cpu_supports("avx512vl") != 0;
  return wide && (words == Words::kFloat32 || __builtin_cpu_supports("avx512bf16") != 0);
#else
  return false;
#endif
}

/// Channel word `word` of a slab as Convolve() reads it.
void PackChannel(const Convolution3d& shape, const float* sample, std::int64_t word,
                 const Slab& slab, const PaddedGrid& grid, Word* packed) {
  const float* channel = sample + word * shape.voxels();
  const std::int64_t width = shape.size[2];
  const std::int64_t around = grid.around[2];
  ForRows(
      shape, slab, grid,
      [&](std::int64_t from, std::int64_t to) {
        std::fill_n(packed + to, around, 0U);
        std::memcpy(packed + to + around, channel + from,
                    static_cast<std::size_t>(width) * sizeof(float));
        std::fill_n(packed + to + around + width, around, 0U);
      },
      [&](std::int64_t to) { std::fill_n(packed + to, grid.row, 0U); });
}

void PackChannel(const Convolution3d& shape, const Bfloat16* sample, std::int64_t word,
                 const Slab& slab, const PaddedGrid& grid, Word* packed) {
  const std::int64_t width = shape.size[2];
  const std::int64_t around = grid.around[2];
  const auto* low = reinterpret_cast<const std::uint16_t*>(sample) + 2 * word * shape.voxels();
  const bool paired = 2 * word + 1 < shape.in;
  const std::vector<std::uint16_t> zeros(paired ? 0 : static_cast<std::size_t>(width));
  ForRows(
      shape, slab, grid,
      [&](std::int64_t from, std::int64_t to) {
        std::fill_n(packed + to, around, 0U);
        kernels::Interleave(low + from, paired ? low + shape.voxels() + from : zeros.data(), width,
                            packed + to + around);
        std::fill_n(packed + to + around + width, around, 0U);
      },
      [&](std::int64_t to) { std::fill_n(packed + to, grid.row, 0U); });
}

/// Weights [out, in, taps] as [block][channel words][taps][lanes of the block].
template <typename Number>
std::unique_ptr<Word[]> PackWeights(const Convolution3d& shape, const float* weights,
                                    const std::vector<Block>& blocks, const Parallel& parallel) {
  const std::int64_t taps = shape.taps();
  const std::int64_t words = CeilDivide(shape.in, kChannelsPerWord<Number>);
  const std::int64_t row = shape.in * taps;
  std::unique_ptr<Word[]> packed = Uninitialized<Word>(shape.out * words * taps);
  parallel.run(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t b) {
    const Block& block = blocks[static_cast<std::size_t>(b)];
    Word* to = packed.get() + block.first * words * taps;
    const float* from = weights + block.first * row;
    if constexpr (kWords<Number> == Words::kFloat32) {
      kernels::Transpose(reinterpret_cast<const Word*>(from), block.width(), row, row, to,
                         block.width());
    } else {
      // An even number of channels, the last zero where there is none.
      std::vector<std::uint16_t> rounded(static_cast<std::size_t>(2 * words * taps));
      std::vector<Word> pairs(static_cast<std::size_t>(block.width() * words * taps));
      for (std::int64_t feature = 0; feature < block.width(); ++feature) {
        kernels::Round(from + feature * row, row, rounded.data());
        for (std::int64_t word = 0; word < words; ++word) {
          kernels::Interleave(&rounded[static_cast<std::size_t>(2 * word * taps)],
                              &rounded[static_cast<std::size_t>((2 * word + 1) * taps)], taps,
                              &pairs[static_cast<std::size_t>((feature * words + word) * taps)]);
        }
      }
      kernels::Transpose(pairs.data(), block.width(), words * taps, words * taps, to,
                         block.width());
    }
  });
  return packed;
}

void StoreRow(const float* sums, std::int64_t voxels, const Block& block, std::int64_t stride,
              float* output, std::vector<float>& /*scratch*/) {
  kernels::Transpose(reinterpret_cast<const Word*>(sums), voxels, block.width(), block.width(),
                     reinterpret_cast<Word*>(output), stride);
}

void StoreRow(const float* sums, std::int64_t voxels, const Block& block, std::int64_t stride,
              Bfloat16* output, std::vector<float>& scratch) {
  scratch.resize(static_cast<std::size_t>(voxels * block.width()));
  kernels::Transpose(reinterpret_cast<const Word*>(sums), voxels, block.width(), block.width(),
                     reinterpret_cast<Word*>(scratch.data()), voxels);
  for (std::int64_t feature = 0; feature < block.width(); ++feature) {
    kernels::Round(&scratch[static_cast<std::size_t>(feature * voxels)], voxels,
                   reinterpret_cast<std::uint16_t*>(output + feature * stride));
  }
}

/// Weights of the transposed convolution: [in, out, taps], every kernel turned round.
std::unique_ptr<float[]> Turned(const Convolution3d& shape, const float* weights,
                                const Parallel& parallel) {
  const std::int64_t taps = shape.taps();
  std::unique_ptr<float[]> turned = Uninitialized<float>(shape.out * shape.in * taps);
  parallel.run(shape.in, [&](std::int64_t in) {
    float* to = turned.get() + in * shape.out * taps;
    for (std::int64_t out = 0; out < shape.out; ++out, to += taps) {
      const float* from = weights + (out * shape.in + in) * taps;
      std::reverse_copy(from, from + taps, to);
    }
  });
  return turned;
}

/// The input of a slab as the weights' gradient reads it: numbers as they are, zeros around them,
/// and so many behind a row that a pair never ends beyond it.
template <typename Number>
void PadChannel(const Convolution3d& shape, const Number* channel, const Slab& slab,
                const PaddedGrid& grid, Number* padded) {
  const std::int64_t width = shape.size[2];
  const std::int64_t around = grid.around[2];
  ForRows(
      shape, slab, grid,
      [&](std::int64_t from, std::int64_t to) {
        std::fill_n(padded + to, around, Number{});
        std::memcpy(padded + to + around, channel + from,
                    static_cast<std::size_t>(width) * sizeof(Number));
        std::fill_n(padded + to + around + width, grid.row - around - width, Number{});
      },
      [&](std::int64_t to) { std::fill_n(padded + to, grid.row, Number{}); });
}

/// One plane of a block of features as [rows][words][lanes of the block].
void PackGradient(const Convolution3d& shape, const float* plane, const Block& block,
                  Word* packed) {
  kernels::Transpose(reinterpret_cast<const Word*>(plane), block.width(),
                     shape.size[1] * shape.size[2], shape.voxels(), packed, block.width());
}

void PackGradient(const Convolution3d& shape, const Bfloat16* plane, const Block& block,
                  Word* packed) {
  const std::int64_t width = shape.size[2];
  const std::int64_t words = CeilDivide(width, 2);
  const std::int64_t plane_words = shape.size[1] * words;
  std::vector<Word> pairs(static_cast<std::size_t>(block.width() * plane_words));  // zeros
  for (std::int64_t feature = 0; feature < block.width(); ++feature) {
    const Bfloat16* from = plane + feature * shape.voxels();
    Word* to = &pairs[static_cast<std::size_t>(feature * plane_words)];
    for (std::int64_t y = 0; y < shape.size[1]; ++y) {
      std::memcpy(to + y * words, from + y * width, static_cast<std::size_t>(width) * 2);
    }
  }
  kernels::Transpose(pairs.data(), block.width(), plane_words, plane_words, packed, block.width());
}

}  // namespace

template <typename Number>
bool HasDirectConvolution(const Convolution3d& shape) {
  const auto odd = [](std::int64_t length) { return length % 2 == 1; };
  return HasProcessor(kWords<Number>) && shape.out % kLanes == 0 &&
         std::all_of(shape.kernel.begin(), shape.kernel.end(), odd) && shape.kernel[2] <= 3;
}

template <typename Number>
void Convolve(const Convolution3d& shape, const Number* input, const float* weights, Number* output,
              const Parallel& parallel) {
  if constexpr (std::is_same_v<Number, float>) {
    if (kernels::PaysByWinograd(shape))
      return kernels::ConvolveByWinograd(shape, input, weights, output, parallel);
  }
  const std::vector<Block> blocks = Blocks(shape.out);
  const std::unique_ptr<Word[]> packed_weights =
      PackWeights<Number>(shape, weights, blocks, parallel);
  const auto [depth, height, width] = shape.size;
  const std::int64_t words = CeilDivide(shape.in, kChannelsPerWord<Number>);
  const std::int64_t padded_width = width + 2 * (shape.kernel[2] / 2);
  const std::int64_t planes =
      PlanesOfSlab(shape, words * PaddedGrid(shape, 1, padded_width).plane(), parallel.threads);
  const std::vector<Slab> slabs = Slabs(shape, planes);
  const RowTiles tiles(width);

  parallel.run(static_cast<std::int64_t>(slabs.size()), [&](std::int64_t unit) {
    const Slab& slab = slabs[static_cast<std::size_t>(unit)];
    const PaddedGrid grid(shape, slab.count, padded_width);
    const std::unique_ptr<Word[]> packed = Uninitialized<Word>(words * grid.channel());
    for (std::int64_t word = 0; word < words; ++word) {
      PackChannel(shape, input + slab.sample * shape.in * shape.voxels(), word, slab, grid,
                  packed.get() + word * grid.channel());
    }
    const std::unique_ptr<float[]> sums = Uninitialized<float>(tiles.rows * width * kWidest);
    std::vector<float> scratch;
    std::vector<kernels::Tap> taps;
    for (const Block& block : blocks) {
      Number* const features = output + (slab.sample * shape.out + block.first) * shape.voxels();
      for (std::int64_t z = 0; z < slab.count; ++z) {
        for (std::int64_t y = 0; y < height; y += tiles.rows) {
          const std::int64_t rows = std::min(tiles.rows, height - y);
          FindTaps(shape, grid, slab.first + z, y, rows, shape.kernel[2], block, taps);
          for (std::size_t part = 0; part + 1 < tiles.starts.size(); ++part) {
            const std::int64_t x = tiles.starts[part];
            const auto tile_width = static_cast<int>(tiles.starts[part + 1] - x);
            kernels::FindTile(kWords<Number>, block.vectors, static_cast<int>(rows), tile_width)(
                {.input = packed.get() + z * grid.plane() + y * grid.row + x,
                 .channel_stride = grid.channel(),
                 .row_stride = grid.row,
                 .channels = words,
                 .taps = taps.data(),
                 .tap_count = static_cast<std::int64_t>(taps.size()),
                 .weights = packed_weights.get() + block.first * words * shape.taps(),
                 .weights_stride = shape.taps() * block.width(),
                 .output = sums.get() + x * block.width()});
          }
          StoreRow(sums.get(), rows * width, block, shape.voxels(),
                   features + ((slab.first + z) * height + y) * width, scratch);
        }
      }
    }
  });
}

template <typename Number>
void ConvolutionInputGradient(const Convolution3d& shape, const Number* output_gradient,
                              const float* weights, Number* input_gradient,
                              const Parallel& parallel) {
  const std::unique_ptr<float[]> turned = Turned(shape, weights, parallel);
  Convolution3d transposed = shape;
  std::swap(transposed.in, transposed.out);
  Convolve(transposed, output_gradient, turned.get(), input_gradient, parallel);
}

template <typename Number>
void ConvolutionWeightGradient(const Convolution3d& shape, const Number* input,
                               const Number* output_gradient, float* weight_gradient,
                               const Parallel& parallel) {
  if constexpr (std::is_same_v<Number, float>) {
    if (kernels::PaysByWinograd(shape)) {
      return kernels::WeightGradientByWinograd(shape, input, output_gradient, weight_gradient,
                                               parallel);
    }
  }
  const std::vector<Block> blocks = Blocks(shape.out);
  const auto [depth, height, width] = shape.size;
  const std::int64_t per_word = static_cast<std::int64_t>(sizeof(Word) / sizeof(Number));
  const std::int64_t words = CeilDivide(width, per_word);
  // One number more than the last pair under the last tap needs.
  const std::int64_t row = per_word * (words + shape.kernel[2] / 2) + per_word;
  const std::int64_t plane_words =
      shape.in * PaddedGrid(shape, 1, row).plane() / per_word + shape.out * height * words;
  const std::int64_t planes = std::clamp<std::int64_t>(2 * kSlabWords / plane_words, 1, depth);
  const std::int64_t row_taps = shape.kernel[0] * shape.kernel[1];
  const std::int64_t groups = CeilDivide(shape.in, 4);

  const auto weight_count = static_cast<std::size_t>(shape.out * shape.in * shape.taps());
  std::vector<float> sums(weight_count);  // [block][in][taps][lanes of the block]
  const PaddedGrid largest(shape, planes, row);
  const std::unique_ptr<Number[]> padded = Uninitialized<Number>(shape.in * largest.channel());
  const std::unique_ptr<Word[]> packed = Uninitialized<Word>(shape.out * planes * height * words);

  for (const Slab& slab : Slabs(shape, planes)) {
    const PaddedGrid grid(shape, slab.count, row);
    const std::int64_t block_plane = height * words;
    const auto block_count = static_cast<std::int64_t>(blocks.size());
    parallel.run(shape.in + block_count * slab.count, [&](std::int64_t item) {
      if (item < shape.in) {
        PadChannel(shape, input + (slab.sample * shape.in + item) * shape.voxels(), slab, grid,
                   padded.get() + item * grid.channel());
        return;
      }
      const std::int64_t plane = (item - shape.in) % slab.count;
      const Block& block = blocks[static_cast<std::size_t>((item - shape.in) / slab.count)];
      PackGradient(shape,
                   output_gradient + (slab.sample * shape.out + block.first) * shape.voxels() +
                       (slab.first + plane) * height * width,
                   block,
                   packed.get() + (block.first * slab.count + block.width() * plane) * block_plane);
    });
    parallel.run(block_count * groups * row_taps, [&](std::int64_t item) {
      const std::int64_t row_tap = item % row_taps;
      const std::int64_t group = item / row_taps % groups;
      const Block& block = blocks[static_cast<std::size_t>(item / (row_taps * groups))];
      const std::int64_t first = 4 * group;
      const std::int64_t channels = std::min<std::int64_t>(4, shape.in - first);
      const int at_once = channels == 4 ? 4 : 1;
      const kernels::GradientFunction add = kernels::FindGradient(
          kWords<Number>, block.vectors, at_once, static_cast<int>(shape.kernel[2]));
      // Where this tap sees the volume: at its faces it meets zeros alone.
      const VoxelRange planes_seen(shape.kernel[0], shape.size[0], row_tap / shape.kernel[1],
                                   slab.first, slab.count);
      const VoxelRange rows_seen(shape.kernel[1], height, row_tap % shape.kernel[1], 0, height);
      if (planes_seen.count <= 0 || rows_seen.count <= 0) return;
      const std::int64_t offset =
          (row_tap / shape.kernel[1] + planes_seen.first - slab.first) * grid.plane() +
          (row_tap % shape.kernel[1] + rows_seen.first) * grid.row;
      const Word* const gradient = packed.get() + block.first * slab.count * block_plane +
                                   block.width() * ((planes_seen.first - slab.first) * block_plane +
                                                    rows_seen.first * words);
      const std::int64_t sums_stride = shape.taps() * block.width();
      const auto bytes = static_cast<std::int64_t>(sizeof(Number));
      for (std::int64_t channel = first; channel < first + channels; channel += at_once) {
        add({.input =
                 reinterpret_cast<const char*>(padded.get() + channel * grid.channel() + offset),
             .channel_stride = grid.channel() * bytes,
             .plane_stride = grid.plane() * bytes,
             .row_stride = grid.row * bytes,
             .output_gradient = gradient,
             .gradient_plane_stride = block.width() * block_plane,
             .planes = planes_seen.count,
             .rows = rows_seen.count,
             .words = words,
             .sums = &sums[static_cast<std::size_t>(block.first * shape.in * shape.taps() +
                                                    channel * sums_stride +
                                                    row_tap * shape.kernel[2] * block.width())],
             .sums_stride = sums_stride});
      }
    });
  }

  const std::int64_t columns = shape.in * shape.taps();
  for (const Block& block : blocks) {
    kernels::Transpose(
        reinterpret_cast<const Word*>(&sums[static_cast<std::size_t>(block.first * columns)]),
        columns, block.width(), block.width(),
        reinterpret_cast<Word*>(weight_gradient + block.first * columns), columns);
  }
}

template bool HasDirectConvolution<float>(const Convolution3d&);
template bool HasDirectConvolution<Bfloat16>(const Convolution3d&);
template void Convolve(const Convolution3d&, const float*, const float*, float*, const Parallel&);
template void Convolve(const Convolution3d&, const Bfloat16*, const float*, Bfloat16*,
                       const Parallel&);
template void ConvolutionInputGradient(const Convolution3d&, const float*, const float*, float*,
                                       const Parallel&);
template void ConvolutionInputGradient(const Convolution3d&, const Bfloat16*, const float*,
                                       Bfloat16*, const Parallel&);
template void ConvolutionWeightGradient(const Convolution3d&, const float*, const float*, float*,
                                        const Parallel&);
template void ConvolutionWeightGradient(const Convolution3d&, const Bfloat16*, const Bfloat16*,
                                        float*, const Parallel&);

}  // namespace isoscan
