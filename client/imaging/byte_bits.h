#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace isoscan {

/// Bit i of the result is set where byte i of `bytes` is not 0.
inline std::uint64_t NonzeroBytes(std::uint64_t bytes) {
  static_assert(std::endian::native == std::endian::little);
  constexpr std::uint64_t kLowBits = 0x7f7f7f7f7f7f7f7f;
  const std::uint64_t ones = ((((bytes & kLowBits) + kLowBits) | bytes) & ~kLowBits) >> 7;
  return (ones * 0x0102040810204080) >> 56;  // Byte i, 0 or 1, moves to bit 56 + i.
}

/// The same of 64 bytes.
inline std::uint64_t NonzeroBytes(const std::array<std::uint64_t, 8>& bytes) {
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) bits |= NonzeroBytes(bytes[i]) << (8 * i);
  return bits;
}

}  // namespace isoscan
