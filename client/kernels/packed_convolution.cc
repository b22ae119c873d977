#include "client/kernels/packed_convolution.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cassert>
#include <cstddef>
#include <type_traits>
#include <vector>

#include "client/kernels/convolution_slabs.h"
#include "client/kernels/convolution_tiles.h"
#include "client/kernels/winograd_planes.h"

namespace isoscan {
namespace {

using kernels::Block;
using kernels::Blocks;
using kernels::CeilDivide;
using kernels::Slab;
using kernels::Uninitialized;
using kernels::Word;

/// What a tile's sums start from.
constexpr std::array<float, kernels::kWidest> kZeros{};
constexpr std::int64_t kNarrowest = 8;
constexpr std::int64_t kFewestChannels = 16;
constexpr std::int64_t kMostTaps = 16;  ///< Along z.
/// What a unit of work makes of its input, in words: 512 KiB, half of a core's own cache.
constexpr std::int64_t kUnitWords = 1 << 17;
/// Tiles that a unit has along planes and rows even if they take more: weights, read anew by each
/// unit, would otherwise be the larger part.
constexpr std::int64_t kFewestTiles = 30;

/// What differs between the types.
template <typename Number>
struct Form;

template <>
struct Form<float> {
  static constexpr auto kWords = kernels::Words::kFloat32;
  static constexpr std::int64_t kOutputs = kernels::kFloat32Outputs;
  static constexpr std::int64_t kProducts = kernels::kFloat32Products;
  static constexpr std::int64_t kChannelsPerWord = 1;
  static constexpr auto kTransformOutput = kernels::TransformPlaneOutputFloat32;
  using Bits = float;
  /// Products of three weights.
  static std::array<double, kProducts> Transformed(double a, double b, double c) {
    return {
        a / 4, -(a + b + c) / 6, -(a - b + c) / 6, a / 24 + b / 12 + c / 6, a / 24 - b / 12 + c / 6,
        c};
  }
};

template <>
struct Form<Bfloat16> {
  static constexpr auto kWords = kernels::Words::kBfloat16;
  static constexpr std::int64_t kOutputs = kernels::kBfloat16Outputs;
  static constexpr std::int64_t kProducts = kernels::kBfloat16Products;
  static constexpr std::int64_t kChannelsPerWord = 2;
  static constexpr auto kTransformOutput = kernels::TransformPlaneOutputBfloat16;
  using Bits = std::uint16_t;
  static std::array<double, kProducts> Transformed(double a, double b, double c) {
    return {a, (a + b + c) / 2, (a - b + c) / 2, c};
  }
};

/// All products of a kernel's 3 x 3 weights, row by row.
template <typename Number>
auto TransformedPlane(const float* weights) {
  constexpr std::int64_t n = Form<Number>::kProducts;
  std::array<std::array<double, n>, 3> rows{};
  for (std::size_t y = 0; y < 3; ++y) {
    rows[y] = Form<Number>::Transformed(static_cast<double>(weights[3 * y]),
                                        static_cast<double>(weights[3 * y + 1]),
                                        static_cast<double>(weights[3 * y + 2]));
  }
  std::array<float, n * n> products{};
  for (std::size_t j = 0; j < n; ++j) {
    const auto column = Form<Number>::Transformed(rows[0][j], rows[1][j], rows[2][j]);
    for (std::size_t i = 0; i < n; ++i) products[n * i + j] = static_cast<float>(column[i]);
  }
  return products;
}

void Put(float value, std::int64_t /*channel*/, Word* word) { *word = std::bit_cast<Word>(value); }

/// In the channel's half of the word.
void Put(Bfloat16 value, std::int64_t channel, Word* word) {
  const Word bits = value.bits;
  *word = channel % 2 == 0 ? bits : *word | bits << 16U;
}

void StoreVoxels(const float* sums, std::int64_t voxels, const Block& block, std::int64_t stride,
                 float* output, float* /*scratch*/) {
  kernels::Transpose(reinterpret_cast<const Word*>(sums), voxels, block.features, block.lanes(),
                     reinterpret_cast<Word*>(output), stride);
}

void StoreVoxels(const float* sums, std::int64_t voxels, const Block& block, std::int64_t stride,
                 Bfloat16* output, float* scratch) {
  kernels::Transpose(reinterpret_cast<const Word*>(sums), voxels, block.features, block.lanes(),
                     reinterpret_cast<Word*>(scratch), voxels);
  for (std::int64_t feature = 0; feature < block.features; ++feature) {
    kernels::Round(scratch + feature * voxels, voxels,
                   reinterpret_cast<std::uint16_t*>(output + feature * stride));
  }
}

/// An odd number of cache lines, so that numbers a stride apart spread over the cache.
std::int64_t OddLines(std::int64_t words) {
  const std::int64_t lines = CeilDivide(words, 16);
  return 16 * (lines + (lines + 1) % 2);
}

/// How a convolution is cut into units of work: a band of rows of tiles, some planes deep.
template <typename Number>
struct Division {
  static constexpr std::int64_t kOutputs = Form<Number>::kOutputs;
  static constexpr std::int64_t kProducts = Form<Number>::kProducts * Form<Number>::kProducts;

  Division(const Convolution3d& shape, int threads)
      : words(CeilDivide(shape.in, Form<Number>::kChannelsPerWord)),
        tiles(CeilDivide(shape.size[2], kOutputs)),
        bands(CeilDivide(shape.size[1], kOutputs)),
        around(shape.kernel[0] / 2) {
    const std::int64_t fitting = std::max(kUnitWords / (kProducts * words * tiles) - 2 * around,
                                          CeilDivide(kFewestTiles, tiles));
    const std::int64_t for_threads =
        CeilDivide(shape.samples * shape.size[0] * bands, std::int64_t{4} * threads);
    const std::int64_t most = std::clamp<std::int64_t>(
        threads == 1 ? fitting : std::min(fitting, for_threads), 1, shape.size[0]);
    const std::int64_t parts = CeilDivide(shape.size[0], most);
    planes = CeilDivide(shape.size[0], parts);
    slabs = kernels::Slabs(shape.samples, shape.size[0], planes);
  }

  std::int64_t units() const { return static_cast<std::int64_t>(slabs.size()) * bands; }

  std::int64_t words;  ///< Channels, in bfloat16 pairs of them.
  std::int64_t tiles;  ///< Of a row.
  std::int64_t bands;
  std::int64_t around;  ///< Planes that a kernel reaches beyond its own.
  std::int64_t planes;  ///< Of a unit at most.
  std::vector<Slab> slabs;
};

/// What one thread needs for a unit, and the unit's steps.
template <typename Number>
class Worker {
 public:
  using Of = Form<Number>;
  using Bits = typename Of::Bits;
  static constexpr std::int64_t m = Of::kOutputs;
  static constexpr std::int64_t n = Of::kProducts;

  Worker(const Convolution3d& shape, const Division<Number>& division)
      : shape_(shape),
        division_(division),
        input_(Uninitialized<Word>(
            n * n *
            OddLines(division.words * division.tiles * (division.planes + 2 * division.around)))),
        sums_(Uninitialized<float>(n * n *
                                   OddLines(division.planes * division.tiles * kernels::kWidest))),
        outputs_(Uninitialized<float>(m * m * division.tiles * kernels::kWidest)),
        turned_(Uninitialized<float>(m * m * division.tiles * kernels::kWidest)),
        zeros_(static_cast<std::size_t>(shape.size[2])) {}

  /// The unit's input as products [n x n][words][planes][tiles].
  void TakeInput(const std::vector<const Number*>& channels, const Slab& slab, std::int64_t band) {
    const std::int64_t tiles = division_.tiles;
    planes_in_ = slab.count + 2 * division_.around;
    stride_ = OddLines(division_.words * planes_in_ * tiles);
    const auto [depth, height, width] = shape_.size;
    std::array<const Bits*, 2 * n> rows{};
    for (std::int64_t word = 0; word < division_.words; ++word) {
      for (std::int64_t plane = 0; plane < planes_in_; ++plane) {
        Word* const to = input_.get() + (word * planes_in_ + plane) * tiles;
        const std::int64_t z = slab.first + plane - division_.around;
        if (z < 0 || z >= depth) {
          for (std::int64_t j = 0; j < n * n; ++j) std::fill_n(to + j * stride_, tiles, 0U);
          continue;
        }
        for (std::int64_t i = 0; i < Of::kChannelsPerWord * n; ++i) {
          const std::int64_t y = band * m - 1 + i % n;
          const Number* const channel =
              channels[static_cast<std::size_t>(word * Of::kChannelsPerWord + i / n)];
          rows[static_cast<std::size_t>(i)] =
              y < 0 || y >= height
                  ? zeros_.data()
                  : reinterpret_cast<const Bits*>(channel + (z * height + y) * width);
        }
        if constexpr (Of::kWords == kernels::Words::kFloat32) {
          kernels::TransformPlane(rows.data(), width, tiles, reinterpret_cast<float*>(to), stride_);
        } else {
          kernels::TransformPlane(rows.data(), width, tiles, to, stride_);
        }
      }
    }
  }

  /// Sums over channels and the kernel's planes: [n x n][planes][tiles][lanes].
  void Multiply(const Block& block, const Word* weights, std::int64_t planes) {
    const std::int64_t voxels = planes * division_.tiles;
    const std::int64_t parts = CeilDivide(voxels, kernels::kMostVoxels);
    sums_stride_ = OddLines(voxels * block.lanes());
    std::array<kernels::Tap, kMostTaps> taps{};
    const std::int64_t kernel = shape_.kernel[0];
    for (std::int64_t k = 0; k < kernel; ++k) {
      taps[static_cast<std::size_t>(k)] = {k * division_.tiles, k * block.lanes()};
    }
    for (std::int64_t j = 0; j < n * n; ++j) {
      for (std::int64_t part = 0; part < parts; ++part) {
        const std::int64_t first = part * voxels / parts;
        const auto width = static_cast<int>((part + 1) * voxels / parts - first);
        kernels::FindTile(Of::kWords, block.vectors, 1,
                          width)({.input = input_.get() + j * stride_ + first,
                                  .channel_stride = planes_in_ * division_.tiles,
                                  .row_stride = 0,
                                  .channels = division_.words,
                                  .taps = taps.data(),
                                  .tap_count = kernel,
                                  .weights = weights + j * division_.words * kernel * block.lanes(),
                                  .weights_stride = kernel * block.lanes(),
                                  .start = kZeros.data(),
                                  .output = sums_.get() + j * sums_stride_ + first * block.lanes(),
                                  .output_stride = block.lanes()});
      }
    }
  }

  /// Writes the block's features of the band: `output` is the first one's volume.
  void StoreOutput(const Block& block, const Slab& slab, std::int64_t band, Number* output) {
    const auto [depth, height, width] = shape_.size;
    const std::int64_t row = m * division_.tiles;
    const std::int64_t rows = std::min(m, height - band * m);
    for (std::int64_t z = 0; z < slab.count; ++z) {
      Of::kTransformOutput(sums_.get() + z * division_.tiles * block.lanes(), sums_stride_,
                           division_.tiles, block.lanes(), outputs_.get(), row * block.lanes());
      Number* const to = output + ((slab.first + z) * height + band * m) * width;
      const std::int64_t at_once = row == width ? rows : 1;
      for (std::int64_t y = 0; y < rows; y += at_once) {
        StoreVoxels(outputs_.get() + y * row * block.lanes(), at_once * width, block,
                    shape_.voxels(), to + y * width, turned_.get());
      }
    }
  }

 private:
  const Convolution3d& shape_;
  const Division<Number>& division_;
  std::unique_ptr<Word[]> input_;
  std::unique_ptr<float[]> sums_;
  std::unique_ptr<float[]> outputs_;  ///< [m rows][row of tiles][lanes]
  std::unique_ptr<float[]> turned_;
  std::vector<Bits> zeros_;  ///< A row beyond the volume.
  std::int64_t planes_in_ = 0;
  std::int64_t stride_ = 0;
  std::int64_t sums_stride_ = 0;
};

}  // namespace

template <typename Number>
bool PackedConvolution<Number>::Suits(const Convolution3d& shape) {
  return HasDirectConvolution<Number>() && shape.stride == std::array<std::int64_t, 3>{1, 1, 1} &&
         shape.kernel[0] % 2 == 1 && shape.kernel[0] < kMostTaps && shape.kernel[1] == 3 &&
         shape.kernel[2] == 3 && shape.size[2] >= kNarrowest && shape.in >= kFewestChannels &&
         shape.in % Form<Number>::kChannelsPerWord == 0;
}

template <typename Number>
PackedConvolution<Number>::PackedConvolution(const Convolution3d& shape, const float* weights) {
  constexpr std::int64_t n = Form<Number>::kProducts;
  const std::int64_t words = CeilDivide(shape.in, Form<Number>::kChannelsPerWord);
  const std::int64_t kernel = shape.kernel[0];
  const std::vector<Block> blocks = Blocks(shape.out);
  // Zero where a lane is nobody's.
  weights_ = std::make_unique<Word[]>(
      static_cast<std::size_t>(kernels::Lanes(blocks) * n * n * words * kernel));
  for (const Block& block : blocks) {
    Word* const packed = weights_.get() + block.first_lane * n * n * words * kernel;
    for (std::int64_t lane = 0; lane < block.features; ++lane) {
      for (std::int64_t in = 0; in < shape.in; ++in) {
        for (std::int64_t k = 0; k < kernel; ++k) {
          const auto products = TransformedPlane<Number>(
              weights + (((block.first + lane) * shape.in + in) * kernel + k) * 9);
          for (std::int64_t j = 0; j < n * n; ++j) {
            const std::int64_t word = in / Form<Number>::kChannelsPerWord;
            Word* const to = packed + ((j * words + word) * kernel + k) * block.lanes() + lane;
            const float product = products[static_cast<std::size_t>(j)];
            if constexpr (std::is_same_v<Number, float>) {
              Put(product, in, to);
            } else {
              Put(ToBfloat16(product), in, to);
            }
          }
        }
      }
    }
  }
}

template <typename Number>
void PackedConvolution<Number>::Convolve(const Convolution3d& shape,
                                         std::type_identity_t<Features<const Number>> input,
                                         Number* output, const Parallel& parallel) const {
  assert(Suits(shape));
  const Division<Number> division(shape, parallel.threads);
  const std::vector<Block> blocks = Blocks(shape.out);
  const std::int64_t block_words = Worker<Number>::n * Worker<Number>::n * division.words *
                                   shape.kernel[0];  // For each of its lanes.
  std::atomic<std::int64_t> next{0};
  // A thread's memory serves all of its units.
  parallel.run(std::min<std::int64_t>(parallel.threads, division.units()), [&](std::int64_t) {
    Worker<Number> worker(shape, division);
    std::vector<const Number*> channels;
    for (std::int64_t unit = next++; unit < division.units(); unit = next++) {
      const Slab& slab = division.slabs[static_cast<std::size_t>(unit / division.bands)];
      const std::int64_t band = unit % division.bands;
      channels.clear();
      for (std::int64_t channel = 0; channel < shape.in; ++channel) {
        channels.push_back(input.At(slab.sample, channel, shape.in, shape.voxels()));
      }
      worker.TakeInput(channels, slab, band);
      for (const Block& block : blocks) {
        worker.Multiply(block, weights_.get() + block.first_lane * block_words, slab.count);
        worker.StoreOutput(block, slab, band,
                           output + (slab.sample * shape.out + block.first) * shape.voxels());
      }
    }
  });
}

template class PackedConvolution<float>;
template class PackedConvolution<Bfloat16>;

}  // namespace isoscan
