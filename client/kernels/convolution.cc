#include "client/kernels/convolution.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "client/kernels/convolution_tiles.h"

namespace isoscan {
namespace {

using kernels::kLanes;
using kernels::kMostVoxels;
using kernels::kWidest;
using kernels::Words;

using Word = std::uint32_t;

/// What a unit of work packs at most, in words: 4 MiB, which a core's share of the last cache
/// holds.
constexpr std::int64_t kSlabWords = 1 << 20;

template <typename Number>
constexpr Words kWords = std::is_same_v<Number, Bfloat16> ? Words::kBfloat16 : Words::kFloat32;
/// Channels that share a word in Convolve().
template <typename Number>
constexpr std::int64_t kChannelsPerWord = std::is_same_v<Number, Bfloat16> ? 2 : 1;

std::int64_t CeilDivide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Memory that is written before it is read.
template <typename T>
std::unique_ptr<T[]> Uninitialized(std::int64_t count) {
  return std::make_unique_for_overwrite<T[]>(static_cast<std::size_t>(count));
}

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

/// Output features in blocks of 32, and one of 16 at the end where there is an odd number of them.
struct Block {
  std::int64_t first;
  int vectors;
  std::int64_t width() const { return vectors * kLanes; }
};

std::vector<Block> Blocks(std::int64_t features) {
  std::vector<Block> blocks;
  for (std::int64_t first = 0; first < features; first += kWidest) {
    blocks.push_back({first, features - first >= kWidest ? 2 : 1});
  }
  return blocks;
}

/// Planes [first, first + count) of a sample, with the planes that their kernels reach.
struct Slab {
  std::int64_t sample;
  std::int64_t first;
  std::int64_t count;
};

std::vector<Slab> Slabs(const Convolution3d& shape, std::int64_t planes) {
  std::vector<Slab> slabs;
  for (std::int64_t sample = 0; sample < shape.samples; ++sample) {
    for (std::int64_t first = 0; first < shape.size[0]; first += planes) {
      slabs.push_back({sample, first, std::min(planes, shape.size[0] - first)});
    }
  }
  return slabs;
}

/// A slab's rows with zeros around them.
struct PaddedGrid {
  PaddedGrid(const Convolution3d& shape, std::int64_t planes_of_slab, std::int64_t row_length)
      : around{shape.kernel[0] / 2, shape.kernel[1] / 2, shape.kernel[2] / 2},
        planes(planes_of_slab + 2 * around[0]),
        rows(shape.size[1] + 2 * around[1]),
        row(row_length) {}

  std::int64_t plane() const { return rows * row; }
  std::int64_t channel() const { return planes * plane(); }

  std::array<std::int64_t, 3> around;
  std::int64_t planes;
  std::int64_t rows;
  std::int64_t row;  ///< Its length in whatever is stored.
};

/// Calls copy(source row, destination offset) for every row of the slab's padded channel that lies
/// in the volume, and clear(destination offset) for the others.
template <typename Copy, typename Clear>
void ForRows(const Convolution3d& shape, const Slab& slab, const PaddedGrid& grid, Copy copy,
             Clear clear) {
  for (std::int64_t plane = 0; plane < grid.planes; ++plane) {
    const std::int64_t z = slab.first + plane - grid.around[0];
    const bool inside = z >= 0 && z < shape.size[0];
    for (std::int64_t row = 0; row < grid.rows; ++row) {
      const std::int64_t y = row - grid.around[1];
      const std::int64_t to = plane * grid.plane() + row * grid.row;
      if (inside && y >= 0 && y < shape.size[1]) {
        copy((z * shape.size[1] + y) * shape.size[2], to);
      } else {
        clear(to);
      }
    }
  }
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

/// First and last tap along an axis that meet the volume anywhere from voxel `first` to `last`.
struct TapRange {
  TapRange(std::int64_t kernel, std::int64_t size, std::int64_t first_voxel,
           std::int64_t last_voxel)
      : first(std::max<std::int64_t>(0, kernel / 2 - last_voxel)),
        last(std::min(kernel - 1, kernel / 2 + size - 1 - first_voxel)) {}
  std::int64_t first;
  std::int64_t last;
};

/// Voxels along an axis, of those from `from` on, whose input under tap `tap` lies in the volume.
struct VoxelRange {
  VoxelRange(std::int64_t kernel, std::int64_t size, std::int64_t tap, std::int64_t from,
             std::int64_t length)
      : first(std::max(from, kernel / 2 - tap)),
        count(std::min(from + length, size + kernel / 2 - tap) - first) {}
  std::int64_t first;
  std::int64_t count;  ///< Not positive: none.
};

/// Taps of the rows [y, y + rows) of plane z: at the volume's faces a third of a kernel of 3 sees
/// nothing but zeros.
/// `row_taps`: how many weights a row of the kernel has, 1 where they are transformed.
void FindTaps(const Convolution3d& shape, const PaddedGrid& grid, std::int64_t z, std::int64_t y,
              std::int64_t rows, std::int64_t row_taps, const Block& block,
              std::vector<kernels::Tap>& taps) {
  const TapRange planes(shape.kernel[0], shape.size[0], z, z);
  const TapRange lines(shape.kernel[1], shape.size[1], y, y + rows - 1);
  taps.clear();
  for (std::int64_t a = planes.first; a <= planes.last; ++a) {
    for (std::int64_t b = lines.first; b <= lines.last; ++b) {
      for (std::int64_t c = 0; c < row_taps; ++c) {
        taps.push_back({a * grid.plane() + b * grid.row + c,
                        ((a * shape.kernel[1] + b) * row_taps + c) * block.width()});
      }
    }
  }
}

/// So many that a unit fits its cache, and that every thread has several units.
std::int64_t PlanesOfSlab(const Convolution3d& shape, std::int64_t words_of_plane, int threads) {
  const std::int64_t fitting = std::max<std::int64_t>(1, kSlabWords / words_of_plane);
  const std::int64_t shared = CeilDivide(shape.samples * shape.size[0], std::int64_t{8} * threads);
  return std::clamp<std::int64_t>(std::min(fitting, shared), 1, shape.size[0]);
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

namespace {

/// Weights [out, in, kz, ky, 3] as [block][6 products][in][kz, ky][lanes of the block].
std::unique_ptr<float[]> PackWinogradWeights(const Convolution3d& shape, const float* weights,
                                             const std::vector<Block>& blocks,
                                             const Parallel& parallel) {
  const std::int64_t rows = shape.in * shape.kernel[0] * shape.kernel[1];
  std::unique_ptr<float[]> packed =
      Uninitialized<float>(shape.out * rows * kernels::kWinogradProducts);
  parallel.run(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t b) {
    const Block& block = blocks[static_cast<std::size_t>(b)];
    const std::unique_ptr<float[]> turned = Uninitialized<float>(3 * rows * block.width());
    kernels::Transpose(reinterpret_cast<const Word*>(weights + block.first * 3 * rows),
                       block.width(), 3 * rows, 3 * rows, reinterpret_cast<Word*>(turned.get()),
                       block.width());
    kernels::TransformWeights(turned.get(), rows, block.width(),
                              packed.get() + block.first * rows * kernels::kWinogradProducts,
                              rows * block.width());
  });
  return packed;
}

/// Whether the products are few enough to pay for the transforms: rows of 5 leave a tile half
/// empty.
bool PaysByWinograd(const Convolution3d& shape) {
  const std::int64_t tiles = CeilDivide(shape.size[2], kernels::kWinogradOutputs);
  return shape.kernel[2] == 3 && 4 * kernels::kWinogradProducts * tiles < 3 * 3 * shape.size[2];
}

/// A channel of a slab as products, row by row: [planes][rows][6][tiles].
void PackWinogradChannel(const Convolution3d& shape, const float* channel, const Slab& slab,
                         const PaddedGrid& grid, std::int64_t tiles, float* padded, float* packed) {
  ForRows(
      shape, slab, grid,
      [&](std::int64_t from, std::int64_t to) {
        std::memcpy(padded + 1, channel + from,
                    static_cast<std::size_t>(shape.size[2]) * sizeof(float));
        kernels::TransformInput(padded, tiles, packed + to, tiles);
      },
      [&](std::int64_t to) { std::fill_n(packed + to, grid.row, 0.0F); });
}

/// Convolve() of kernels of 3 along x by half the products: Winograd's algorithm along that axis
/// alone, where its rounding stays near that of the sum itself.
void ConvolveByWinograd(const Convolution3d& shape, const float* input, const float* weights,
                        float* output, const Parallel& parallel) {
  using kernels::kWinogradOutputs;
  using kernels::kWinogradProducts;
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
    std::vector<float> padded(
        static_cast<std::size_t>(kWinogradOutputs * tiles + kernels::kWinogradSlack));
    for (std::int64_t channel = 0; channel < shape.in; ++channel) {
      PackWinogradChannel(shape, input + (slab.sample * shape.in + channel) * shape.voxels(), slab,
                          grid, tiles, padded.data(), packed.get() + channel * grid.channel());
    }
    const std::int64_t most_sums = parts.rows * tiles * kWidest;
    const std::unique_ptr<float[]> products = Uninitialized<float>(kWinogradProducts * most_sums);
    const std::unique_ptr<float[]> sums = Uninitialized<float>(kWinogradOutputs * most_sums);
    std::vector<float> scratch;
    std::vector<kernels::Tap> taps;
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
              kernels::FindTile(Words::kFloat32, block.vectors, static_cast<int>(rows), part_width)(
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
          kernels::TransformOutput(products.get(), rows * tiles, block.width(), most_sums,
                                   sums.get());
          for (std::int64_t row = 0; row < rows; ++row) {
            StoreRow(sums.get() + row * kWinogradOutputs * tiles * block.width(), width, block,
                     shape.voxels(), features + ((slab.first + z) * height + y + row) * width,
                     scratch);
          }
        }
      }
    }
  });
}

}  // namespace

template <typename Number>
void Convolve(const Convolution3d& shape, const Number* input, const float* weights, Number* output,
              const Parallel& parallel) {
  if constexpr (std::is_same_v<Number, float>) {
    if (PaysByWinograd(shape)) return ConvolveByWinograd(shape, input, weights, output, parallel);
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

namespace {

/// A plane of a block of features' gradients as [6 products][rows][tiles][lanes of the block].
void PackWinogradGradient(const Convolution3d& shape, const float* plane, const Block& block,
                          std::int64_t tiles, float* packed, std::int64_t stride) {
  const auto [depth, height, width] = shape.size;
  const std::int64_t lanes = block.width();
  std::vector<float> row(static_cast<std::size_t>(kernels::kWinogradOutputs * tiles * lanes));
  for (std::int64_t y = 0; y < height; ++y) {
    kernels::Transpose(reinterpret_cast<const Word*>(plane + y * width), lanes, width,
                       shape.voxels(), reinterpret_cast<Word*>(row.data()), lanes);
    kernels::TransformOutputGradient(row.data(), tiles, lanes, packed + y * tiles * lanes, stride);
  }
}

/// How many channels SumGradients takes of so many that are left.
int ChannelsAtOnce(std::int64_t left) {
  return left >= 12 ? 12 : left >= 8 ? 8 : left >= 4 ? 4 : 1;
}

void WeightGradientByWinograd(const Convolution3d& shape, const float* input,
                              const float* output_gradient, float* weight_gradient,
                              const Parallel& parallel) {
  using kernels::kWinogradOutputs;
  using kernels::kWinogradProducts;
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
            static_cast<std::size_t>(kWinogradOutputs * tiles + kernels::kWinogradSlack));
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
        kernels::FindGradient(Words::kFloat32, block.vectors, at_once, 1)(
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
    kernels::TransformWeightGradient(
        &sums[static_cast<std::size_t>(block.first * kWinogradProducts * count)], count,
        block.width(), count * block.width(), weights.get());
    kernels::Transpose(
        reinterpret_cast<const Word*>(weights.get()), 3 * count, block.width(), block.width(),
        reinterpret_cast<Word*>(weight_gradient + block.first * 3 * count), 3 * count);
  });
}

}  // namespace

template <typename Number>
void ConvolutionWeightGradient(const Convolution3d& shape, const Number* input,
                               const Number* output_gradient, float* weight_gradient,
                               const Parallel& parallel) {
  if constexpr (std::is_same_v<Number, float>) {
    if (PaysByWinograd(shape)) {
      return WeightGradientByWinograd(shape, input, output_gradient, weight_gradient, parallel);
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
