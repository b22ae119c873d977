#include "common/planning/decimal_sketch.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdlib>

namespace isoscan {
namespace {

// Powers of ten up to 10^22 are exact in double, so a product or a quotient with one is rounded
// once: the same key on every platform.
constexpr std::array<double, 19> kPowers = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,
                                            1e7,  1e8,  1e9,  1e10, 1e11, 1e12, 1e13,
                                            1e14, 1e15, 1e16, 1e17, 1e18};
constexpr int kLowestExponent = -9;  // of kSmallest; kLargest has 12.
constexpr int kHighestExponent = 12;
constexpr std::int64_t kMaximumCount = std::int64_t{1} << 62;

double TimesPowerOfTen(double value, int exponent) {
  return exponent < 0 ? value / kPowers[static_cast<std::size_t>(-exponent)]
                      : value * kPowers[static_cast<std::size_t>(exponent)];
}

std::int64_t IntegerPower(int exponent) {
  return static_cast<std::int64_t>(kPowers[static_cast<std::size_t>(exponent)]);
}

}  // namespace

// A key is sign * ((exponent - kLowestExponent + 1) * 10^digits + mantissa), the mantissa having
// `digits` digits; zero's is 0.

DecimalSketch::DecimalSketch(int digits) : digits_(digits) { assert(digits >= 2 && digits <= 6); }

absl::StatusOr<DecimalSketch> DecimalSketch::FromBuckets(
    int digits, std::map<std::int64_t, std::int64_t> buckets) {
  DecimalSketch sketch(digits);
  const std::int64_t radix = IntegerPower(digits);
  for (const auto& [key, count] : buckets) {
    // Compared before the sign is dropped, which the lowest integer would not survive.
    const bool in_range = key > -100 * radix && key < 100 * radix;
    const std::int64_t exponent = in_range ? std::abs(key) / radix - 1 + kLowestExponent : 99;
    const bool valid = key == 0 || (exponent >= kLowestExponent && exponent <= kHighestExponent &&
                                    std::abs(key) % radix >= radix / 10);
    if (!valid) {
      return absl::InvalidArgumentError(
          fmt::format("{} is no bucket of {} significant digits", key, digits));
    }
    if (count < 1 || count > kMaximumCount - sketch.count_) {
      return absl::InvalidArgumentError(
          fmt::format("the bucket of {} holds {} values", sketch.ValueOf(key), count));
    }
    sketch.count_ += count;
  }
  sketch.buckets_ = std::move(buckets);
  return sketch;
}

bool DecimalSketch::Holds(double value) { return std::abs(value) < kLargest; }

std::int64_t DecimalSketch::KeyOf(double value) const {
  const double size = std::abs(value);
  if (size < kSmallest) return 0;
  int exponent = kLowestExponent;
  while (size >= TimesPowerOfTen(1, exponent + 1)) ++exponent;
  auto mantissa =
      static_cast<std::int64_t>(std::round(TimesPowerOfTen(size, digits_ - 1 - exponent)));
  if (mantissa == IntegerPower(digits_)) {  // 9.9996 with four digits is 10.00.
    mantissa /= 10;
    ++exponent;
  }
  const std::int64_t key = (exponent - kLowestExponent + 1) * IntegerPower(digits_) + mantissa;
  return value < 0 ? -key : key;
}

double DecimalSketch::ValueOf(std::int64_t key) const {
  if (key == 0) return 0;
  const std::int64_t radix = IntegerPower(digits_);
  const int exponent = static_cast<int>(std::abs(key) / radix) - 1 + kLowestExponent;
  const double size =
      TimesPowerOfTen(static_cast<double>(std::abs(key) % radix), exponent - digits_ + 1);
  return key < 0 ? -size : size;
}

void DecimalSketch::Add(double value, std::int64_t count) {
  assert(Holds(value) && count >= 1);
  buckets_[KeyOf(value)] += count;
  count_ += count;
}

void DecimalSketch::Merge(const DecimalSketch& other) {
  assert(digits_ == other.digits_);
  for (const auto& [key, count] : other.buckets_) buckets_[key] += count;
  count_ += other.count_;
}

double DecimalSketch::ValueAt(std::int64_t rank) const {
  assert(rank >= 0 && rank < count_);
  auto bucket = buckets_.begin();
  for (; rank >= bucket->second; ++bucket) rank -= bucket->second;
  return ValueOf(bucket->first);
}

double DecimalSketch::Percentile(double percent) const {
  const double position = static_cast<double>(count_ - 1) * (percent / 100);
  const auto below = static_cast<std::int64_t>(std::floor(position));
  const double low = ValueAt(below);
  const double high = ValueAt(std::min(below + 1, count_ - 1));
  const double share = position - static_cast<double>(below);
  // From the nearer end, so that equal ends give themselves.
  return share < 0.5 ? low + (high - low) * share : high - (high - low) * (1 - share);
}

std::pair<double, double> DecimalSketch::Middle() const {
  return {ValueAt((count_ - 1) / 2), ValueAt(count_ / 2)};
}

}  // namespace isoscan
