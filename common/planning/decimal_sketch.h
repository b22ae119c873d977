#pragma once

#include <cstdint>
#include <map>
#include <utility>

#include "absl/status/statusor.h"

namespace isoscan {

/// Counts of values in fixed buckets, for quantiles of values that lie on several sites.
///
/// A bucket is the set of numbers that round to the same `digits` significant decimal digits, and
/// stands for that decimal number. So a quantile is within a relative error of
/// 0.5 / 10^(digits - 1) (half of that on average over a decade), and a value that people write
/// with so many digits (1.0, 0.9375) comes out exactly. The buckets do not depend on the data, so
/// the sketch of a union is the sum of counts: the same bits whatever the split and the order. In
/// this it is like DDSketch (docs/references.md#masson2019), whose buckets are powers of one number
/// instead.
class DecimalSketch {
 public:
  /// Values nearer to zero than this count as zero; others must be smaller than kLargest.
  static constexpr double kSmallest = 1e-9;
  static constexpr double kLargest = 1e12;

  /// `digits` from 2 to 6.
  explicit DecimalSketch(int digits);

  /// The sketch with these counts, as another process sent them.
  /// Errors: INVALID_ARGUMENT naming the first key that is none of `digits` digits, or its count
  ///         where that is not positive, or where all together exceed 2^62.
  static absl::StatusOr<DecimalSketch> FromBuckets(int digits,
                                                   std::map<std::int64_t, std::int64_t> buckets);

  /// Finite, and of a size below kLargest.
  static bool Holds(double value);

  /// Requires Holds(value) and count >= 1.
  void Add(double value, std::int64_t count = 1);
  /// Requires equal digits.
  void Merge(const DecimalSketch& other);

  int digits() const { return digits_; }
  std::int64_t count() const { return count_; }
  /// Counts by key; keys ascend with the values.
  const std::map<std::int64_t, std::int64_t>& buckets() const { return buckets_; }
  /// What the bucket of this key stands for.
  double ValueOf(std::int64_t key) const;

  /// The value of rank 0, ..., count() - 1. Requires that there is one.
  double ValueAt(std::int64_t rank) const;
  /// Between neighbouring ranks linear, as NumPy's percentile (docs/references.md#hyndman1996, type
  /// 7). `percent` from 0 to 100. Requires a value.
  double Percentile(double percent) const;
  /// The two values in the middle, equal where the count is odd: their mean is the median, also
  /// after a monotone map of both. Requires a value.
  std::pair<double, double> Middle() const;

  bool operator==(const DecimalSketch&) const = default;

 private:
  std::int64_t KeyOf(double value) const;

  int digits_;
  std::int64_t count_ = 0;
  std::map<std::int64_t, std::int64_t> buckets_;
};

}  // namespace isoscan
