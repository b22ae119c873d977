#include "common/planning/decimal_sketch.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "common/random/philox.h"
#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using testing::HasSubstr;
using testing::Pair;

// What a value's bucket stands for.
double Rounded(double value, int digits) {
  DecimalSketch sketch(digits);
  sketch.Add(value);
  return sketch.ValueAt(0);
}

TEST(DecimalSketch, GivesBackWhatHasSoFewDigitsExactly) {
  for (const double value : {1.0, 0.9375, 3.6, 0.625, 6.0, 319.0, 9999.0, 0.0, -0.47, 1e-9, 5e11}) {
    EXPECT_EQ(Rounded(value, 4), value);
  }
  for (int size = 1; size < 10'000; ++size) EXPECT_EQ(Rounded(size, 4), size);
}

TEST(DecimalSketch, RoundsAsPrintfDoes) {
  RandomStream random(1, "values");
  for (int i = 0; i < 20'000; ++i) {
    const double value = random.Normal() * std::pow(10, random.Uniform(-8, 11));
    if (std::abs(value) < DecimalSketch::kSmallest) continue;
    for (int digits = 2; digits <= 6; ++digits) {
      const double printed =
          std::strtod(fmt::format("{:.{}e}", value, digits - 1).c_str(), nullptr);
      EXPECT_EQ(Rounded(value, digits), printed) << value << " with " << digits << " digits";
      EXPECT_EQ(Rounded(printed, digits), printed);
    }
  }
}

TEST(DecimalSketch, IsWithinHalfAUnitOfItsLastDigit) {
  RandomStream random(2, "values");
  for (int i = 0; i < 20'000; ++i) {
    const double value = std::pow(10, random.Uniform(-9, 12));
    EXPECT_NEAR(Rounded(value, 4), value, value * 0.5e-3 * (1 + 1e-12));
  }
}

TEST(DecimalSketch, KeepsTheOrderOfValues) {
  const std::vector<double> values = {-3e4, -2, -0.5, -1e-9, 0, 1e-9, 0.999, 0.9999, 1, 10.01, 7e9};
  DecimalSketch sketch(4);
  for (const double value : values) sketch.Add(value);
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(sketch.ValueAt(static_cast<std::int64_t>(i)), values[i]);
  }
}

TEST(DecimalSketch, CountsWhatIsTooSmallAsZero) {
  EXPECT_EQ(Rounded(9.99e-10, 3), 0);
  EXPECT_EQ(Rounded(-9.99e-10, 3), 0);
  EXPECT_TRUE(DecimalSketch::Holds(-999'999'999'999.0));
  EXPECT_EQ(Rounded(999'999'999'999.0, 3), 1e12);
  EXPECT_FALSE(DecimalSketch::Holds(1e12));
  EXPECT_FALSE(DecimalSketch::Holds(std::numeric_limits<double>::quiet_NaN()));
  EXPECT_FALSE(DecimalSketch::Holds(-std::numeric_limits<double>::infinity()));
}

class RandomSplits : public testing::TestWithParam<std::uint32_t> {};
INSTANTIATE_TEST_SUITE_P(DecimalSketch, RandomSplits, testing::Range(0u, 20u));

TEST_P(RandomSplits, MergeToTheSketchOfAllValuesBitForBit) {
  RandomStream random(GetParam(), "split");
  DecimalSketch pooled(3);
  std::vector<DecimalSketch> sites(static_cast<std::size_t>(1 + random.Below(9)), DecimalSketch(3));
  for (int i = 0; i < 500; ++i) {
    const double value = 100 * random.Normal();
    pooled.Add(value);
    sites[static_cast<std::size_t>(random.Below(static_cast<std::int64_t>(sites.size())))].Add(
        value);
  }
  DecimalSketch forwards(3);
  for (const DecimalSketch& site : sites) forwards.Merge(site);
  std::reverse(sites.begin(), sites.end());
  DecimalSketch backwards(3);
  for (const DecimalSketch& site : sites) backwards.Merge(site);

  EXPECT_EQ(forwards, pooled);
  EXPECT_EQ(backwards, pooled);
  ASSERT_OK_AND_ASSIGN(const DecimalSketch sent,
                       DecimalSketch::FromBuckets(pooled.digits(), pooled.buckets()));
  EXPECT_EQ(sent, pooled);
}

TEST(DecimalSketch, HasTheQuantilesOfTheValues) {
  // NumPy: percentile([1, 2, 4, 8, 16, 32], [0, 5, 10, 35, 50, 90, 100]).
  DecimalSketch sketch(3);
  for (const double value : {32, 1, 8, 2, 16, 4}) sketch.Add(value);
  EXPECT_EQ(sketch.Percentile(0), 1);
  EXPECT_DOUBLE_EQ(sketch.Percentile(5), 1.25);
  EXPECT_DOUBLE_EQ(sketch.Percentile(10), 1.5);
  EXPECT_DOUBLE_EQ(sketch.Percentile(35), 3.5);
  EXPECT_DOUBLE_EQ(sketch.Percentile(50), 6);
  EXPECT_DOUBLE_EQ(sketch.Percentile(90), 24);
  EXPECT_EQ(sketch.Percentile(100), 32);
  EXPECT_THAT(sketch.Middle(), Pair(4, 8));
  sketch.Add(9);
  EXPECT_THAT(sketch.Middle(), Pair(8, 8));
}

TEST(DecimalSketch, WeighsAValueByItsCount) {
  DecimalSketch one_by_one(4);
  for (int i = 0; i < 7; ++i) one_by_one.Add(0.7);
  DecimalSketch at_once(4);
  at_once.Add(0.7, 7);
  EXPECT_EQ(one_by_one, at_once);
}

TEST(DecimalSketch, RefusesBucketsThatAreNone) {
  constexpr std::int64_t kLowest = std::numeric_limits<std::int64_t>::min();
  constexpr std::int64_t kHighest = std::numeric_limits<std::int64_t>::max();
  // A mantissa of two digits, exponents -10 and 13, and what overflows.
  for (const std::int64_t key : {10'099L, 500L, -500L, 230'000L + 1000, kLowest, kHighest}) {
    EXPECT_THAT(DecimalSketch::FromBuckets(4, {{key, 1}}),
                StatusIs(StatusCode::kInvalidArgument,
                         HasSubstr(fmt::format("{} is no bucket of 4", key))));
  }
  for (const std::int64_t count : {0L, -1L, kLowest, kHighest}) {
    EXPECT_THAT(DecimalSketch::FromBuckets(4, {{0, count}}),
                StatusIs(StatusCode::kInvalidArgument,
                         HasSubstr(fmt::format("the bucket of 0 holds {} values", count))));
  }
  constexpr std::int64_t kMany = std::int64_t{1} << 61;
  EXPECT_THAT(DecimalSketch::FromBuckets(4, {{-15'000, kMany}, {0, kMany}, {15'000, kMany}}),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("holds 2305843009213693952")));
}

}  // namespace
}  // namespace isoscan
