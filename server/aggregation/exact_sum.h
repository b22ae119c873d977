#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace isoscan {

/// A sum without rounding, so that it has the same bits in any order: a fixed-point number of
/// 32-bit digits whose carries are settled at the end.
///
/// What is added must be a whole multiple of 2^-298 in [0, 2^272), which every sum of squared
/// differences of floats is; up to 2^30 of them.
class ExactSum {
 public:
  void Add(double value) {
    const auto bits = std::bit_cast<std::uint64_t>(value);
    const int exponent = static_cast<int>(bits >> kMantissaBits);
    if (exponent == 0) return;  // Zero: the least square is a normal number.
    std::uint64_t mantissa = (bits & (kHiddenBit - 1)) | kHiddenBit;
    int place = exponent - 1023 - kMantissaBits - kLowestExponent;  // Of the mantissa's last bit.
    if (place < 0) {
      mantissa >>= -place;  // Zeros, by what may be added.
      place = 0;
    }
    const std::uint64_t low = (mantissa & kDigit) << (place % 32);
    const std::uint64_t high = (mantissa >> 32) << (place % 32);
    std::uint64_t* const digit = digits_.data() + place / 32;
    digit[0] += low & kDigit;
    digit[1] += (low >> 32) + (high & kDigit);
    digit[2] += high >> 32;
  }

  void Add(const ExactSum& other) {
    for (std::size_t i = 0; i < digits_.size(); ++i) digits_[i] += other.digits_[i];
  }

  /// Within a unit in the last place.
  double Value() const {
    double value = 0;
    std::uint64_t carry = 0;
    for (std::size_t i = 0; i < digits_.size(); ++i) {
      const std::uint64_t digit = digits_[i] + carry;
      carry = digit >> 32;
      value += std::ldexp(static_cast<double>(digit & kDigit),
                          32 * static_cast<int>(i) + kLowestExponent);
    }
    return value;
  }

 private:
  static constexpr int kMantissaBits = 52;
  static constexpr std::uint64_t kHiddenBit = std::uint64_t{1} << kMantissaBits;
  static constexpr std::uint64_t kDigit = 0xffffffff;
  static constexpr int kLowestExponent = -298;

  std::array<std::uint64_t, 20> digits_{};
};

}  // namespace isoscan
