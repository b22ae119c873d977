#include "client/kernels/winograd_planes.h"

#include "client/kernels/convolution_tiles.h"
#include <immintrin.h>

namespace isoscan::kernels {
namespace {

__mmask16 FirstLanes(std::int64_t count) {
  return static_cast<__mmask16>(count >= kLanes ? 0xffff
                                                : (1U << static_cast<unsigned>(count)) - 1U);
}

/// The same of 32 halves of words.
__mmask32 FirstHalves(std::int64_t count) {
  return count <= 0 ? 0 : count >= 32 ? 0xffffffffU : (1U << static_cast<unsigned>(count)) - 1U;
}

/// factor * value + rest
__m512 Plus(float factor, __m512 value, __m512 rest) {
  return _mm512_fmadd_ps(_mm512_set1_ps(factor), value, rest);
}

/// F(4, 3)'s six products of six inputs.
void InputOfSix(const __m512* d, __m512* p) {
  const __m512 even = Plus(-4, d[2], d[4]);
  const __m512 odd = Plus(-4, d[1], d[3]);
  const __m512 near = _mm512_sub_ps(d[4], d[2]);
  const __m512 far = _mm512_sub_ps(d[3], d[1]);
  p[0] = Plus(4, d[0], Plus(-5, d[2], d[4]));
  p[1] = _mm512_add_ps(even, odd);
  p[2] = _mm512_sub_ps(even, odd);
  p[3] = Plus(2, far, near);
  p[4] = Plus(-2, far, near);
  p[5] = Plus(4, d[1], Plus(-5, d[3], d[5]));
}

/// F(4, 3)'s four outputs of six sums.
void OutputOfSix(const __m512* m, __m512* out) {
  const __m512 near_sum = _mm512_add_ps(m[1], m[2]);
  const __m512 near_difference = _mm512_sub_ps(m[1], m[2]);
  const __m512 far_sum = _mm512_add_ps(m[3], m[4]);
  const __m512 far_difference = _mm512_sub_ps(m[3], m[4]);
  out[0] = _mm512_add_ps(m[0], _mm512_add_ps(near_sum, far_sum));
  out[1] = Plus(2, far_difference, near_difference);
  out[2] = Plus(4, far_sum, near_sum);
  out[3] = _mm512_add_ps(m[5], Plus(8, far_difference, near_difference));
}

/// F(2, 3)'s four products of four inputs.
void InputOfFour(const __m512* d, __m512* p) {
  p[0] = _mm512_sub_ps(d[0], d[2]);
  p[1] = _mm512_add_ps(d[1], d[2]);
  p[2] = _mm512_sub_ps(d[2], d[1]);
  p[3] = _mm512_sub_ps(d[1], d[3]);
}

/// F(2, 3)'s two outputs of four sums.
void OutputOfFour(const __m512* m, __m512* out) {
  out[0] = _mm512_add_ps(m[0], _mm512_add_ps(m[1], m[2]));
  out[1] = _mm512_sub_ps(_mm512_sub_ps(m[1], m[2]), m[3]);
}

/// The numbers i, 4 + i, 8 + i, ... of four vectors in a row, for i = 0 .. 3.
void EveryFourth(const __m512* row, __m512* fourth) {
  const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
  const __m512i second =
      _mm512_setr_epi32(2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31);
  const __m512 low01 = _mm512_permutex2var_ps(row[0], first, row[1]);
  const __m512 high01 = _mm512_permutex2var_ps(row[2], first, row[3]);
  const __m512 low23 = _mm512_permutex2var_ps(row[0], second, row[1]);
  const __m512 high23 = _mm512_permutex2var_ps(row[2], second, row[3]);
  fourth[0] = _mm512_shuffle_f32x4(low01, high01, 0x44);
  fourth[1] = _mm512_shuffle_f32x4(low01, high01, 0xee);
  fourth[2] = _mm512_shuffle_f32x4(low23, high23, 0x44);
  fourth[3] = _mm512_shuffle_f32x4(low23, high23, 0xee);
}

/// One lane on: lane l of the result is lane l + 1; the last one is the next row's first.
__m512 OneOn(__m512 value, __m512 next) {
  return _mm512_castsi512_ps(
      _mm512_alignr_epi32(_mm512_castps_si512(next), _mm512_castps_si512(value), 1));
}

__m512 LowHalf(__m512i words) { return _mm512_castsi512_ps(_mm512_slli_epi32(words, 16)); }

__m512 HighHalf(__m512i words) {
  return _mm512_castsi512_ps(
      _mm512_and_si512(words, _mm512_set1_epi32(static_cast<int>(0xffff0000U))));
}

/// Lane by lane, bfloat16 of `low` below that of `high`.
__m512i Paired(__m512 low, __m512 high) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

}  // namespace

void TransformPlane(const float* const* rows, std::int64_t width, std::int64_t tiles,
                    float* products, std::int64_t stride) {
  constexpr int n = kFloat32Products;
  for (std::int64_t t = 0; t < tiles; t += kLanes) {
    // 64 columns, and what the last tile needs of the next 16 where there is a next tile.
    __m512 columns[n][5];
#pragma GCC unroll 5
    for (int v = 0; v < 5; ++v) {
      const std::int64_t x = 4 * t + 16 * v - 1;
      if (x >= width || (v == 4 && tiles - t < kLanes)) {
#pragma GCC unroll 6
        for (int i = 0; i < n; ++i) columns[i][v] = _mm512_setzero_ps();
        continue;
      }
      const __mmask16 lanes =
          static_cast<__mmask16>(FirstLanes(width - x) & (x < 0 ? 0xfffe : 0xffff));
      __m512 d[n];
      __m512 p[n];
#pragma GCC unroll 6
      for (int i = 0; i < n; ++i) d[i] = _mm512_maskz_loadu_ps(lanes, rows[i] + x);
      InputOfSix(d, p);
#pragma GCC unroll 6
      for (int i = 0; i < n; ++i) columns[i][v] = p[i];
    }
    const __mmask16 lanes = FirstLanes(tiles - t);
#pragma GCC unroll 6
    for (int i = 0; i < n; ++i) {
      __m512 d[n];
      __m512 p[n];
      EveryFourth(columns[i], d);
      const __m512 second = _mm512_permute_ps(columns[i][4], 1);
      d[4] = OneOn(d[0], columns[i][4]);
      d[5] = OneOn(d[1], second);
      InputOfSix(d, p);
#pragma GCC unroll 6
      for (int j = 0; j < n; ++j) {
        _mm512_mask_storeu_ps(products + (n * i + j) * stride + t, lanes, p[j]);
      }
    }
  }
}

void TransformPlane(const std::uint16_t* const* rows, std::int64_t width, std::int64_t tiles,
                    std::uint32_t* products, std::int64_t stride) {
  constexpr int n = kBfloat16Products;
  for (std::int64_t t = 0; t < tiles; t += kLanes) {
    const std::int64_t x = 2 * t - 1;
    const __mmask32 here = FirstHalves(width - x) & (x < 0 ? 0xfffffffeU : 0xffffffffU);
    const __mmask32 next = FirstHalves(width - x - 2);
    const __mmask16 lanes = FirstLanes(tiles - t);
    __m512 p[2][n][n];  // [channel][i][j]
#pragma GCC unroll 2
    for (int channel = 0; channel < 2; ++channel) {
      __m512 q[n][n];  // [j][row]
#pragma GCC unroll 4
      for (int i = 0; i < n; ++i) {
        const std::uint16_t* const row = rows[n * channel + i] + x;
        const __m512i first = _mm512_maskz_loadu_epi16(here, row);
        const __m512i second = _mm512_maskz_loadu_epi16(next, row + 2);
        const __m512 d[n] = {LowHalf(first), HighHalf(first), LowHalf(second), HighHalf(second)};
        __m512 of_row[n];
        InputOfFour(d, of_row);
#pragma GCC unroll 4
        for (int j = 0; j < n; ++j) q[j][i] = of_row[j];
      }
#pragma GCC unroll 4
      for (int j = 0; j < n; ++j) {
        __m512 of_column[n];
        InputOfFour(q[j], of_column);
#pragma GCC unroll 4
        for (int i = 0; i < n; ++i) p[channel][i][j] = of_column[i];
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < n; ++j) {
        _mm512_mask_storeu_epi32(products + (n * i + j) * stride + t, lanes,
                                 Paired(p[0][i][j], p[1][i][j]));
      }
    }
  }
}

void TransformPlaneOutputFloat32(const float* products, std::int64_t stride, std::int64_t tiles,
                                 std::int64_t lanes, float* outputs, std::int64_t row_stride) {
  constexpr int n = kFloat32Products;
  constexpr int m = kFloat32Outputs;
  for (std::int64_t t = 0; t < tiles; ++t) {
    for (std::int64_t lane = 0; lane < lanes; lane += kLanes) {
      const float* const from = products + t * lanes + lane;
      float* const to = outputs + m * t * lanes + lane;
      __m512 rows[n][m];
#pragma GCC unroll 6
      for (int i = 0; i < n; ++i) {
        __m512 sums[n];
#pragma GCC unroll 6
        for (int j = 0; j < n; ++j) sums[j] = _mm512_loadu_ps(from + (n * i + j) * stride);
        OutputOfSix(sums, rows[i]);
      }
#pragma GCC unroll 4
      for (int b = 0; b < m; ++b) {
        const __m512 column[n] = {rows[0][b], rows[1][b], rows[2][b],
                                  rows[3][b], rows[4][b], rows[5][b]};
        __m512 out[m];
        OutputOfSix(column, out);
#pragma GCC unroll 4
        for (int a = 0; a < m; ++a) _mm512_storeu_ps(to + a * row_stride + b * lanes, out[a]);
      }
    }
  }
}

void TransformPlaneOutputBfloat16(const float* products, std::int64_t stride, std::int64_t tiles,
                                  std::int64_t lanes, float* outputs, std::int64_t row_stride) {
  constexpr int n = kBfloat16Products;
  constexpr int m = kBfloat16Outputs;
  for (std::int64_t t = 0; t < tiles; ++t) {
    for (std::int64_t lane = 0; lane < lanes; lane += kLanes) {
      const float* const from = products + t * lanes + lane;
      float* const to = outputs + m * t * lanes + lane;
      __m512 rows[n][m];
#pragma GCC unroll 4
      for (int i = 0; i < n; ++i) {
        __m512 sums[n];
#pragma GCC unroll 4
        for (int j = 0; j < n; ++j) sums[j] = _mm512_loadu_ps(from + (n * i + j) * stride);
        OutputOfFour(sums, rows[i]);
      }
#pragma GCC unroll 2
      for (int b = 0; b < m; ++b) {
        const __m512 column[n] = {rows[0][b], rows[1][b], rows[2][b], rows[3][b]};
        __m512 out[m];
        OutputOfFour(column, out);
#pragma GCC unroll 2
        for (int a = 0; a < m; ++a) _mm512_storeu_ps(to + a * row_stride + b * lanes, out[a]);
      }
    }
  }
}

}  // namespace isoscan::kernels
