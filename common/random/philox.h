#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace isoscan {

/// Philox4x32-10: a counter-based generator. Value n of a stream is a pure function of (key, n), so
/// any draw of any case, step or round can be computed again without those before it, and the bits
/// are the same on every platform.
///
/// Source: docs/references.md#salmon2011 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2,
///         3, SC'11). Checked against the published known-answer vectors.
std::array<std::uint32_t, 4> Philox4x32(const std::array<std::uint32_t, 4>& counter,
                                        const std::array<std::uint32_t, 2>& key);

/// The draws that belong to one purpose, named by where they are used.
///
/// Two streams with other coordinates are independent; the same coordinates give the same draws.
/// Only exact integer and IEEE 754 basic operations are used: no libm function whose last bit
/// changes with its version. The key is a hash of seed and name; `major`, `minor` and the number of
/// the block make the counter, so a stream has 2^34 draws of 32 bits before it repeats itself.
class RandomStream {
 public:
  /// `name` says who draws (a site's declared stream, a parameter's name); `major` and `minor` say
  /// when (round, step, case).
  RandomStream(std::uint64_t seed, std::string_view name, std::uint64_t major = 0,
               std::uint32_t minor = 0);

  std::uint32_t NextBits();
  /// In [0, 1), 53 bits.
  double Uniform();
  /// In [low, high).
  double Uniform(double low, double high);
  /// In [0, bound), without bias; bound > 0.
  std::int64_t Below(std::int64_t bound);
  bool Chance(double probability);
  /// Standard normal, by inversion (docs/references.md#wichura1988, AS 241). Between -8.2 and 8.2.
  double Normal();
  /// The next values.size() draws of Normal(), times `sd`, each rounded to float once. Faster than
  /// one by one for many values; the bits do not depend on the number of threads.
  void FillNormal(std::span<float> values, double sd);

 private:
  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 4> counter_;
  std::array<std::uint32_t, 4> block_{};
  int used_ = 4;
};

/// The z with P(Z <= z) = p for a standard normal Z; 0 < p < 1. Within 1e-15 of |z| or 1 in
/// relative error, whichever is larger.
///
/// Source: docs/references.md#wichura1988 (Wichura, Algorithm AS 241: PPND16).
double NormalQuantile(double p);

/// Natural logarithm of a positive, normal number, within 2 units in the last place, from basic
/// operations alone.
double NaturalLogarithm(double x);

}  // namespace isoscan
