#include "client/kernels/winograd_convolution.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <vector>

#include "client/kernels/convolution_slabs.h"
#include "client/kernels/convolution_tiles.h"

namespace isoscan::kernels {
namespace {

/// Weights [out, in, kz, ky, 3] as [block][6 products][in][kz, ky][lanes of the block].
std::unique_ptr<float[]> PackWinogradWeights(const Convolution3d& shape, const float* weights,
                                             const std::vector<Block>& blocks,
                                             const Parallel& parallel) {
  const std::int64_t rows = shape.in * shape.kernel[0] * shape.kernel[1];
  std::unique_ptr<float[]> packed = Uninitialized<float>(shape.out * rows * kWinogradProducts);
  parallel.run(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t b) {
    const Block& block = blocks[static_cast<std::size_t>(b)];
    const std::unique_ptr<float[]> turned = Uninitialized<float>(3 * rows * block.width());
    Transpose(reinterpret_cast<const Word*>(weights + block.first * 3 * rows), block.width(),
              3 * rows, 3 * rows, reinterpret_cast<Word*>(turned.get()), block.width());
    TransformWeights(turned.get(), rows, block.width(),
                     packed.get() + block.first * rows * kWinogradProducts, rows * block.width());
  });
  return packed;
}

/// A channel of a slab as products, row by row: [planes][rows][6][tiles].
void PackWinogradChannel(const Convolution3d& shape, const float* channel, const Slab& slab,
                         const PaddedGrid& grid, std::int64_t tiles, float* padded, float* packed) {
  ForRows(
      shape, slab, grid,
      [&](std::int64_t from, std::int64_t to) {
        std::memcpy(padded + 1, channel + from,
                    static_cast<std::size_t>(shape.size[2]) * sizeof(float));
        TransformInput(padded, tiles, packed + to, tiles);
      },
      [&](std::int64_t to) { std::fill_n(packed + to, grid.row, 0.0F); });
}

/// A plane of a block of features' gradients as [6 products][rows][tiles][lanes of the block].
void PackWinogradGradient(const Convolution3d& shape, const float* plane, const Block& block,
                          std::int64_t tiles, float* packed, std::int64_t stride) {
  const auto [depth, height, width] = shape.size;
  const std::int64_t lanes = block.width();
  std::vector<float> row(static_cast<std::size_t>(kWinogradOutputs * tiles * lanes));
  for (std::int64_t y = 0; y < height; ++y) {
    Transpose(reinterpret_cast<const Word*>(plane + y * width), lanes, width, shape.voxels(),
              reinterpret_cast<Word*>(row.data()), lanes);
    TransformOutputGradient(row.data(), tiles, lanes, packed + y * tiles * lanes, stride);
  }
}

/// How many channels SumGradients takes of so many that are left.
int ChannelsAtOnce(std::int64_t left) {
  return left >= 12 ? 12 : left >= 8 ? 8 : left >= 4 ? 4 : 1;
}

}  // namespace

bool PaysByWinograd(const Convolution3d& shape) {
  const std::int64_t tiles = CeilDivide(shape.size[2], kWinogradOutputs);
  return shape.kernel[2] == 3 && 4 * kWinogradProducts * tiles < 3 * 3 * shape.size[2];
}

void ConvolveByWinograd(const Convolution3d& shape, const float* input, const float* weights,
                        float* output, const Parallel& parallel) {
  const std::vector<Block> blocks = Blocks(shape.out);
  const std::unique_ptr<float[]> packed_weights =
      PackWinogradWeights(shape, weights, blocks, parallel);
  const auto [depth, height, width] = shape.size;
  const std::int64_t tiles = CeilDivide(width, kWinogradOutputs);
  const std::int64_t row_length = kWinogradProducts * tiles;
  const std::int64_t row_taps = shape.kernel[0] * shape.kernel[1];
  const std::int64_t planes =
      PlanesOfSlab(shape, shape.in * PaddedGrid(shape, 1, row_length).plane(), parallel.threads);
  const std::vector<Slab> slabs = Slabs(shape, planes);
  const RowTiles parts(tiles);

  parallel.run(static_cast<std::int64_t>(slabs.size()), [&](std::int64_t unit) {
    const Slab& slab = slabs[static_cast<std::size_t>(unit)];
    const PaddedGrid grid(shape, slab.count, row_length);
    const std::unique_ptr<float[]> packed = Uninitialized<float>(shape.in * grid.channel());
    std::vector<float> padded(static_cast<std::size_t>(kWinogradOutputs * tiles + kWinogradSlack));
    for (std::int64_t channel = 0; channel < shape.in; ++channel) {
      PackWinogradChannel(shape, input + (slab.sample * shape.in + channel) * shape.voxels(), slab,
                          grid, tiles, padded.data(), packed.get() + channel * grid.channel());
    }
    const std::int64_t most_sums = parts.rows * tiles * kWidest;
    const std::unique_ptr<float[]> products = Uninitialized<float>(kWinogradProducts * most_sums);
    const std::unique_ptr<float[]> sums = Uninitialized<float>(kWinogradOutputs * most_sums);
    std::vector<Tap> taps;
    for (const Block& block : blocks) {
      float* const features = output + (slab.sample * shape.out + block.first) * shape.voxels();
      const std::int64_t product_words = shape.in * row_taps * block.width();
      const float* const block_weights =
          packed_weights.get() + block.first * shape.in * row_taps * kWinogradProducts;
      for (std::int64_t z = 0; z < slab.count; ++z) {
        for (std::int64_t y = 0; y < height; y += parts.rows) {
          const std::int64_t rows = std::min(parts.rows, height - y);
          FindTaps(shape, grid, slab.first + z, y, rows, 1, block, taps);
          for (std::int64_t j = 0; j < kWinogradProducts; ++j) {
            for (std::size_t part = 0; part + 1 < parts.starts.size(); ++part) {
              const std::int64_t t = parts.starts[part];
              const auto part_width = static_cast<int>(parts.starts[part + 1] - t);
              const float* const from =
                  packed.get() + z * grid.plane() + y * grid.row + j * tiles + t;
              FindTile(Words::kFloat32, block.vectors, static_cast<int>(rows), part_width)(
                  {.input = reinterpret_cast<const Word*>(from),
                   .channel_stride = grid.channel(),
                   .row_stride = grid.row,
                   .channels = shape.in,
                   .taps = taps.data(),
                   .tap_count = static_cast<std::int64_t>(taps.size()),
                   .weights = reinterpret_cast<const Word*>(block_weights + j * product_words),
                   .weights_stride = row_taps * block.width(),
                   .output = products.get() + j * most_sums + t * block.width()});
            }
          }
          TransformOutput(products.get(), rows * tiles, block.width(), most_sums, sums.get());
          for (std::int64_t row = 0; row < rows; ++row) {
            const float* const from = sums.get() + row * kWinogradOutputs * tiles * block.width();
            float* const to = features + ((slab.first + z) * height + y + row) * width;
            Transpose(reinterpret_cast<const Word*>(from), width, block.width(), block.width(),
                      reinterpret_cast<Word*>(to), shape.voxels());
          }
        }
      }
    }
  });
}

void WeightGradientByWinograd(const Convolution3d& shape, const float* input,
                              const float* output_gradient, float* weight_gradient,
                              const Parallel& parallel) {
  constexpr std::int64_t kGroup = 12;
  const std::vector<Block> blocks = Blocks(shape.out);
  const auto block_count = static_cast<std::int64_t>(blocks.size());
  const auto [depth, height, width] = shape.size;
  const std::int64_t tiles = CeilDivide(width, kWinogradOutputs);
  const std::int64_t row_length = kWinogradProducts * tiles;
  const std::int64_t plane_words =
      shape.in * PaddedGrid(shape, 1, row_length).plane() + shape.out * height * row_length;
  const std::int64_t planes = std::clamp<std::int64_t>(2 * kSlabWords / plane_words, 1, depth);
  const std::int64_t row_taps = shape.kernel[0] * shape.kernel[1];
  const std::int64_t groups = CeilDivide(shape.in, kGroup);

  // [block][6 products][in][kz, ky][lanes of the block]
  std::vector<float> sums(
      static_cast<std::size_t>(shape.out * kWinogradProducts * shape.in * row_taps));
  const PaddedGrid largest(shape, planes, row_length);
  const std::unique_ptr<float[]> packed_input = Uninitialized<float>(shape.in * largest.channel());
  const std::unique_ptr<float[]> packed_gradient =
      Uninitialized<float>(shape.out * planes * height * row_length);

  for (const Slab& slab : Slabs(shape, planes)) {
    const PaddedGrid grid(shape, slab.count, row_length);
    const std::int64_t plane_tiles = height * tiles;
    parallel.run(shape.in + block_count * slab.count, [&](std::int64_t item) {
      if (item < shape.in) {
        std::vector<float> padded(
            static_cast<std::size_t>(kWinogradOutputs * tiles + kWinogradSlack));
        PackWinogradChannel(shape, input + (slab.sample * shape.in + item) * shape.voxels(), slab,
                            grid, tiles, padded.data(), packed_input.get() + item * grid.channel());
        return;
      }
      const std::int64_t plane = (item - shape.in) % slab.count;
      const Block& block = blocks[static_cast<std::size_t>((item - shape.in) / slab.count)];
      PackWinogradGradient(
          shape,
          output_gradient + (slab.sample * shape.out + block.first) * shape.voxels() +
              (slab.first + plane) * height * width,
          block, tiles,
          packed_gradient.get() + block.first * slab.count * plane_tiles * kWinogradProducts +
              plane * plane_tiles * block.width(),
          slab.count * plane_tiles * block.width());
    });
    parallel.run(block_count * groups * row_taps * kWinogradProducts, [&](std::int64_t item) {
      const std::int64_t j = item % kWinogradProducts;
      const std::int64_t row_tap = item / kWinogradProducts % row_taps;
      const std::int64_t group = item / (kWinogradProducts * row_taps) % groups;
      const Block& block =
          blocks[static_cast<std::size_t>(item / (kWinogradProducts * row_taps * groups))];
      const VoxelRange planes_seen(shape.kernel[0], depth, row_tap / shape.kernel[1], slab.first,
                                   slab.count);
      const VoxelRange rows_seen(shape.kernel[1], height, row_tap % shape.kernel[1], 0, height);
      if (planes_seen.count <= 0 || rows_seen.count <= 0) return;
      const std::int64_t offset =
          (row_tap / shape.kernel[1] + planes_seen.first - slab.first) * grid.plane() +
          (row_tap % shape.kernel[1] + rows_seen.first) * grid.row + j * tiles;
      const float* const gradient =
          packed_gradient.get() +
          (block.first * kWinogradProducts + block.width() * j) * slab.count * plane_tiles +
          block.width() *
              ((planes_seen.first - slab.first) * plane_tiles + rows_seen.first * tiles);
      const std::int64_t end = std::min(shape.in, kGroup * (group + 1));
      for (std::int64_t channel = kGroup * group; channel < end;) {
        const int at_once = ChannelsAtOnce(end - channel);
        FindGradient(Words::kFloat32, block.vectors, at_once, 1)(
            {.input = reinterpret_cast<const char*>(packed_input.get() + channel * grid.channel() +
                                                    offset),
             .channel_stride = grid.channel() * 4,
             .plane_stride = grid.plane() * 4,
             .row_stride = grid.row * 4,
             .output_gradient = reinterpret_cast<const Word*>(gradient),
             .gradient_plane_stride = block.width() * plane_tiles,
             .planes = planes_seen.count,
             .rows = rows_seen.count,
             .words = tiles,
             .sums = &sums[static_cast<std::size_t>(
                 (block.first * kWinogradProducts + block.width() * j) * shape.in * row_taps +
                 (channel * row_taps + row_tap) * block.width())],
             .sums_stride = row_taps * block.width()});
        channel += at_once;
      }
    });
  }

  const std::int64_t count = shape.in * row_taps;
  parallel.run(block_count, [&](std::int64_t b) {
    const Block& block = blocks[static_cast<std::size_t>(b)];
    const std::unique_ptr<float[]> weights = Uninitialized<float>(3 * count * block.width());
    TransformWeightGradient(
        &sums[static_cast<std::size_t>(block.first * kWinogradProducts * count)], count,
        block.width(), count * block.width(), weights.get());
    Transpose(reinterpret_cast<const Word*>(weights.get()), 3 * count, block.width(), block.width(),
              reinterpret_cast<Word*>(weight_gradient + block.first * 3 * count), 3 * count);
  });
}

}  // namespace isoscan::kernels
