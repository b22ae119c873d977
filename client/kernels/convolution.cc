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

using kernels::Axes;
using kernels::Axis;
using kernels::AxisTap;
using kernels::Bits;
using kernels::BitsOf;
using kernels::Block;
using kernels::Blocks;
using kernels::CeilDivide;
using kernels::kIsHalf;
using kernels::kPerWord;
using kernels::kSlabWords;
using kernels::kWidest;
using kernels::kWords;
using kernels::Lanes;
using kernels::PaddedGrid;
using kernels::PlaceRange;
using kernels::RowTiles;
using kernels::Slab;
using kernels::Slabs;
using kernels::Uninitialized;
using kernels::Word;
using kernels::Words;

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

/// Where the numbers of a padded row lie: those at one remainder by the step side by side, so that
/// a tap meets the voxels of neighbouring places next to each other.
struct RowLayout {
  /// `places`: at least the axis's own.
  RowLayout(const Axis& axis, std::int64_t places)
      : step(axis.step), length(places + (axis.reach - 1) / axis.step) {
    for (std::int64_t remainder = 0; remainder < step; ++remainder) {
      const std::int64_t first =
          CeilDivide(std::max<std::int64_t>(0, axis.before - remainder), step);
      const std::int64_t from = first * step + remainder - axis.before;
      const std::int64_t count = std::min(CeilDivide(axis.source - from, step), length - first);
      if (count > 0) parts.push_back({remainder * length + first, from, count});
    }
  }

  std::int64_t row() const { return step * length; }
  std::int64_t At(std::int64_t offset) const { return offset % step * length + offset / step; }

  struct Part {
    std::int64_t to;
    std::int64_t from;  ///< Then every `step`-th.
    std::int64_t count;
  };
  std::int64_t step;
  std::int64_t length;  ///< Of one remainder.
  std::vector<Part> parts;
};

/// Rows with zeros around them.
template <typename Number>
class PaddedRow {
 public:
  explicit PaddedRow(const RowLayout& layout) : layout_(layout) {}

  void Write(const Bits<Number>* row, Bits<Number>* to) const {
    std::int64_t end = 0;
    for (const RowLayout::Part& part : layout_.parts) {
      std::fill(to + end, to + part.to, Bits<Number>{0});
      kernels::Gather(row + part.from, part.count, layout_.step, to + part.to);
      end = part.to + part.count;
    }
    std::fill(to + end, to + layout_.row(), Bits<Number>{0});
  }

  void WritePair(const std::uint16_t* low, const std::uint16_t* high, Word* to) {
    low_.resize(static_cast<std::size_t>(layout_.row()));
    high_.resize(low_.size());
    Write(low, low_.data());
    Write(high, high_.data());
    kernels::Interleave(low_.data(), high_.data(), layout_.row(), to);
  }

 private:
  const RowLayout& layout_;
  std::vector<std::uint16_t> low_;
  std::vector<std::uint16_t> high_;
};

/// The weights of a kernel's features (those that are computed) and channels (those that are
/// summed over), each [taps].
struct WeightsView {
  const float* weights;
  std::int64_t channels;
  std::int64_t taps;
  std::int64_t feature_stride;
  std::int64_t channel_stride;

  const float* At(std::int64_t feature, std::int64_t channel) const {
    return weights + feature * feature_stride + channel * channel_stride;
  }
};

/// As [block][channel words][taps][lanes of the block].
template <typename Number>
std::unique_ptr<Word[]> PackWeights(const WeightsView& view, const std::vector<Block>& blocks,
                                    const Parallel& parallel) {
  const std::int64_t words = CeilDivide(view.channels, kPerWord<Number>);
  const std::int64_t taps = view.taps;
  std::unique_ptr<Word[]> packed = Uninitialized<Word>(Lanes(blocks) * words * taps);
  parallel.run(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t b) {
    const Block& block = blocks[static_cast<std::size_t>(b)];
    const std::int64_t lanes = block.lanes();
    Word* to = packed.get() + block.first_lane * words * taps;
    if (block.features < lanes) std::fill_n(to, lanes * words * taps, 0U);
    if constexpr (!kIsHalf<Number>) {
      for (std::int64_t channel = 0; channel < view.channels; ++channel, to += taps * lanes) {
        kernels::Transpose(reinterpret_cast<const Word*>(view.At(block.first, channel)),
                           block.features, taps, view.feature_stride, to, lanes);
      }
    } else {
      std::vector<std::uint16_t> low(static_cast<std::size_t>(taps));
      std::vector<std::uint16_t> high(low.size());
      std::vector<Word> pairs(static_cast<std::size_t>(block.features * taps));
      for (std::int64_t word = 0; word < words; ++word, to += taps * lanes) {
        const bool paired = 2 * word + 1 < view.channels;
        if (!paired) std::fill(high.begin(), high.end(), std::uint16_t{0});
        for (std::int64_t feature = 0; feature < block.features; ++feature) {
          kernels::Round(view.At(block.first + feature, 2 * word), taps, low.data());
          if (paired)
            kernels::Round(view.At(block.first + feature, 2 * word + 1), taps, high.data());
          kernels::Interleave(low.data(), high.data(), taps,
                              &pairs[static_cast<std::size_t>(feature * taps)]);
        }
        kernels::Transpose(pairs.data(), block.features, taps, taps, to, lanes);
      }
    }
  });
  return packed;
}

/// Both directions: what `axes` say, summed over the source's channels.
template <typename Number>
void Correlate(const Axes& axes, const std::array<std::int64_t, 3>& kernel, std::int64_t samples,
               const WeightsView& weights, Features<const Number> source, const float* bias,
               std::int64_t features, Features<Number> target, const Parallel& parallel) {
  const std::vector<Block> blocks = Blocks(features, target.in_first);
  const std::unique_ptr<Word[]> packed_weights = PackWeights<Number>(weights, blocks, parallel);
  const std::vector<float> start = kernels::StartOfSums(blocks, bias);
  const auto& [z_axis, y_axis, x_axis] = axes;
  const std::int64_t target_voxels = z_axis.target * y_axis.target * x_axis.target;
  const std::int64_t words = CeilDivide(weights.channels, kPerWord<Number>);
  const RowLayout layout(x_axis, x_axis.places);
  const std::int64_t planes = kernels::PlanesOfSlab(
      samples, z_axis.places, words * z_axis.step * PaddedGrid(axes, 1, layout.row()).plane(),
      parallel.threads);
  const std::vector<Slab> slabs = Slabs(samples, z_axis.places, planes);
  const RowTiles tiles(x_axis.places);
  const std::int64_t row_sums = x_axis.places * x_axis.phase_count();
  // Two rows of sums that are neighbours of their target, too, are stored as one.
  const bool joined = y_axis.phase_count() == 1 && row_sums == x_axis.target;

  parallel.run(static_cast<std::int64_t>(slabs.size()), [&](std::int64_t unit) {
    const Slab& slab = slabs[static_cast<std::size_t>(unit)];
    const PaddedGrid grid(axes, slab.count, layout.row());
    const std::unique_ptr<Word[]> packed = Uninitialized<Word>(words * grid.channel());
    kernels::PadChannels(axes, source, weights.channels, slab, grid, PaddedRow<Number>(layout),
                         packed.get());
    const std::unique_ptr<float[]> sums = Uninitialized<float>(tiles.rows * row_sums * kWidest);
    std::vector<float> scratch;
    std::vector<kernels::Tap> taps;
    for (const Block& block : blocks) {
      const std::int64_t lanes = block.lanes();
      Number* const to = target.At(slab.sample, block.first, features, target_voxels);
      // The sums of `rows` rows of places from (z, y) on, of one phase along z and y.
      const auto sum = [&](std::int64_t z, std::int64_t y, std::int64_t rows,
                           const std::vector<AxisTap>& z_taps, const std::vector<AxisTap>& y_taps) {
        for (std::int64_t phase = 0; phase < x_axis.phase_count(); ++phase) {
          taps.clear();
          for (const AxisTap& a : z_taps) {
            if (!z_axis.Meets(a, slab.first + z, slab.first + z)) continue;
            for (const AxisTap& b : y_taps) {
              if (!y_axis.Meets(b, y, y + rows - 1)) continue;
              for (const AxisTap& c : x_axis.phases[static_cast<std::size_t>(phase)]) {
                taps.push_back(
                    {a.offset * grid.plane() + b.offset * grid.row + layout.At(c.offset),
                     ((a.weight * kernel[1] + b.weight) * kernel[2] + c.weight) * lanes});
              }
            }
          }
          for (std::size_t part = 0; part + 1 < tiles.starts.size(); ++part) {
            const std::int64_t x = tiles.starts[part];
            const auto part_width = static_cast<int>(tiles.starts[part + 1] - x);
            kernels::FindTile(kWords<Number>, block.vectors, static_cast<int>(rows), part_width)(
                {.input = packed.get() + grid.At(axes, z, y) + x,
                 .channel_stride = grid.channel(),
                 .row_stride = y_axis.step * grid.row,
                 .channels = words,
                 .taps = taps.data(),
                 .tap_count = static_cast<std::int64_t>(taps.size()),
                 .weights = packed_weights.get() + block.first_lane * words * weights.taps,
                 .weights_stride = weights.taps * lanes,
                 .start = &start[static_cast<std::size_t>(block.first_lane)],
                 .output = sums.get() + (x * x_axis.phase_count() + phase) * lanes,
                 .output_stride = x_axis.phase_count() * lanes});
          }
        }
      };
      const auto store = [&](std::int64_t z, std::int64_t y, const float* from, std::int64_t rows) {
        if (z >= z_axis.target || y >= y_axis.target) return;
        kernels::StoreRow(from, rows * x_axis.target, block, target_voxels,
                          to + (z * y_axis.target + y) * x_axis.target, scratch);
      };
      for (std::int64_t z = 0; z < slab.count; ++z) {
        for (std::int64_t y = 0; y < y_axis.places; y += tiles.rows) {
          const std::int64_t rows = std::min(tiles.rows, y_axis.places - y);
          for (std::int64_t z_phase = 0; z_phase < z_axis.phase_count(); ++z_phase) {
            for (std::int64_t y_phase = 0; y_phase < y_axis.phase_count(); ++y_phase) {
              sum(z, y, rows, z_axis.phases[static_cast<std::size_t>(z_phase)],
                  y_axis.phases[static_cast<std::size_t>(y_phase)]);
              const std::int64_t target_z = (slab.first + z) * z_axis.phase_count() + z_phase;
              if (joined) {
                store(target_z, y, sums.get(), rows);
                continue;
              }
              for (std::int64_t row = 0; row < rows; ++row) {
                store(target_z, (y + row) * y_axis.phase_count() + y_phase,
                      sums.get() + row * row_sums * lanes, 1);
              }
            }
          }
        }
      }
    }
  });
}

/// One plane of a block of features as [rows][words][lanes of the block].
void PackGradient(const float* plane, std::int64_t rows, std::int64_t width, std::int64_t stride,
                  const Block& block, Word* packed) {
  kernels::Transpose(reinterpret_cast<const Word*>(plane), block.features, rows * width, stride,
                     packed, block.lanes());
}

void PackGradient(const Bfloat16* plane, std::int64_t rows, std::int64_t width, std::int64_t stride,
                  const Block& block, Word* packed) {
  const std::int64_t words = CeilDivide(width, 2);
  std::vector<Word> pairs(static_cast<std::size_t>(block.features * rows * words));  // zeros
  for (std::int64_t feature = 0; feature < block.features; ++feature) {
    const Bfloat16* from = plane + feature * stride;
    Word* to = &pairs[static_cast<std::size_t>(feature * rows * words)];
    for (std::int64_t y = 0; y < rows; ++y) {
      std::memcpy(to + y * words, from + y * width, static_cast<std::size_t>(width) * 2);
    }
  }
  kernels::Transpose(pairs.data(), block.features, rows * words, rows * words, packed,
                     block.lanes());
}

}  // namespace

template <typename Number>
bool HasDirectConvolution() {
  return HasProcessor(kWords<Number>);
}

template <typename Number>
void Convolve(const Convolution3d& shape, std::type_identity_t<Features<const Number>> input,
              const float* weights, const float* bias, Number* output, const Parallel& parallel) {
  if (kernels::PaysByWinograd<Number>(shape)) {
    return kernels::ConvolveByWinograd<Number>(shape, input, weights, bias, output, parallel);
  }
  const std::int64_t taps = shape.taps();
  const WeightsView view{.weights = weights,
                         .channels = shape.in,
                         .taps = taps,
                         .feature_stride = shape.in * taps,
                         .channel_stride = taps};
  Correlate<Number>(kernels::ForwardAxes(shape), shape.kernel, shape.samples, view, input, bias,
                    shape.out, output, parallel);
}

template <typename Number>
void ConvolutionInputGradient(const Convolution3d& shape, const Number* output_gradient,
                              const float* weights, const float* bias,
                              std::type_identity_t<Features<Number>> input_gradient,
                              const Parallel& parallel) {
  if (kernels::PaysByWinograd<Number>(shape)) {
    return kernels::InputGradientByWinograd<Number>(shape, output_gradient, weights, bias,
                                                    input_gradient, parallel);
  }
  const std::int64_t taps = shape.taps();
  const WeightsView view{.weights = weights,
                         .channels = shape.out,
                         .taps = taps,
                         .feature_stride = taps,
                         .channel_stride = shape.in * taps};
  Correlate<Number>(kernels::BackwardAxes(shape), shape.kernel, shape.samples, view,
                    output_gradient, bias, shape.in, input_gradient, parallel);
}

template <typename Number>
void ConvolutionWeightGradient(const Convolution3d& shape,
                               std::type_identity_t<Features<const Number>> input,
                               const Number* output_gradient, float* weight_gradient,
                               const Parallel& parallel) {
  if (kernels::PaysByWinograd<Number>(shape)) {
    return kernels::WeightGradientByWinograd<Number>(shape, input, output_gradient, weight_gradient,
                                                     parallel);
  }
  constexpr auto kBytes = static_cast<std::int64_t>(sizeof(Number));
  const Axes axes = kernels::ForwardAxes(shape);
  const auto& [z_axis, y_axis, x_axis] = axes;
  const std::vector<Block> blocks = Blocks(shape.out);
  const auto block_count = static_cast<std::int64_t>(blocks.size());
  const std::int64_t words = CeilDivide(x_axis.places, kPerWord<Number>);
  const RowLayout layout(x_axis, words * kPerWord<Number>);
  const std::int64_t block_plane = y_axis.places * words;
  const std::int64_t plane_words = shape.in * z_axis.step * PaddedGrid(axes, 1, layout.row()).rows *
                                       layout.row() / kPerWord<Number> +
                                   Lanes(blocks) * block_plane;
  const std::int64_t planes =
      std::clamp<std::int64_t>(2 * kSlabWords / plane_words, 1, z_axis.places);
  const std::int64_t taps = shape.taps();
  // With fewer channels than a sum needs to be kept busy, a row of taps is summed at once.
  const bool by_rows = shape.in < 4 && shape.kernel[2] == 3 && shape.stride[2] == 1;
  const std::int64_t group = by_rows ? 1 : 12;
  const std::int64_t groups = CeilDivide(shape.in, group);
  const std::int64_t taps_at_once = by_rows ? 3 : 1;

  std::vector<float> sums(static_cast<std::size_t>(Lanes(blocks) * shape.in * taps));
  const std::unique_ptr<Bits<Number>[]> padded =
      Uninitialized<Bits<Number>>(shape.in * PaddedGrid(axes, planes, layout.row()).channel());
  const std::unique_ptr<Word[]> packed = Uninitialized<Word>(Lanes(blocks) * planes * block_plane);
  for (const Block& block : blocks) {
    if (block.features == block.lanes()) continue;
    std::fill_n(packed.get() + block.first_lane * planes * block_plane,
                block.lanes() * planes * block_plane, 0U);
  }

  for (const Slab& slab : Slabs(shape.samples, z_axis.places, planes)) {
    const PaddedGrid grid(axes, slab.count, layout.row());
    const auto block_gradient = [&](const Block& block, std::int64_t plane) {
      return packed.get() + (block.first_lane * planes + block.lanes() * plane) * block_plane;
    };
    parallel.run(shape.in + block_count * slab.count, [&](std::int64_t item) {
      if (item < shape.in) {
        PaddedRow<Number> row(layout);
        kernels::PadChannel(axes, input.At(slab.sample, item, shape.in, shape.voxels()), slab, grid,
                            row, padded.get() + item * grid.channel());
        return;
      }
      const std::int64_t plane = (item - shape.in) % slab.count;
      const Block& block = blocks[static_cast<std::size_t>((item - shape.in) / slab.count)];
      PackGradient(
          output_gradient + (slab.sample * shape.out + block.first) * shape.output_voxels() +
              (slab.first + plane) * y_axis.places * x_axis.places,
          y_axis.places, x_axis.places, shape.output_voxels(), block, block_gradient(block, plane));
    });
    const std::int64_t items = taps / taps_at_once;
    parallel.run(block_count * groups * items, [&](std::int64_t item) {
      const std::int64_t tap = item % items * taps_at_once;
      const std::int64_t first = item / items % groups * group;
      const Block& block = blocks[static_cast<std::size_t>(item / (items * groups))];
      const std::int64_t a = tap / (shape.kernel[1] * shape.kernel[2]);
      const std::int64_t b = tap / shape.kernel[2] % shape.kernel[1];
      // Where this tap sees the volume: at its faces it meets zeros alone.
      const PlaceRange planes_seen(z_axis, a, slab.first, slab.count);
      const PlaceRange rows_seen(y_axis, b, 0, y_axis.places);
      if (planes_seen.count <= 0 || rows_seen.count <= 0) return;
      const std::int64_t plane = planes_seen.first - slab.first;
      const std::int64_t offset = grid.At(axes, plane, rows_seen.first) + a * grid.plane() +
                                  b * grid.row + layout.At(tap % shape.kernel[2]);
      const std::int64_t end = std::min(shape.in, first + group);
      for (std::int64_t channel = first; channel < end;) {
        const int at_once = by_rows ? 3 : kernels::InputsAtOnce(end - channel);
        kernels::FindGradient(kWords<Number>, block.vectors, at_once)(
            {.input =
                 reinterpret_cast<const char*>(padded.get() + channel * grid.channel() + offset),
             .input_stride = by_rows ? kBytes : grid.channel() * kBytes,
             .plane_stride = z_axis.step * grid.plane() * kBytes,
             .row_stride = y_axis.step * grid.row * kBytes,
             .output_gradient =
                 block_gradient(block, plane) + rows_seen.first * words * block.lanes(),
             .gradient_plane_stride = block.lanes() * block_plane,
             .planes = planes_seen.count,
             .rows = rows_seen.count,
             .words = words,
             .sums = &sums[static_cast<std::size_t>(block.first_lane * shape.in * taps +
                                                    (channel * taps + tap) * block.lanes())],
             .sums_stride = by_rows ? block.lanes() : taps * block.lanes()});
        channel += by_rows ? 1 : at_once;
      }
    });
  }

  const std::int64_t columns = shape.in * taps;
  for (const Block& block : blocks) {
    kernels::Transpose(
        reinterpret_cast<const Word*>(&sums[static_cast<std::size_t>(block.first_lane * columns)]),
        columns, block.features, block.lanes(),
        reinterpret_cast<Word*>(weight_gradient + block.first * columns), columns);
  }
}

template <typename Number>
void SumFeatures(std::int64_t samples, std::int64_t features, std::int64_t voxels,
                 const Number* values, float* sums, const Parallel& parallel) {
  parallel.run(features, [&](std::int64_t feature) {
    double sum = 0;
    for (std::int64_t sample = 0; sample < samples; ++sample) {
      sum += kernels::Sum(BitsOf(values + (sample * features + feature) * voxels), voxels);
    }
    sums[feature] = static_cast<float>(sum);
  });
}

template bool HasDirectConvolution<float>();
template bool HasDirectConvolution<Bfloat16>();
template void Convolve(const Convolution3d&, Features<const float>, const float*, const float*,
                       float*, const Parallel&);
template void Convolve(const Convolution3d&, Features<const Bfloat16>, const float*, const float*,
                       Bfloat16*, const Parallel&);
template void ConvolutionInputGradient(const Convolution3d&, const float*, const float*,
                                       const float*, Features<float>, const Parallel&);
template void ConvolutionInputGradient(const Convolution3d&, const Bfloat16*, const float*,
                                       const float*, Features<Bfloat16>, const Parallel&);
template void ConvolutionWeightGradient(const Convolution3d&, Features<const float>, const float*,
                                        float*, const Parallel&);
template void ConvolutionWeightGradient(const Convolution3d&, Features<const Bfloat16>,
                                        const Bfloat16*, float*, const Parallel&);
template void SumFeatures(std::int64_t, std::int64_t, std::int64_t, const float*, float*,
                          const Parallel&);
template void SumFeatures(std::int64_t, std::int64_t, std::int64_t, const Bfloat16*, float*,
                          const Parallel&);

}  // namespace isoscan
