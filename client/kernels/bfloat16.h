#pragma once

#include <bit>
#include <cstdint>

namespace isoscan {

/// A float32 without its lower 16 bits.
struct Bfloat16 {
  std::uint16_t bits = 0;
};

constexpr float ToFloat(Bfloat16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16U);
}
constexpr float ToFloat(float value) { return value; }

/// To the nearest, ties to even; not a number stays one.
constexpr Bfloat16 ToBfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (value != value) return {static_cast<std::uint16_t>((bits >> 16U) | 0x40U)};
  return {static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U)};
}

}  // namespace isoscan
