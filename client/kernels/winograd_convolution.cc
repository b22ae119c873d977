#include "client/kernels/winograd_convolution.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "client/kernels/convolution_slabs.h"
#include "client/kernels/convolution_tiles.h"

namespace isoscan::kernels {
namespace {

/// Outputs of a tile, and the products that they take.
template <typename Number>
constexpr std::int64_t kOutputs = kIsHalf<Number> ? 2 : 4;
template <typename Number>
constexpr std::int64_t kProducts = kIsHalf<Number> ? 4 : 6;

/// Rows of the volume as products: [products][tiles].
template <typename Number>
struct ProductRow {
  std::int64_t width;
  std::int64_t tiles;

  void Write(const Bits<Number>* row, Bits<Number>* to) const {
    TransformInput(row, width, tiles, to);
  }
  void WritePair(const std::uint16_t* low, const std::uint16_t* high, Word* to) const {
    TransformInputs(low, high, width, tiles, to);
  }
};

/// Weights [out, in, kz, ky, 3] as [block][products][channel words][kz, ky][lanes of the block].
template <typename Number>
std::unique_ptr<Word[]> PackWinogradWeights(const Convolution3d& shape, const float* weights,
                                            const std::vector<Block>& blocks,
                                            const Parallel& parallel) {
  const std::int64_t row_taps = shape.kernel[0] * shape.kernel[1];
  const std::int64_t rows = shape.in * row_taps;
  const std::int64_t words = CeilDivide(shape.in, kPerWord<Number>);
  std::unique_ptr<Word[]> packed =
      Uninitialized<Word>(Lanes(blocks) * kProducts<Number> * words * row_taps);
  parallel.run(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t b) {
    const Block& block = blocks[static_cast<std::size_t>(b)];
    const std::int64_t lanes = block.lanes();
    std::vector<float> turned(static_cast<std::size_t>(3 * rows * lanes));
    Transpose(reinterpret_cast<const Word*>(weights + block.first * 3 * rows), block.features,
              3 * rows, 3 * rows, reinterpret_cast<Word*>(turned.data()), lanes);
    Word* to = packed.get() + block.first_lane * kProducts<Number> * words * row_taps;
    if constexpr (!kIsHalf<Number>) {
      TransformWeights(kWords<Number>, turned.data(), rows, lanes, reinterpret_cast<float*>(to),
                       rows * lanes);
    } else {
      const std::unique_ptr<float[]> products = Uninitialized<float>(4 * rows * lanes);
      TransformWeights(kWords<Number>, turned.data(), rows, lanes, products.get(), rows * lanes);
      const std::int64_t channel = row_taps * lanes;
      std::vector<std::uint16_t> low(static_cast<std::size_t>(channel));
      std::vector<std::uint16_t> high(low.size());
      for (std::int64_t j = 0; j < kProducts<Number>; ++j) {
        const float* const from = products.get() + j * rows * lanes;
        for (std::int64_t in = 0; in < shape.in; in += 2, to += channel) {
          Round(from + in * channel, channel, low.data());
          std::fill(high.begin(), high.end(), std::uint16_t{0});
          if (in + 1 < shape.in) Round(from + (in + 1) * channel, channel, high.data());
          Interleave(low.data(), high.data(), channel, to);
        }
      }
    }
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

/// A plane of a block of features' gradients as [products][rows][words][lanes of the block];
/// `stride` from one product to the next.
void PackWinogradGradient(const Convolution3d& shape, const float* plane, const Block& block,
                          std::int64_t tiles, Word* packed, std::int64_t stride) {
  const auto [depth, height, width] = shape.size;
  const std::int64_t lanes = block.lanes();
  std::vector<float> row(static_cast<std::size_t>(kOutputs<float> * tiles * lanes));
  for (std::int64_t y = 0; y < height; ++y) {
    Transpose(reinterpret_cast<const Word*>(plane + y * width), block.features, width,
              shape.voxels(), reinterpret_cast<Word*>(row.data()), lanes);
    TransformOutputGradient(row.data(), tiles, lanes,
                            reinterpret_cast<float*>(packed) + y * tiles * lanes, stride);
  }
}

void PackWinogradGradient(const Convolution3d& shape, const Bfloat16* plane, const Block& block,
                          std::int64_t tiles, Word* packed, std::int64_t stride) {
  const auto [depth, height, width] = shape.size;
  const std::int64_t feature_tiles = height * tiles;
  const std::int64_t product_tiles = block.features * feature_tiles;
  // [products][features][rows][tiles]
  const std::unique_ptr<std::uint16_t[]> products =
      Uninitialized<std::uint16_t>(kProducts<Bfloat16> * product_tiles);
  for (std::int64_t feature = 0; feature < block.features; ++feature) {
    for (std::int64_t y = 0; y < height; ++y) {
      TransformOutputGradient(BitsOf(plane) + feature * shape.voxels() + y * width, width, tiles,
                              products.get() + feature * feature_tiles + y * tiles, product_tiles);
    }
  }
  for (std::int64_t j = 0; j < kProducts<Bfloat16>; ++j) {
    Transpose(reinterpret_cast<const Word*>(products.get() + j * product_tiles), block.features,
              feature_tiles / 2, feature_tiles / 2, packed + j * stride, block.lanes());
  }
}

}  // namespace

template <typename Number>
bool PaysByWinograd(const Convolution3d& shape) {
  const std::int64_t products = kProducts<Number> * CeilDivide(shape.size[2], kOutputs<Number>);
  const bool fewer =
      kIsHalf<Number> ? 5 * products < 4 * 3 * shape.size[2] : 4 * products < 3 * 3 * shape.size[2];
  return (shape.in >= 4 || !kIsHalf<Number>)&&shape.kernel[2] == 3 &&
         shape.stride == std::array<std::int64_t, 3>{1, 1, 1} && fewer;
}

template <typename Number>
void ConvolveByWinograd(const Convolution3d& shape, Features<const Number> input,
                        const float* weights, const float* bias, Features<Number> output,
                        const Parallel& parallel) {
  const Axes axes = ForwardAxes(shape);
  const std::vector<Block> blocks = Blocks(shape.out, output.in_first);
  const std::unique_ptr<Word[]> packed_weights =
      PackWinogradWeights<Number>(shape, weights, blocks, parallel);
  const std::vector<float> start = StartOfSums(blocks, bias);
  const auto [depth, height, width] = shape.size;
  const std::int64_t words = CeilDivide(shape.in, kPerWord<Number>);
  const std::int64_t tiles = CeilDivide(width, kOutputs<Number>);
  const std::int64_t row_length = kProducts<Number> * tiles;
  const std::int64_t row_taps = shape.kernel[0] * shape.kernel[1];
  const std::int64_t planes = PlanesOfSlab(
      shape.samples, depth, words * PaddedGrid(axes, 1, row_length).plane(), parallel.threads);
  const std::vector<Slab> slabs = Slabs(shape.samples, depth, planes);
  const RowTiles parts(tiles);

  parallel.run(static_cast<std::int64_t>(slabs.size()), [&](std::int64_t unit) {
    const Slab& slab = slabs[static_cast<std::size_t>(unit)];
    const PaddedGrid grid(axes, slab.count, row_length);
    const std::unique_ptr<Word[]> packed = Uninitialized<Word>(words * grid.channel());
    PadChannels(axes, input, shape.in, slab, grid, ProductRow<Number>{width, tiles}, packed.get());
    const std::int64_t most_sums = parts.rows * tiles * kWidest;
    const std::unique_ptr<float[]> products = Uninitialized<float>(kProducts<Number> * most_sums);
    const std::unique_ptr<float[]> sums = Uninitialized<float>(kOutputs<Number> * most_sums);
    const std::vector<float> zeros(kWidest);
    std::vector<float> scratch;
    std::vector<Tap> taps;
    for (const Block& block : blocks) {
      const std::int64_t lanes = block.lanes();
      Number* const features = output.At(slab.sample, block.first, shape.out, shape.voxels());
      const std::int64_t product_words = words * row_taps * lanes;
      const Word* const block_weights =
          packed_weights.get() + block.first_lane * words * row_taps * kProducts<Number>;
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
          for (std::int64_t j = 0; j < kProducts<Number>; ++j) {
            for (std::size_t part = 0; part + 1 < parts.starts.size(); ++part) {
              const std::int64_t t = parts.starts[part];
              const auto part_width = static_cast<int>(parts.starts[part + 1] - t);
              FindTile(kWords<Number>, block.vectors, static_cast<int>(rows),
                       part_width)({.input = packed.get() + grid.At(axes, z, y) + j * tiles + t,
                                    .channel_stride = grid.channel(),
                                    .row_stride = grid.row,
                                    .channels = words,
                                    .taps = taps.data(),
                                    .tap_count = static_cast<std::int64_t>(taps.size()),
                                    .weights = block_weights + j * product_words,
                                    .weights_stride = row_taps * lanes,
                                    .start = zeros.data(),
                                    .output = products.get() + j * most_sums + t * lanes,
                                    .output_stride = lanes});
            }
          }
          TransformOutput(kWords<Number>, products.get(), rows * tiles, lanes, most_sums,
                          &start[static_cast<std::size_t>(block.first_lane)], sums.get());
          for (std::int64_t row = 0; row < rows; ++row) {
            StoreRow(sums.get() + row * kOutputs<Number> * tiles * lanes, width, block,
                     shape.voxels(), features + ((slab.first + z) * height + y + row) * width,
                     scratch);
          }
        }
      }
    }
  });
}

template <typename Number>
void InputGradientByWinograd(const Convolution3d& shape, const Number* output_gradient,
                             const float* weights, const float* bias,
                             Features<Number> input_gradient, const Parallel& parallel) {
  const std::unique_ptr<float[]> turned = Turned(shape, weights, parallel);
  Convolution3d transposed = shape;
  std::swap(transposed.in, transposed.out);
  ConvolveByWinograd<Number>(transposed, output_gradient, turned.get(), bias, input_gradient,
                             parallel);
}

template <typename Number>
void WeightGradientByWinograd(const Convolution3d& shape, Features<const Number> input,
                              const Number* output_gradient, float* weight_gradient,
                              const Parallel& parallel) {
  constexpr std::int64_t kGroup = 12;
  constexpr auto kBytes = static_cast<std::int64_t>(sizeof(Number));
  const Axes axes = ForwardAxes(shape);
  const std::vector<Block> blocks = Blocks(shape.out);
  const auto block_count = static_cast<std::int64_t>(blocks.size());
  const auto [depth, height, width] = shape.size;
  const std::int64_t words = CeilDivide(CeilDivide(width, kOutputs<Number>), kPerWord<Number>);
  const std::int64_t tiles = words * kPerWord<Number>;  // the last one may be empty
  const std::int64_t row_length = kProducts<Number> * tiles;
  const std::int64_t plane_words =
      shape.in * PaddedGrid(axes, 1, row_length).plane() / kPerWord<Number> +
      Lanes(blocks) * height * kProducts<Number> * words;
  const std::int64_t planes = std::clamp<std::int64_t>(2 * kSlabWords / plane_words, 1, depth);
  const std::int64_t row_taps = shape.kernel[0] * shape.kernel[1];
  const std::int64_t groups = CeilDivide(shape.in, kGroup);

  // [block][products][in][kz, ky][lanes of the block]
  std::vector<float> sums(
      static_cast<std::size_t>(Lanes(blocks) * kProducts<Number> * shape.in * row_taps));
  const std::unique_ptr<Bits<Number>[]> packed_input =
      Uninitialized<Bits<Number>>(shape.in * PaddedGrid(axes, planes, row_length).channel());
  // [block][products][planes][rows][words][lanes of the block]; zeros where no feature is.
  const std::int64_t product_words = planes * height * words;
  std::unique_ptr<Word[]> packed_gradient =
      Uninitialized<Word>(Lanes(blocks) * kProducts<Number> * product_words);
  for (const Block& block : blocks) {
    if (block.features == block.lanes()) continue;
    std::fill_n(packed_gradient.get() + block.first_lane * kProducts<Number> * product_words,
                block.lanes() * kProducts<Number> * product_words, Word{0});
  }

  for (const Slab& slab : Slabs(shape.samples, depth, planes)) {
    const PaddedGrid grid(axes, slab.count, row_length);
    const std::int64_t plane_words_of_lane = height * words;
    const auto block_gradient = [&](const Block& block, std::int64_t j, std::int64_t plane) {
      return packed_gradient.get() +
             (block.first_lane * kProducts<Number> + block.lanes() * j) * product_words +
             block.lanes() * plane * plane_words_of_lane;
    };
    parallel.run(shape.in + block_count * slab.count, [&](std::int64_t item) {
      if (item < shape.in) {
        const ProductRow<Number> row{width, tiles};
        PadChannel(axes, input.At(slab.sample, item, shape.in, shape.voxels()), slab, grid, row,
                   packed_input.get() + item * grid.channel());
        return;
      }
      const std::int64_t plane = (item - shape.in) % slab.count;
      const Block& block = blocks[static_cast<std::size_t>((item - shape.in) / slab.count)];
      PackWinogradGradient(
          shape,
          output_gradient + (slab.sample * shape.out + block.first) * shape.voxels() +
              (slab.first + plane) * height * width,
          block, tiles, block_gradient(block, 0, plane), block.lanes() * product_words);
    });
    parallel.run(block_count * groups * row_taps * kProducts<Number>, [&](std::int64_t item) {
      const std::int64_t j = item % kProducts<Number>;
      const std::int64_t row_tap = item / kProducts<Number> % row_taps;
      const std::int64_t group = item / (kProducts<Number> * row_taps) % groups;
      const Block& block =
          blocks[static_cast<std::size_t>(item / (kProducts<Number> * row_taps * groups))];
      const PlaceRange planes_seen(axes[0], row_tap / shape.kernel[1], slab.first, slab.count);
      const PlaceRange rows_seen(axes[1], row_tap % shape.kernel[1], 0, height);
      if (planes_seen.count <= 0 || rows_seen.count <= 0) return;
      const std::int64_t plane = planes_seen.first - slab.first;
      const std::int64_t offset = grid.At(axes, plane + row_tap / shape.kernel[1],
                                          rows_seen.first + row_tap % shape.kernel[1]) +
                                  j * tiles;
      const std::int64_t end = std::min(shape.in, kGroup * (group + 1));
      for (std::int64_t channel = kGroup * group; channel < end;) {
        const int at_once = InputsAtOnce(end - channel);
        FindGradient(kWords<Number>, block.vectors, at_once)(
            {.input = reinterpret_cast<const char*>(packed_input.get() + channel * grid.channel() +
                                                    offset),
             .input_stride = grid.channel() * kBytes,
             .plane_stride = grid.plane() * kBytes,
             .row_stride = grid.row * kBytes,
             .output_gradient =
                 block_gradient(block, j, plane) + rows_seen.first * words * block.lanes(),
             .gradient_plane_stride = block.lanes() * plane_words_of_lane,
             .planes = planes_seen.count,
             .rows = rows_seen.count,
             .words = words,
             .sums = &sums[static_cast<std::size_t>(
                 (block.first_lane * kProducts<Number> + block.lanes() * j) * shape.in * row_taps +
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
        kWords<Number>,
        &sums[static_cast<std::size_t>(block.first_lane * kProducts<Number> * count)], count,
        block.lanes(), count * block.lanes(), weights.get());
    Transpose(reinterpret_cast<const Word*>(weights.get()), 3 * count, block.features,
              block.lanes(), reinterpret_cast<Word*>(weight_gradient + block.first * 3 * count),
              3 * count);
  });
}

template bool PaysByWinograd<float>(const Convolution3d&);
template bool PaysByWinograd<Bfloat16>(const Convolution3d&);
template void ConvolveByWinograd(const Convolution3d&, Features<const float>, const float*,
                                 const float*, Features<float>, const Parallel&);
template void ConvolveByWinograd(const Convolution3d&, Features<const Bfloat16>, const float*,
                                 const float*, Features<Bfloat16>, const Parallel&);
template void InputGradientByWinograd(const Convolution3d&, const float*, const float*,
                                      const float*, Features<float>, const Parallel&);
template void InputGradientByWinograd(const Convolution3d&, const Bfloat16*, const float*,
                                      const float*, Features<Bfloat16>, const Parallel&);
template void WeightGradientByWinograd(const Convolution3d&, Features<const float>, const float*,
                                       float*, const Parallel&);
template void WeightGradientByWinograd(const Convolution3d&, Features<const Bfloat16>,
                                       const Bfloat16*, float*, const Parallel&);

}  // namespace isoscan::kernels
