#include "client/kernels/convolution_tiles.h"

#include <immintrin.h>

namespace isoscan::kernels {
namespace {

template <Words words>
__m512 MultiplyAdd(__m512i a, __m512i b, __m512 sum) {
  if constexpr (words == Words::kFloat32) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  } else {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
  }
}

__m512i Broadcast(const void* word) {
  int value;
  __builtin_memcpy(&value, word, sizeof value);
  return _mm512_set1_epi32(value);
}

template <Words words, int vectors, int rows, int width>
void SumTile(const Tile& tile) {
  constexpr int kVoxels = rows * width;
  __m512 sums[kVoxels][vectors];
#pragma GCC unroll 16
  for (int p = 0; p < kVoxels; ++p) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) sums[p][v] = _mm512_loadu_ps(tile.start + v * kLanes);
  }
  const std::uint32_t* weights = tile.weights;
  const std::uint32_t* channel = tile.input;
  for (std::int64_t c = 0; c < tile.channels;
       ++c, channel += tile.channel_stride, weights += tile.weights_stride) {
    for (std::int64_t t = 0; t < tile.tap_count; ++t) {
      const std::uint32_t* input = channel + tile.taps[t].input;
      const std::uint32_t* at_tap = weights + tile.taps[t].weights;
      __m512i weight[vectors];
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) weight[v] = _mm512_loadu_si512(at_tap + v * kLanes);
#pragma GCC unroll 2
      for (int row = 0; row < rows; ++row) {
        const std::uint32_t* start = input + row * tile.row_stride;
#pragma GCC unroll 16
        for (int x = 0; x < width; ++x) {
          const __m512i value = Broadcast(start + x);
#pragma GCC unroll 2
          for (int v = 0; v < vectors; ++v) {
            sums[row * width + x][v] =
                MultiplyAdd<words>(value, weight[v], sums[row * width + x][v]);
          }
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < kVoxels; ++p) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      _mm512_storeu_ps(tile.output + p * tile.output_stride + v * kLanes, sums[p][v]);
    }
  }
}

template <Words words, int vectors, int rows>
TileFunction FindWidth(int width) {
  switch (width) {
    case 1:
      return SumTile<words, vectors, rows, 1>;
    case 2:
      return SumTile<words, vectors, rows, 2>;
    case 3:
      return SumTile<words, vectors, rows, 3>;
    case 4:
      return SumTile<words, vectors, rows, 4>;
    case 5:
      return SumTile<words, vectors, rows, 5>;
    case 6:
      return SumTile<words, vectors, rows, 6>;
    default:
      break;
  }
  if constexpr (rows == 1) {
    switch (width) {
      case 7:
        return SumTile<words, vectors, rows, 7>;
      case 8:
        return SumTile<words, vectors, rows, 8>;
      case 9:
        return SumTile<words, vectors, rows, 9>;
      case 10:
        return SumTile<words, vectors, rows, 10>;
      case 11:
        return SumTile<words, vectors, rows, 11>;
      case 12:
        return SumTile<words, vectors, rows, 12>;
      default:
        break;
    }
  }
  return nullptr;
}

template <Words words>
TileFunction FindVectors(int vectors, int rows, int width) {
  if (vectors == 1) {
    return rows == 1 ? FindWidth<words, 1, 1>(width) : FindWidth<words, 1, 2>(width);
  }
  return rows == 1 ? FindWidth<words, 2, 1>(width) : FindWidth<words, 2, 2>(width);
}

template <Words words, int vectors, int inputs>
void SumGradients(const GradientBlock& block) {
  __m512 sums[inputs][vectors];
#pragma GCC unroll 12
  for (int i = 0; i < inputs; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      sums[i][v] = _mm512_loadu_ps(block.sums + i * block.sums_stride + v * kLanes);
    }
  }
  for (std::int64_t z = 0; z < block.planes; ++z) {
    const std::uint32_t* gradient = block.output_gradient + z * block.gradient_plane_stride;
    for (std::int64_t y = 0; y < block.rows; ++y) {
      // One pointer for four inputs: there are not enough registers for one each.
      const std::int64_t stride = block.input_stride;
      const char* input[(inputs + 3) / 4];
#pragma GCC unroll 3
      for (int i = 0; i < inputs; i += 4) {
        input[i / 4] = block.input + z * block.plane_stride + y * block.row_stride + i * stride;
      }
      for (std::int64_t x = 0; x < block.words; ++x, gradient += vectors * kLanes) {
        __m512i outer[vectors];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) outer[v] = _mm512_loadu_si512(gradient + v * kLanes);
#pragma GCC unroll 12
        for (int i = 0; i < inputs; ++i) {
          const __m512i value = Broadcast(input[i / 4] + i % 4 * stride);
#pragma GCC unroll 2
          for (int v = 0; v < vectors; ++v) {
            sums[i][v] = MultiplyAdd<words>(value, outer[v], sums[i][v]);
          }
        }
#pragma GCC unroll 3
        for (int i = 0; i < inputs; i += 4) input[i / 4] += sizeof(std::uint32_t);
      }
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < inputs; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      _mm512_storeu_ps(block.sums + i * block.sums_stride + v * kLanes, sums[i][v]);
    }
  }
}

template <Words words, int vectors>
GradientFunction FindInputs(int inputs) {
  switch (inputs) {
    case 1:
      return SumGradients<words, vectors, 1>;
    case 3:
      return SumGradients<words, vectors, 3>;
    case 4:
      return SumGradients<words, vectors, 4>;
    case 8:
      return SumGradients<words, vectors, 8>;
    case 12:
      return SumGradients<words, vectors, 12>;
    default:
      return nullptr;
  }
}

template <Words words>
GradientFunction FindGradientOf(int vectors, int inputs) {
  return vectors == 1 ? FindInputs<words, 1>(inputs) : FindInputs<words, 2>(inputs);
}

__mmask16 FirstLanes(std::int64_t count) {
  return static_cast<__mmask16>(count >= kLanes ? 0xffff
                                                : (1U << static_cast<unsigned>(count)) - 1U);
}

/// 16 x 16 words at most.
void TransposeBlock(const std::uint32_t* from, std::int64_t rows, std::int64_t columns,
                    std::int64_t from_stride, std::uint32_t* to, std::int64_t to_stride) {
  const __mmask16 in = FirstLanes(columns);
  const __mmask16 out = FirstLanes(rows);
  __m512i a[16];
  __m512i b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    a[i] = i < rows ? _mm512_maskz_loadu_epi32(in, from + i * from_stride) : _mm512_setzero_si512();
  }
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {  // a[i + k]: columns k, k + 4, k + 8, k + 12 of rows i .. i + 3
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    // 4 x 4 blocks of four words, transposed by two rounds of shuffles.
    const __m512i low01 = _mm512_shuffle_i32x4(a[k], a[4 + k], 0x44);
    const __m512i high01 = _mm512_shuffle_i32x4(a[k], a[4 + k], 0xee);
    const __m512i low23 = _mm512_shuffle_i32x4(a[8 + k], a[12 + k], 0x44);
    const __m512i high23 = _mm512_shuffle_i32x4(a[8 + k], a[12 + k], 0xee);
    b[k] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    b[4 + k] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
    b[8 + k] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    b[12 + k] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    if (i < columns) _mm512_mask_storeu_epi32(to + i * to_stride, out, b[i]);
  }
}

}  // namespace

TileFunction FindTile(Words words, int vectors, int rows, int width) {
  return words == Words::kFloat32 ? FindVectors<Words::kFloat32>(vectors, rows, width)
                                  : FindVectors<Words::kBfloat16>(vectors, rows, width);
}

GradientFunction FindGradient(Words words, int vectors, int inputs) {
  return words == Words::kFloat32 ? FindGradientOf<Words::kFloat32>(vectors, inputs)
                                  : FindGradientOf<Words::kBfloat16>(vectors, inputs);
}

void Transpose(const std::uint32_t* from, std::int64_t rows, std::int64_t columns,
               std::int64_t from_stride, std::uint32_t* to, std::int64_t to_stride) {
  for (std::int64_t row = 0; row < rows; row += kLanes) {
    for (std::int64_t column = 0; column < columns; column += kLanes) {
      TransposeBlock(from + row * from_stride + column, rows - row, columns - column, from_stride,
                     to + column * to_stride + row, to_stride);
    }
  }
}

namespace {

__m512 Times(float factor, __m512 value) { return _mm512_mul_ps(_mm512_set1_ps(factor), value); }

/// factor * value + rest
__m512 Plus(float factor, __m512 value, __m512 rest) {
  return _mm512_fmadd_ps(_mm512_set1_ps(factor), value, rest);
}

/// Of `lanes` numbers from number `at` of a row on, those that exist, from 0 to `width` - 1.
unsigned Existing(std::int64_t at, std::int64_t lanes, std::int64_t width) {
  const unsigned all = lanes == 32 ? 0xffffffffU : (1U << static_cast<unsigned>(lanes)) - 1U;
  const std::int64_t left = width - at;
  const unsigned before_end = left >= lanes ? all
                              : left <= 0   ? 0U
                                            : (1U << static_cast<unsigned>(left)) - 1U;
  return at < 0 ? before_end & ~1U : before_end;
}

/// Numbers 4 t + i of a row, i < 6, t < 16, from number `at` >= -1 on.
void EveryFourth(const float* row, std::int64_t at, std::int64_t width, __m512* numbers) {
  const auto load = [&](std::int64_t from) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>(Existing(from, 16, width)), row + from);
  };
  const __m512i pick = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
  const __m512i two = _mm512_set1_epi32(2);
  const __m512 a = load(at);
  const __m512 b = load(at + 16);
  const __m512 c = load(at + 32);
  const __m512 d = load(at + 48);
#pragma GCC unroll 2
  for (int i = 0; i < 4; i += 2) {
    const __m512i of_pair = i == 0 ? pick : _mm512_add_epi32(pick, two);
    const __m512 low = _mm512_permutex2var_ps(a, of_pair, b);
    const __m512 high = _mm512_permutex2var_ps(c, of_pair, d);
    numbers[i] = _mm512_shuffle_f32x4(low, high, 0x44);
    numbers[i + 1] = _mm512_shuffle_f32x4(low, high, 0xee);
  }
  // The first two of the next tiles.
  const __m512i next = _mm512_castps_si512(load(at + 64));
  const __m512i second = _mm512_alignr_epi32(next, next, 1);
  numbers[4] = _mm512_castsi512_ps(_mm512_alignr_epi32(next, _mm512_castps_si512(numbers[0]), 1));
  numbers[5] = _mm512_castsi512_ps(_mm512_alignr_epi32(second, _mm512_castps_si512(numbers[1]), 1));
}

/// The numbers of 16 words of two bfloat16 each.
struct Pairs {
  __m512 even;
  __m512 odd;
};
Pairs PairsAt(const std::uint16_t* row, std::int64_t at, std::int64_t width) {
  const __m512i words =
      _mm512_maskz_loadu_epi16(static_cast<__mmask32>(Existing(at, 32, width)), row + at);
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(words, 16)),
          _mm512_castsi512_ps(_mm512_and_si512(words, upper))};
}

void StoreRounded(std::uint16_t* to, __mmask16 lanes, __m512 numbers) {
  _mm256_mask_storeu_epi16(to, lanes, (__m256i)_mm512_cvtneps_pbh(numbers));
}

/// The four products of 16 tiles of two outputs each.
struct HalfProducts {
  HalfProducts(const std::uint16_t* row, std::int64_t tile, std::int64_t width) {
    const auto [d0, d1] = PairsAt(row, 2 * tile - 1, width);
    const auto [d2, d3] = PairsAt(row, 2 * tile + 1, width);
    of[0] = _mm512_sub_ps(d0, d2);
    of[1] = _mm512_add_ps(d1, d2);
    of[2] = _mm512_sub_ps(d2, d1);
    of[3] = _mm512_sub_ps(d1, d3);
  }
  __m512 of[4];
};

}  // namespace

void TransformInput(const std::uint32_t* row, std::int64_t width, std::int64_t tiles,
                    std::uint32_t* products) {
  for (std::int64_t t = 0; t < tiles; t += kLanes) {
    const __mmask16 lanes = FirstLanes(tiles - t);
    __m512 d[6];
    EveryFourth(reinterpret_cast<const float*>(row), 4 * t - 1, width, d);
    const __m512 even = Plus(-4, d[2], d[4]);       // d4 - 4 d2
    const __m512 odd = Plus(-4, d[1], d[3]);        // d3 - 4 d1
    const __m512 near = _mm512_sub_ps(d[4], d[2]);  // d4 - d2
    const __m512 far = Times(2, _mm512_sub_ps(d[3], d[1]));
    std::uint32_t* const to = products + t;
    _mm512_mask_storeu_ps(to, lanes, Plus(4, d[0], Plus(-5, d[2], d[4])));
    _mm512_mask_storeu_ps(to + tiles, lanes, _mm512_add_ps(even, odd));
    _mm512_mask_storeu_ps(to + 2 * tiles, lanes, _mm512_sub_ps(even, odd));
    _mm512_mask_storeu_ps(to + 3 * tiles, lanes, _mm512_add_ps(near, far));
    _mm512_mask_storeu_ps(to + 4 * tiles, lanes, _mm512_sub_ps(near, far));
    _mm512_mask_storeu_ps(to + 5 * tiles, lanes, Plus(4, d[1], Plus(-5, d[3], d[5])));
  }
}

void TransformInput(const std::uint16_t* row, std::int64_t width, std::int64_t tiles,
                    std::uint16_t* products) {
  for (std::int64_t t = 0; t < tiles; t += kLanes) {
    const __mmask16 lanes = FirstLanes(tiles - t);
    const HalfProducts numbers(row, t, width);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) StoreRounded(products + j * tiles + t, lanes, numbers.of[j]);
  }
}

void TransformInputs(const std::uint16_t* low, const std::uint16_t* high, std::int64_t width,
                     std::int64_t tiles, std::uint32_t* products) {
  // Number i of 16 and number i of the 16 behind them.
  __m512i alternate = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  alternate = _mm512_or_si512(
      alternate, _mm512_slli_epi32(_mm512_add_epi32(alternate, _mm512_set1_epi32(16)), 16));
  for (std::int64_t t = 0; t < tiles; t += kLanes) {
    const __mmask16 lanes = FirstLanes(tiles - t);
    const HalfProducts low_numbers(low, t, width);
    const HalfProducts high_numbers(high, t, width);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const auto both = (__m512i)_mm512_cvtne2ps_pbh(high_numbers.of[j], low_numbers.of[j]);
      _mm512_mask_storeu_epi32(products + j * tiles + t, lanes,
                               _mm512_permutexvar_epi16(alternate, both));
    }
  }
}

void TransformWeights(Words words, const float* weights, std::int64_t count, std::int64_t lanes,
                      float* products, std::int64_t stride) {
  for (std::int64_t n = 0; n < count; ++n) {
    for (std::int64_t lane = 0; lane < lanes; lane += kLanes) {
      const float* const from = weights + 3 * n * lanes + lane;
      const __m512 w0 = _mm512_loadu_ps(from);
      const __m512 w1 = _mm512_loadu_ps(from + lanes);
      const __m512 w2 = _mm512_loadu_ps(from + 2 * lanes);
      const __m512 outer = _mm512_add_ps(w0, w2);
      float* const to = products + n * lanes + lane;
      if (words == Words::kBfloat16) {
        _mm512_storeu_ps(to, w0);
        _mm512_storeu_ps(to + stride, Times(0.5F, _mm512_add_ps(outer, w1)));
        _mm512_storeu_ps(to + 2 * stride, Times(0.5F, _mm512_sub_ps(outer, w1)));
        _mm512_storeu_ps(to + 3 * stride, w2);
        continue;
      }
      const __m512 wide = Plus(1.0F / 24, w0, Times(1.0F / 6, w2));
      _mm512_storeu_ps(to, Times(0.25F, w0));
      _mm512_storeu_ps(to + stride, Times(-1.0F / 6, _mm512_add_ps(outer, w1)));
      _mm512_storeu_ps(to + 2 * stride, Times(-1.0F / 6, _mm512_sub_ps(outer, w1)));
      _mm512_storeu_ps(to + 3 * stride, Plus(1.0F / 12, w1, wide));
      _mm512_storeu_ps(to + 4 * stride, Plus(-1.0F / 12, w1, wide));
      _mm512_storeu_ps(to + 5 * stride, w2);
    }
  }
}

void TransformOutput(Words words, const float* products, std::int64_t count, std::int64_t lanes,
                     std::int64_t stride, const float* start, float* outputs) {
  for (std::int64_t t = 0; t < count; ++t) {
    for (std::int64_t lane = 0; lane < lanes; lane += kLanes) {
      const float* const from = products + t * lanes + lane;
      const __m512 m0 = _mm512_loadu_ps(from);
      const __m512 m1 = _mm512_loadu_ps(from + stride);
      const __m512 m2 = _mm512_loadu_ps(from + 2 * stride);
      const __m512 m3 = _mm512_loadu_ps(from + 3 * stride);
      const __m512 at_start = _mm512_loadu_ps(start + lane);
      const __m512 even = _mm512_add_ps(_mm512_add_ps(m1, m2), at_start);
      const __m512 odd = _mm512_add_ps(_mm512_sub_ps(m1, m2), at_start);
      if (words == Words::kBfloat16) {
        float* const to = outputs + 2 * t * lanes + lane;
        _mm512_storeu_ps(to, _mm512_add_ps(m0, even));
        _mm512_storeu_ps(to + lanes, _mm512_sub_ps(odd, m3));
        continue;
      }
      const __m512 m4 = _mm512_loadu_ps(from + 4 * stride);
      const __m512 m5 = _mm512_loadu_ps(from + 5 * stride);
      const __m512 far_sum = _mm512_add_ps(m3, m4);
      const __m512 far_difference = _mm512_sub_ps(m3, m4);
      float* const to = outputs + 4 * t * lanes + lane;
      _mm512_storeu_ps(to, _mm512_add_ps(m0, _mm512_add_ps(even, far_sum)));
      _mm512_storeu_ps(to + lanes, Plus(2, far_difference, odd));
      _mm512_storeu_ps(to + 2 * lanes, Plus(4, far_sum, even));
      _mm512_storeu_ps(to + 3 * lanes, _mm512_add_ps(m5, Plus(8, far_difference, odd)));
    }
  }
}

void TransformOutputGradient(const float* outputs, std::int64_t tiles, std::int64_t lanes,
                             float* products, std::int64_t stride) {
  for (std::int64_t t = 0; t < tiles; ++t) {
    for (std::int64_t lane = 0; lane < lanes; lane += kLanes) {
      const float* const from = outputs + 4 * t * lanes + lane;
      const __m512 d0 = _mm512_loadu_ps(from);
      const __m512 d1 = _mm512_loadu_ps(from + lanes);
      const __m512 d2 = _mm512_loadu_ps(from + 2 * lanes);
      const __m512 d3 = _mm512_loadu_ps(from + 3 * lanes);
      const __m512 near_even = _mm512_add_ps(d0, d2);
      const __m512 near_odd = _mm512_add_ps(d1, d3);
      const __m512 far_even = Plus(4, d2, d0);
      const __m512 far_odd = Plus(8, d3, Times(2, d1));
      float* const to = products + t * lanes + lane;
      _mm512_storeu_ps(to, d0);
      _mm512_storeu_ps(to + stride, _mm512_add_ps(near_even, near_odd));
      _mm512_storeu_ps(to + 2 * stride, _mm512_sub_ps(near_even, near_odd));
      _mm512_storeu_ps(to + 3 * stride, _mm512_add_ps(far_even, far_odd));
      _mm512_storeu_ps(to + 4 * stride, _mm512_sub_ps(far_even, far_odd));
      _mm512_storeu_ps(to + 5 * stride, d3);
    }
  }
}

void TransformOutputGradient(const std::uint16_t* row, std::int64_t width, std::int64_t tiles,
                             std::uint16_t* products, std::int64_t stride) {
  for (std::int64_t t = 0; t < tiles; t += kLanes) {
    const __mmask16 lanes = FirstLanes(tiles - t);
    const auto [d0, d1] = PairsAt(row, 2 * t, width);
    std::uint16_t* const to = products + t;
    StoreRounded(to, lanes, d0);
    StoreRounded(to + stride, lanes, _mm512_add_ps(d0, d1));
    StoreRounded(to + 2 * stride, lanes, _mm512_sub_ps(d0, d1));
    StoreRounded(to + 3 * stride, lanes, d1);
  }
}

void TransformWeightGradient(Words words, const float* products, std::int64_t count,
                             std::int64_t lanes, std::int64_t stride, float* weights) {
  for (std::int64_t n = 0; n < count; ++n) {
    for (std::int64_t lane = 0; lane < lanes; lane += kLanes) {
      const float* const from = products + n * lanes + lane;
      const __m512 s0 = _mm512_loadu_ps(from);
      const __m512 s1 = _mm512_loadu_ps(from + stride);
      const __m512 s2 = _mm512_loadu_ps(from + 2 * stride);
      const __m512 s3 = _mm512_loadu_ps(from + 3 * stride);
      const __m512 near_sum = _mm512_add_ps(s1, s2);
      float* const to = weights + 3 * n * lanes + lane;
      if (words == Words::kBfloat16) {
        _mm512_storeu_ps(to, Plus(0.5F, near_sum, s0));
        _mm512_storeu_ps(to + lanes, Times(0.5F, _mm512_sub_ps(s1, s2)));
        _mm512_storeu_ps(to + 2 * lanes, _mm512_sub_ps(Times(0.5F, near_sum), s3));
        continue;
      }
      const __m512 s4 = _mm512_loadu_ps(from + 4 * stride);
      const __m512 s5 = _mm512_loadu_ps(from + 5 * stride);
      const __m512 near_difference = _mm512_sub_ps(s2, s1);
      const __m512 far_sum = _mm512_add_ps(s3, s4);
      const __m512 far_difference = _mm512_sub_ps(s3, s4);
      _mm512_storeu_ps(to, Plus(0.25F, s0, Plus(-1.0F / 6, near_sum, Times(1.0F / 24, far_sum))));
      _mm512_storeu_ps(to + lanes,
                       Plus(1.0F / 6, near_difference, Times(1.0F / 12, far_difference)));
      _mm512_storeu_ps(to + 2 * lanes,
                       _mm512_add_ps(s5, Times(1.0F / 6, _mm512_sub_ps(far_sum, near_sum))));
    }
  }
}

void Round(const float* from, std::int64_t count, std::uint16_t* to) {
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const __mmask16 lanes = FirstLanes(count - i);
    const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, from + i));
    _mm256_mask_storeu_epi16(to + i, lanes, (__m256i)rounded);
  }
}

namespace {

/// A constant stride: the compiler knows its shuffles.
template <typename Word>
void GatherWords(const Word* from, std::int64_t count, std::int64_t stride, Word* to) {
  if (stride == 1) {
    __builtin_memcpy(to, from, static_cast<unsigned long>(count) * sizeof(Word));
  } else if (stride == 2) {
    for (std::int64_t i = 0; i < count; ++i) to[i] = from[2 * i];
  } else {
    for (std::int64_t i = 0; i < count; ++i) to[i] = from[stride * i];
  }
}

__m512 Numbers(const std::uint32_t* values, __mmask16 lanes) {
  return _mm512_maskz_loadu_ps(lanes, values);
}

__m512 Numbers(const std::uint16_t* values, __mmask16 lanes) {
  const __m512i words = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, values));
  return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
}

template <typename Number>
double SumNumbers(const Number* values, std::int64_t count) {
  __m512d low = _mm512_setzero_pd();
  __m512d high = _mm512_setzero_pd();
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const __m512 numbers = Numbers(values + i, FirstLanes(count - i));
    const __m512 upper = _mm512_shuffle_f32x4(numbers, numbers, 0xee);
    low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256(numbers)));
    high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm512_castps512_ps256(upper)));
  }
  return _mm512_reduce_add_pd(_mm512_add_pd(low, high));
}

}  // namespace

void Gather(const std::uint32_t* from, std::int64_t count, std::int64_t stride, std::uint32_t* to) {
  GatherWords(from, count, stride, to);
}
void Gather(const std::uint16_t* from, std::int64_t count, std::int64_t stride, std::uint16_t* to) {
  GatherWords(from, count, stride, to);
}

double Sum(const std::uint32_t* values, std::int64_t count) { return SumNumbers(values, count); }
double Sum(const std::uint16_t* values, std::int64_t count) { return SumNumbers(values, count); }

void Interleave(const std::uint16_t* a, const std::uint16_t* b, std::int64_t count,
                std::uint32_t* to) {
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const __mmask16 lanes = FirstLanes(count - i);
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, a + i));
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, b + i));
    _mm512_mask_storeu_epi32(to + i, lanes, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
}

}  // namespace isoscan::kernels
