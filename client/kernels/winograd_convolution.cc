#include "client/kernels/winograd_convolution.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>
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
  std::unique_ptr<float[]> packed = Uninitialized<float>(Lanes(blocks) * rows * kWinogradProducts);
  parallel.run(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t b) {
    const Block& block = blocks[static_cast<std::size_t>(b)];
    std::vector<float> turned(static_cast<std::size_t>(3 * rows * block.lanes()));
    Transpose(reinterpret_cast<const Word*>(weights + block.first * 3 * rows), block.features,
              3 * rows, 3 * rows, reinterpret_cast<Word*>(turned.data()), block.lanes());
    TransformWeights(turned.data(), rows, block.lanes(),
                     packed.get() + block.first_lane * rows * kWinogradProducts,
                     rows * block.lanes());
  });
  return packed;
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

/// A channel of a slab as products, row by row: [planes][rows][6][tiles].
void PackWinogradChannel(const Axes& axes, const float* channel, const Slab& slab,
                         const PaddedGrid& grid, std::int64_t tiles, float* packed) {
  std::vector<float> padded(static_cast<std::size_t>(kWinogradOutputs * tiles + kWinogradSlack));
  ForRows(
      axes, slab, grid,
      [&](std::int64_t from, std::int64_t to) {
        std::memcpy(&padded[1], channel + from,
                    static_cast<std::size_t>(axes[2].source) * sizeof(float));
        TransformInput(padded.data(), tiles, packed + to, tiles);
      },
      [&](std::int64_t to) { std::fill_n(packed + to, grid.row, 0.0F); });
}

/// A plane of a block of features' gradients as [6 products][rows][tiles][lanes of the block].
void PackWinogradGradient(const Convolution3d& shape, const float* plane, const Block& block,
                          std::int64_t tiles, float* packed, std::int64_t stride) {
  const auto [depth, height, width] = shape.size;
  const std::int64_t lanes = block.lanes();
  std::vector<float> row(static_cast<std::size_t>(kWinogradOutputs * tiles * lanes));
  for (std::int64_t y = 0; y < height; ++y) {
    Transpose(reinterpret_cast<const Word*>(plane + y * width), block.features, width,
              shape.voxels(), reinterpret_cast<Word*>(row.data()), lanes);
    TransformOutputGradient(row.data(), tiles, lanes, packed + y * tiles * lanes, stride);
  }
}

/// ConvolveByWinograd(), to an output that may lie in two arrays.
void Correlate(const Convolution3d& shape, Features<const float> input, const float* weights,
               const float* bias, Features<float> output, const Parallel& parallel) {
  const Axes axes = ForwardAxes(shape);
  const std::vector<Block> blocks = Blocks(shape.out, output.in_first);
  const std::unique_ptr<float[]> packed_weights =
      PackWinogradWeights(shape, weights, blocks, parallel);
  const std::vector<float> start = StartOfSums(blocks, bias);
  const auto [depth, height, width] = shape.size;
  const std::int64_t tiles = CeilDivide(width, kWinogradOutputs);
  const std::int64_t row_length = kWinogradProducts * tiles;
  const std::int64_t row_taps = shape.kernel[0] * shape.kernel[1];
  const std::int64_t planes = PlanesOfSlab(
      shape.samples, depth, shape.in * PaddedGrid(axes, 1, row_length).plane(), parallel.threads);
  const std::vector<Slab> slabs = Slabs(shape.samples, depth, planes);
  const RowTiles parts(tiles);

  parallel.run(static_cast<std::int64_t>(slabs.size()), [&](std::int64_t unit) {
    const Slab& slab = slabs[static_cast<std::size_t>(unit)];
    const PaddedGrid grid(axes, slab.count, row_length);
    const std::unique_ptr<float[]> packed = Uninitialized<float>(shape.in * grid.channel());
    for (std::int64_t channel = 0; channel < shape.in; ++channel) {
      PackWinogradChannel(axes, input.At(slab.sample, channel, shape.in, shape.voxels()), slab,
                          grid, tiles, packed.get() + channel * grid.channel());
    }
    const std::int64_t most_sums = parts.rows * tiles * kWidest;
    const std::unique_ptr<float[]> products = Uninitialized<float>(kWinogradProducts * most_sums);
    const std::unique_ptr<float[]> sums = Uninitialized<float>(kWinogradOutputs * most_sums);
    const std::vector<float> zeros(kWidest);
    std::vector<Tap> taps;
    for (const Block& block : blocks) {
      const std::int64_t lanes = block.lanes();
      float* const features = output.At(slab.sample, block.first, shape.out, shape.voxels());
      const std::int64_t product_words = shape.in * row_taps * lanes;
      const float* const block_weights =
          packed_weights.get() + block.first_lane * shape.in * row_taps * kWinogradProducts;
      for (std::int64_t z = 0; z < slab.count; ++z) {
        for (std::int64_t y = 0; y < height; y += parts.rows) {
          const std::int64_t rows = std::min(parts.rows, height - y);
          taps.clear();
          for (const AxisTap& a : axes[0].phases[0]) {
            if (!axes[0].Meets(a, slab.first + z, slab.first + z)) continue;
            for (const AxisTap& b : axes[1].phases[0]) {
              if (!axes[1].Meets(b, y, y + rows - 1)) continue;
              taps.push_back({a.offset * grid.plane() + b.offset * grid.row,
                              (a.weight * shape.kernel[1] + b.weight) * lanes});
            }
          }
          for (std::int64_t j = 0; j < kWinogradProducts; ++j) {
            for (std::size_t part = 0; part + 1 < parts.starts.size(); ++part) {
              const std::int64_t t = parts.starts[part];
              const auto part_width = static_cast<int>(parts.starts[part + 1] - t);
              FindTile(Words::kFloat32, block.vectors, static_cast<int>(rows), part_width)(
                  {.input = reinterpret_cast<const Word*>(packed.get() + grid.At(axes, z, y) +
                                                          j * tiles + t),
                   .channel_stride = grid.channel(),
                   .row_stride = grid.row,
                   .channels = shape.in,
                   .taps = taps.data(),
                   .tap_count = static_cast<std::int64_t>(taps.size()),
                   .weights = reinterpret_cast<const Word*>(block_weights + j * product_words),
                   .weights_stride = row_taps * lanes,
                   .start = zeros.data(),
                   .output = products.get() + j * most_sums + t * lanes,
                   .output_stride = lanes});
            }
          }
          TransformOutput(products.get(), rows * tiles, lanes, most_sums,
                          &start[static_cast<std::size_t>(block.first_lane)], sums.get());
          for (std::int64_t row = 0; row < rows; ++row) {
            const float* const from = sums.get() + row * kWinogradOutputs * tiles * lanes;
            float* const to = features + ((slab.first + z) * height + y + row) * width;
            Transpose(reinterpret_cast<const Word*>(from), width, block.features, lanes,
                      reinterpret_cast<Word*>(to), shape.voxels());
          }
        }
      }
    }
  });
}

}  // namespace

bool PaysByWinograd(const Convolution3d& shape) {
  const std::int64_t tiles = CeilDivide(shape.size[2], kWinogradOutputs);
  return shape.kernel[2] == 3 && shape.stride == std::array<std::int64_t, 3>{1, 1, 1} &&
         4 * kWinogradProducts * tiles < 3 * 3 * shape.size[2];
}

void ConvolveByWinograd(const Convolution3d& shape, Features<const float> input,
                        const float* weights, const float* bias, float* output,
                        const Parallel& parallel) {
  Correlate(shape, input, weights, bias, output, parallel);
}

void InputGradientByWinograd(const Convolution3d& shape, const float* output_gradient,
                             const float* weights, const float* bias,
                             Features<float> input_gradient, const Parallel& parallel) {
  const std::unique_ptr<float[]> turned = Turned(shape, weights, parallel);
  Convolution3d transposed = shape;
  std::swap(transposed.in, transposed.out);
  Correlate(transposed, output_gradient, turned.get(), bias, input_gradient, parallel);
}

void WeightGradientByWinograd(const Convolution3d& shape, Features<const float> input,
                              const float* output_gradient, float* weight_gradient,
                              const Parallel& parallel) {
  constexpr std::int64_t kGroup = 12;
  const Axes axes = ForwardAxes(shape);
  const std::vector<Block> blocks = Blocks(shape.out);
  const auto block_count = static_cast<std::int64_t>(blocks.size());
  const auto [depth, height, width] = shape.size;
  const std::int64_t tiles = CeilDivide(width, kWinogradOutputs);
  const std::int64_t row_length = kWinogradProducts * tiles;
  const std::int64_t plane_words =
      shape.in * PaddedGrid(axes, 1, row_length).plane() + Lanes(blocks) * height * row_length;
  const std::int64_t planes = std::clamp<std::int64_t>(2 * kSlabWords / plane_words, 1, depth);
  const std::int64_t row_taps = shape.kernel[0] * shape.kernel[1];
  const std::int64_t groups = CeilDivide(shape.in, kGroup);

  // [block][6 products][in][kz, ky][lanes of the block]
  std::vector<float> sums(
      static_cast<std::size_t>(Lanes(blocks) * kWinogradProducts * shape.in * row_taps));
  const PaddedGrid largest(axes, planes, row_length);
  const std::unique_ptr<float[]> packed_input = Uninitialized<float>(shape.in * largest.channel());
  const std::unique_ptr<float[]> packed_gradient =
      Uninitialized<float>(Lanes(blocks) * planes * height * row_length);

  for (const Slab& slab : Slabs(shape.samples, depth, planes)) {
    const PaddedGrid grid(axes, slab.count, row_length);
    const std::int64_t plane_tiles = height * tiles;
    parallel.run(shape.in + block_count * slab.count, [&](std::int64_t item) {
      if (item < shape.in) {
        PackWinogradChannel(axes, input.At(slab.sample, item, shape.in, shape.voxels()), slab, grid,
                            tiles, packed_input.get() + item * grid.channel());
        return;
      }
      const std::int64_t plane = (item - shape.in) % slab.count;
      const Block& block = blocks[static_cast<std::size_t>((item - shape.in) / slab.count)];
      PackWinogradGradient(
          shape,
          output_gradient + (slab.sample * shape.out + block.first) * shape.voxels() +
              (slab.first + plane) * height * width,
          block, tiles,
          packed_gradient.get() + block.first_lane * slab.count * plane_tiles * kWinogradProducts +
              plane * plane_tiles * block.lanes(),
          slab.count * plane_tiles * block.lanes());
    });
    parallel.run(block_count * groups * row_taps * kWinogradProducts, [&](std::int64_t item) {
      const std::int64_t j = item % kWinogradProducts;
      const std::int64_t row_tap = item / kWinogradProducts % row_taps;
      const std::int64_t group = item / (kWinogradProducts * row_taps) % groups;
      const Block& block =
          blocks[static_cast<std::size_t>(item / (kWinogradProducts * row_taps * groups))];
      const PlaceRange planes_seen(axes[0], row_tap / shape.kernel[1], slab.first, slab.count);
      const PlaceRange rows_seen(axes[1], row_tap % shape.kernel[1], 0, height);
      if (planes_seen.count <= 0 || rows_seen.count <= 0) return;
      const std::int64_t offset =
          (row_tap / shape.kernel[1] + planes_seen.first - slab.first) * grid.plane() +
          (row_tap % shape.kernel[1] + rows_seen.first) * grid.row + j * tiles;
      const float* const gradient =
          packed_gradient.get() +
          (block.first_lane * kWinogradProducts + block.lanes() * j) * slab.count * plane_tiles +
          block.lanes() *
              ((planes_seen.first - slab.first) * plane_tiles + rows_seen.first * tiles);
      const std::int64_t end = std::min(shape.in, kGroup * (group + 1));
      for (std::int64_t channel = kGroup * group; channel < end;) {
        const int at_once = InputsAtOnce(end - channel);
        FindGradient(Words::kFloat32, block.vectors, at_once)(
            {.input = reinterpret_cast<const char*>(packed_input.get() + channel * grid.channel() +
                                                    offset),
             .input_stride = grid.channel() * 4,
             .plane_stride = grid.plane() * 4,
             .row_stride = grid.row * 4,
             .output_gradient = reinterpret_cast<const Word*>(gradient),
             .gradient_plane_stride = block.lanes() * plane_tiles,
             .planes = planes_seen.count,
             .rows = rows_seen.count,
             .words = tiles,
             .sums = &sums[static_cast<std::size_t>(
                 (block.first_lane * kWinogradProducts + block.lanes() * j) * shape.in * row_taps +
                 (channel * row_taps + row_tap) * block.lanes())],
             .sums_stride = row_taps * block.lanes()});
        channel += at_once;
      }
    });
  }

  const std::int64_t count = shape.in * row_taps;
  parallel.run(block_count, [&](std::int64_t b) {
    const Block& block = blocks[static_cast<std::size_t>(b)];
    const std::unique_ptr<float[]> weights = Uninitialized<float>(3 * count * block.lanes());
    TransformWeightGradient(
        &sums[static_cast<std::size_t>(block.first_lane * kWinogradProducts * count)], count,
        block.lanes(), count * block.lanes(), weights.get());
    Transpose(reinterpret_cast<const Word*>(weights.get()), 3 * count, block.features,
              block.lanes(), reinterpret_cast<Word*>(weight_gradient + block.first * 3 * count),
              3 * count);
  });
}

}  // namespace isoscan::kernels
