#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "client/kernels/convolution.h"
#include "client/kernels/convolution_tiles.h"

// How convolution.cc and winograd_convolution.cc divide their work.

namespace isoscan::kernels {

using Word = std::uint32_t;

/// What a unit of work packs at most, in words: 4 MiB, which a core's share of the last cache
/// holds.
constexpr std::int64_t kSlabWords = 1 << 20;

template <typename Number>
constexpr bool kIsHalf = std::is_same_v<Number, Bfloat16>;
template <typename Number>
constexpr Words kWords = kIsHalf<Number> ? Words::kBfloat16 : Words::kFloat32;
/// Numbers of a word.
template <typename Number>
constexpr std::int64_t kPerWord = sizeof(Word) / sizeof(Number);
template <typename Number>
using Bits = std::conditional_t<kIsHalf<Number>, std::uint16_t, std::uint32_t>;

template <typename Number>
const Bits<Number>* BitsOf(const Number* numbers) {
  return reinterpret_cast<const Bits<Number>*>(numbers);
}

inline std::int64_t CeilDivide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Memory that is written before it is read.
template <typename T>
std::unique_ptr<T[]> Uninitialized(std::int64_t count) {
  return std::make_unique_for_overwrite<T[]>(static_cast<std::size_t>(count));
}

/// Up to 32 features that are computed together: lanes [first_lane, first_lane + lanes()) of all,
/// of which the last ones may be nobody's.
struct Block {
  std::int64_t first;
  std::int64_t features;
  std::int64_t first_lane;
  int vectors;
  std::int64_t lanes() const { return vectors * kLanes; }
};

/// `features` in blocks, none of which has features from both sides of `cut`.
inline std::vector<Block> Blocks(std::int64_t features, std::int64_t cut) {
  std::vector<Block> blocks;
  std::int64_t lane = 0;
  for (std::int64_t first = 0; first < features;) {
    const std::int64_t end = first < cut ? std::min(cut, features) : features;
    const std::int64_t count = std::min(kWidest, end - first);
    blocks.push_back({first, count, lane, count > kLanes ? 2 : 1});
    lane += blocks.back().lanes();
    first += count;
  }
  return blocks;
}
inline std::vector<Block> Blocks(std::int64_t features) { return Blocks(features, features); }

inline std::int64_t Lanes(const std::vector<Block>& blocks) {
  return blocks.back().first_lane + blocks.back().lanes();
}

/// `bias` or zeros for every lane.
inline std::vector<float> StartOfSums(const std::vector<Block>& blocks, const float* bias) {
  std::vector<float> start(static_cast<std::size_t>(Lanes(blocks)));
  if (bias == nullptr) return start;
  for (const Block& block : blocks) {
    std::copy_n(bias + block.first, block.features, start.begin() + block.first_lane);
  }
  return start;
}

/// One of the kernel's weights along an axis.
struct AxisTap {
  std::int64_t offset;  ///< Of the padded source, from the place of the kernel.
  std::int64_t weight;
};

/// What happens along an axis: the kernel goes over the source, which has zeros around it, from
/// place to place, and writes at each a voxel for every phase: target voxel place * phases + phase.
struct Axis {
  std::int64_t source;  ///< Voxels that are read.
  std::int64_t target;  ///< Voxels that are written.
  std::int64_t places;
  std::int64_t step = 1;  ///< Source voxels from one place to the next.
  std::int64_t before;    ///< Zeros before the source.
  std::int64_t reach;     ///< Source voxels that a place sees.
  std::vector<std::vector<AxisTap>> phases;

  std::int64_t phase_count() const { return static_cast<std::int64_t>(phases.size()); }
  /// Padded voxels that `count` places see.
  std::int64_t Seen(std::int64_t count) const { return (count - 1) * step + reach; }
  /// Whether the source is under a tap at any of the places [first, last].
  bool Meets(const AxisTap& tap, std::int64_t first, std::int64_t last) const {
    return last * step + tap.offset >= before && first * step + tap.offset < before + source;
  }
};
using Axes = std::array<Axis, 3>;

/// From input to output: one phase.
inline Axes ForwardAxes(const Convolution3d& shape) {
  Axes axes;
  for (std::size_t i = 0; i < 3; ++i) {
    const std::int64_t outputs = shape.OutputLength(i);
    axes[i] = {.source = shape.size[i],
               .target = outputs,
               .places = outputs,
               .step = shape.stride[i],
               .before = shape.Before(i),
               .reach = shape.kernel[i],
               .phases = {{}}};
    for (std::int64_t tap = 0; tap < shape.kernel[i]; ++tap) {
      axes[i].phases[0].push_back({tap, tap});
    }
  }
  return axes;
}

/// From the output's gradient to the input's: the voxels at one remainder by the stride are a
/// phase, and meet the same weights.
inline Axes BackwardAxes(const Convolution3d& shape) {
  Axes axes;
  for (std::size_t i = 0; i < 3; ++i) {
    const std::int64_t stride = shape.stride[i];
    const std::int64_t around = shape.Before(i);
    // Input voxel v under tap t lies below output voxel (v + around - t) / stride.
    const std::int64_t before = (shape.kernel[i] - 1 - around) / stride;
    axes[i] = {.source = shape.OutputLength(i),
               .target = shape.size[i],
               .places = shape.OutputLength(i),
               .step = 1,
               .before = before,
               .reach = before + (stride - 1 + around) / stride + 1,
               .phases = {}};
    for (std::int64_t phase = 0; phase < stride; ++phase) {
      std::vector<AxisTap>& taps = axes[i].phases.emplace_back();
      for (std::int64_t tap = 0; tap < shape.kernel[i]; ++tap) {
        const std::int64_t distance = phase + around - tap;
        if (distance % stride == 0) taps.push_back({before + distance / stride, tap});
      }
    }
  }
  return axes;
}

/// Places [first, first + count) along z of a sample.
struct Slab {
  std::int64_t sample;
  std::int64_t first;
  std::int64_t count;
};

inline std::vector<Slab> Slabs(std::int64_t samples, std::int64_t places, std::int64_t planes) {
  std::vector<Slab> slabs;
  for (std::int64_t sample = 0; sample < samples; ++sample) {
    for (std::int64_t first = 0; first < places; first += planes) {
      slabs.push_back({sample, first, std::min(planes, places - first)});
    }
  }
  return slabs;
}

/// A slab's rows of the source with zeros around them.
struct PaddedGrid {
  PaddedGrid(const Axes& axes, std::int64_t planes_of_slab, std::int64_t row_length)
      : planes(axes[0].Seen(planes_of_slab)), rows(axes[1].Seen(axes[1].places)), row(row_length) {}

  std::int64_t plane() const { return rows * row; }
  std::int64_t channel() const { return planes * plane(); }
  /// Where the kernel's first row lies at a place of the slab.
  std::int64_t At(const Axes& axes, std::int64_t z, std::int64_t y) const {
    return z * axes[0].step * plane() + y * axes[1].step * row;
  }

  std::int64_t planes;
  std::int64_t rows;
  std::int64_t row;  ///< Its length in whatever is stored.
};

/// Calls copy(source row, destination offset) for every row of the slab's padded channel that lies
/// in the volume, and clear(destination offset) for the others.
template <typename Copy, typename Clear>
void ForRows(const Axes& axes, const Slab& slab, const PaddedGrid& grid, Copy copy, Clear clear) {
  for (std::int64_t plane = 0; plane < grid.planes; ++plane) {
    const std::int64_t z = slab.first * axes[0].step + plane - axes[0].before;
    const bool inside = z >= 0 && z < axes[0].source;
    for (std::int64_t row = 0; row < grid.rows; ++row) {
      const std::int64_t y = row - axes[1].before;
      const std::int64_t to = plane * grid.plane() + row * grid.row;
      if (inside && y >= 0 && y < axes[1].source) {
        copy((z * axes[1].source + y) * axes[2].source, to);
      } else {
        clear(to);
      }
    }
  }
}

/// A channel of a slab. `row` makes of a row of the volume what is stored: row.Write(row, to).
template <typename Number, typename Row>
void PadChannel(const Axes& axes, const Number* channel, const Slab& slab, const PaddedGrid& grid,
                Row& row, Bits<Number>* padded) {
  ForRows(
      axes, slab, grid,
      [&](std::int64_t from, std::int64_t to) { row.Write(BitsOf(channel) + from, padded + to); },
      [&](std::int64_t to) { std::fill_n(padded + to, grid.row, Bits<Number>{0}); });
}

/// Two channels of a slab, number by number a word: row.WritePair(low row, high row, to). `high`
/// may be null: zeros.
template <typename Row>
void PadPair(const Axes& axes, const Bfloat16* low, const Bfloat16* high, const Slab& slab,
             const PaddedGrid& grid, Row& row, Word* padded) {
  const std::vector<std::uint16_t> zeros(high == nullptr ? static_cast<std::size_t>(axes[2].source)
                                                         : 0);
  ForRows(
      axes, slab, grid,
      [&](std::int64_t from, std::int64_t to) {
        row.WritePair(BitsOf(low) + from, high == nullptr ? zeros.data() : BitsOf(high) + from,
                      padded + to);
      },
      [&](std::int64_t to) { std::fill_n(padded + to, grid.row, Word{0}); });
}

/// All channels of a slab as words: one in float32, two in bfloat16.
template <typename Number, typename Row>
void PadChannels(const Axes& axes, const Features<const Number>& source, std::int64_t channels,
                 const Slab& slab, const PaddedGrid& grid, Row row, Word* padded) {
  const std::int64_t voxels = axes[0].source * axes[1].source * axes[2].source;
  for (std::int64_t channel = 0; channel < channels;
       channel += kPerWord<Number>, padded += grid.channel()) {
    const Number* const numbers = source.At(slab.sample, channel, channels, voxels);
    if constexpr (kIsHalf<Number>) {
      const bool paired = channel + 1 < channels;
      PadPair(axes, numbers,
              paired ? source.At(slab.sample, channel + 1, channels, voxels) : nullptr, slab, grid,
              row, padded);
    } else {
      PadChannel(axes, numbers, slab, grid, row, padded);
    }
  }
}

/// Sums [voxels][lanes of the block] to features [voxels], `stride` apart.
inline void StoreRow(const float* sums, std::int64_t voxels, const Block& block,
                     std::int64_t stride, float* output, std::vector<float>& /*scratch*/) {
  Transpose(reinterpret_cast<const Word*>(sums), voxels, block.features, block.lanes(),
            reinterpret_cast<Word*>(output), stride);
}

inline void StoreRow(const float* sums, std::int64_t voxels, const Block& block,
                     std::int64_t stride, Bfloat16* output, std::vector<float>& scratch) {
  scratch.resize(static_cast<std::size_t>(voxels * block.features));
  Transpose(reinterpret_cast<const Word*>(sums), voxels, block.features, block.lanes(),
            reinterpret_cast<Word*>(scratch.data()), voxels);
  for (std::int64_t feature = 0; feature < block.features; ++feature) {
    Round(&scratch[static_cast<std::size_t>(feature * voxels)], voxels,
          reinterpret_cast<std::uint16_t*>(output + feature * stride));
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

/// Places along an axis, of those in [from, from + length), where a tap meets the source.
struct PlaceRange {
  PlaceRange(const Axis& axis, std::int64_t tap, std::int64_t from, std::int64_t length)
      : first(std::max(from, CeilDivide(std::max<std::int64_t>(0, axis.before - tap), axis.step))),
        count(std::min(from + length,
                       CeilDivide(std::max<std::int64_t>(0, axis.source + axis.before - tap),
                                  axis.step)) -
              first) {}
  std::int64_t first;
  std::int64_t count;  ///< Not positive: none.
};

/// So many that a unit fits its cache, that every thread has several units, and that a sample's
/// units are as equal as can be: threads otherwise wait for the last of the large ones.
inline std::int64_t PlanesOfSlab(std::int64_t samples, std::int64_t places,
                                 std::int64_t words_of_plane, int threads) {
  const std::int64_t fitting = std::max<std::int64_t>(1, kSlabWords / words_of_plane);
  const std::int64_t shared = CeilDivide(samples * places, std::int64_t{8} * threads);
  const std::int64_t most = std::clamp<std::int64_t>(std::min(fitting, shared), 1, places);
  return CeilDivide(places, CeilDivide(places, most));
}

/// How many inputs SumGradients takes of so many that are left.
inline int InputsAtOnce(std::int64_t left) {
  return left >= 12 ? 12 : left >= 8 ? 8 : left >= 4 ? 4 : 1;
}

}  // namespace isoscan::kernels
