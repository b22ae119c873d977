#pragma once

#include <bit>
#include <cstdint>

namespace isoscan {

// Functions of one number without a branch or a call, so that a loop over them is vectorised, to
// the same bits on every processor. Within 2 units in the last place of the true value.

/// e^x for x <= 0; 0 below -87.
[[gnu::always_inline]] inline float ExponentialOfNegative(float x) {
  constexpr float kLog2e = 1.44269504F;
  // ln 2 in two parts, so that x - n ln 2 loses nothing.
  constexpr float kLn2High = 0.693359375F;
  constexpr float kLn2Low = -2.12194440e-4F;
  constexpr float kRoundToInteger = 12582912.0F;  // 1.5 * 2^23
  const float bounded = x < -87.0F ? -87.0F : x;
  const float n = (bounded * kLog2e + kRoundToInteger) - kRoundToInteger;
  const float r = (bounded - n * kLn2High) - n * kLn2Low;
  // Taylor's series of e^r on |r| <= ln 2 / 2; the next term is below 2e-8.
  float sum = 1.0F / 5040.0F;
  sum = sum * r + 1.0F / 720.0F;
  sum = sum * r + 1.0F / 120.0F;
  sum = sum * r + 1.0F / 24.0F;
  sum = sum * r + 1.0F / 6.0F;
  sum = sum * r + 0.5F;
  sum = sum * r * r + r + 1.0F;
  const std::int32_t power = static_cast<std::int32_t>(n) + 127;
  const float result = sum * std::bit_cast<float>(power << 23);
  return x < -87.0F ? 0.0F : result;
}

/// The natural logarithm of x >= 1.
[[gnu::always_inline]] inline float LogarithmFromOne(float x) {
  constexpr float kLn2High = 0.693359375F;
  constexpr float kLn2Low = -2.12194440e-4F;
  constexpr std::int32_t kSqrtHalf = 0x3f3504f3;
  // x = m 2^e with m between sqrt(1/2) and sqrt(2).
  const std::int32_t shifted = std::bit_cast<std::int32_t>(x) - kSqrtHalf;
  const std::int32_t exponent = shifted >> 23;
  const float m = std::bit_cast<float>((shifted & 0x007fffff) + kSqrtHalf);
  // ln m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 0.172; the next term is below 1e-9.
  const float s = (m - 1.0F) / (m + 1.0F);
  const float square = s * s;
  float sum = 1.0F / 9.0F;
  sum = sum * square + 1.0F / 7.0F;
  sum = sum * square + 1.0F / 5.0F;
  sum = sum * square + 1.0F / 3.0F;
  const auto e = static_cast<float>(exponent);
  return e * kLn2High + (e * kLn2Low + 2.0F * (s + s * square * sum));
}

}  // namespace isoscan
