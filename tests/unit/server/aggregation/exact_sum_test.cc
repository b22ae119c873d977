#include "server/aggregation/exact_sum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common/random/philox.h"

namespace isoscan {
namespace {

double SumOf(const std::vector<double>& values) {
  ExactSum sum;
  for (const double value : values) sum.Add(value);
  return sum.Value();
}

TEST(ExactSum, IsTheValueOfOneNumber) {
  const double least = std::ldexp(1, -298);  // The square of the least float.
  const double largest = std::ldexp(1, 271);
  for (const double value : {0.0, 1.0, 0.1, 1 / 3.0, 1e-60, 1e60, least, 3 * least, largest,
                             std::nextafter(largest, 0.0), std::nextafter(1.0, 2.0)}) {
    // Below 2^-245 a double can have bits under those of any square.
    const double multiple = std::floor(value / least) * least;
    EXPECT_EQ(SumOf({value}), value > 1e-70 ? value : multiple) << value;
  }
}

TEST(ExactSum, HearsTheLeastNumberBesideTheLargest) {
  const double least = std::ldexp(1, -298);
  ExactSum sum;
  sum.Add(std::ldexp(1, 271));
  sum.Add(least);
  ExactSum large;
  large.Add(std::ldexp(1, 271));
  EXPECT_EQ(sum.Value(), large.Value());  // In a double it is lost, in the sum it is not.
  std::vector<double> ones(1 << 20, 1.0);
  ones.push_back(std::ldexp(1, 53));
  EXPECT_EQ(SumOf(ones), std::ldexp(1, 53) + (1 << 20));  // In double every 1 would be lost.
}

TEST(ExactSum, HasTheSameBitsInAnyOrderAndInParts) {
  RandomStream random(5, "squares");
  std::vector<double> values(3000);
  for (double& value : values) {
    value = std::ldexp(random.Uniform(0.5, 1), static_cast<int>(random.Below(400)) - 200);
  }
  const double expected = SumOf(values);
  for (int turn = 0; turn < 20; ++turn) {
    for (std::size_t i = values.size() - 1; i > 0; --i) {
      std::swap(values[i],
                values[static_cast<std::size_t>(random.Below(static_cast<std::int64_t>(i) + 1))]);
    }
    EXPECT_EQ(SumOf(values), expected);
    ExactSum first;
    ExactSum second;
    for (std::size_t i = 0; i < values.size(); ++i) (i % 3 == 0 ? first : second).Add(values[i]);
    second.Add(first);
    EXPECT_EQ(second.Value(), expected);
  }
}

TEST(ExactSum, IsWithinAUnitOfTheSumInLongDouble) {
  RandomStream random(6, "squares");
  std::vector<double> values(5000);
  long double expected = 0;
  for (double& value : values) {
    value = random.Uniform(0, 1);
    expected += value;
  }
  const auto rounded = static_cast<double>(expected);
  EXPECT_NEAR(SumOf(values), rounded, std::nextafter(rounded, HUGE_VAL) - rounded);
}

}  // namespace
}  // namespace isoscan
