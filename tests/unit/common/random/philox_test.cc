#include "common/random/philox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>
#include <vector>

namespace isoscan {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;

// Random123's kat_vectors, philox4x32 with 10 rounds (docs/references.md#salmon2011).
TEST(Philox4x32, GivesThePublishedKnownAnswers) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  constexpr std::uint32_t kOnes = 0xffffffff;
  EXPECT_THAT(Philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(
      Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

std::vector<std::uint32_t> FirstBits(RandomStream stream, int count) {
  std::vector<std::uint32_t> bits;
  for (int i = 0; i < count; ++i) bits.push_back(stream.NextBits());
  return bits;
}

TEST(RandomStream, GivesTheSameDrawsForTheSameCoordinates) {
  EXPECT_EQ(FirstBits(RandomStream(7, "st-marys", 3, 2), 100),
            FirstBits(RandomStream(7, "st-marys", 3, 2), 100));
}

// The models of every study so far depend on these bits: a change here is a change of the format.
TEST(RandomStream, KeepsItsBitsOverTime) {
  EXPECT_THAT(FirstBits(RandomStream(1, "encoder.stages.0.0.convs.0.conv.weight"), 4),
              ElementsAre(1024346924, 1015942536, 2011570244, 4206678581));
}

TEST(RandomStream, GivesOtherDrawsWhenAnyCoordinateDiffers) {
  const std::vector<std::vector<std::uint32_t>> streams = {
      FirstBits(RandomStream(7, "st-marys", 3, 2), 4),
      FirstBits(RandomStream(8, "st-marys", 3, 2), 4),
      FirstBits(RandomStream(7 + (1ULL << 32), "st-marys", 3, 2), 4),
      FirstBits(RandomStream(7, "st-maryt", 3, 2), 4),
      FirstBits(RandomStream(7, "st-marys ", 3, 2), 4),
      FirstBits(RandomStream(7, std::string("st-marys\0", 9), 3, 2), 4),
      FirstBits(RandomStream(7, "", 3, 2), 4),
      FirstBits(RandomStream(7, "st-marys", 4, 2), 4),
      FirstBits(RandomStream(7, "st-marys", 3 + (1ULL << 32), 2), 4),
      FirstBits(RandomStream(7, "st-marys", 3, 3), 4),
      FirstBits(RandomStream(7, "st-marys", 2, 3), 4),
  };

  for (std::size_t i = 0; i < streams.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(streams[i], streams[j]) << i << " and " << j;
  }
}

TEST(RandomStream, FlipsHalfOfTheBitsWhenANameChangesByOneBit) {
  int differing = 0;
  constexpr int kNames = 200;
  for (int i = 0; i < kNames; ++i) {
    const std::string name = "site-" + std::to_string(i);
    std::string other = name;
    other.back() = static_cast<char>(other.back() ^ 1);
    const auto bits = FirstBits(RandomStream(1, name), 4);
    const auto other_bits = FirstBits(RandomStream(1, other), 4);
    for (std::size_t word = 0; word < 4; ++word) {
      differing += __builtin_popcount(bits[word] ^ other_bits[word]);
    }
  }

  // Binomial with n = 25,600 and p = 1/2: five standard deviations are 400.
  EXPECT_NEAR(differing, kNames * 128 / 2, 400);
}

TEST(RandomStream, DrawsUniformNumbersBelowTheUpperBound) {
  RandomStream stream(1, "uniform");
  double sum = 0;
  constexpr int kDraws = 100'000;
  for (int i = 0; i < kDraws; ++i) {
    const double value = stream.Uniform(-2, 3);
    ASSERT_GE(value, -2);
    ASSERT_LT(value, 3);
    sum += value;
  }
  // Five standard errors: 5 * (5 / sqrt(12)) / sqrt(100,000).
  EXPECT_NEAR(sum / kDraws, 0.5, 0.023);
}

TEST(RandomStream, NeverReachesAnUpperBoundThatRoundingWouldGive) {
  RandomStream stream(1, "narrow");
  const double high = std::nextafter(1.0, 2.0);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(stream.Uniform(1, high), 1);
}

TEST(RandomStream, DrawsEveryIntegerBelowABoundEquallyOften) {
  RandomStream stream(1, "below");
  std::vector<int> counts(7, 0);
  for (int i = 0; i < 70'000; ++i) ++counts.at(static_cast<std::size_t>(stream.Below(7)));
  for (const int count : counts) EXPECT_NEAR(count, 10'000, 5 * std::sqrt(70'000.0 * 6 / 49));
}

TEST(RandomStream, DrawsBelowTheLargestBoundWithoutBias) {
  // Two thirds of 2^63: a plain remainder of 63 bits would draw the lower half twice as often.
  constexpr std::int64_t kBound = std::numeric_limits<std::int64_t>::max() / 3 * 2;
  RandomStream stream(1, "large");
  int lower_half = 0;
  for (int i = 0; i < 10'000; ++i) {
    const std::int64_t value = stream.Below(kBound);
    ASSERT_GE(value, 0);
    ASSERT_LT(value, kBound);
    lower_half += value < kBound / 2 ? 1 : 0;
  }
  EXPECT_NEAR(lower_half, 5'000, 250);
  EXPECT_EQ(RandomStream(1, "one").Below(1), 0);
}

TEST(RandomStream, TakesChancesNeverAtZeroAndAlwaysAtOne) {
  RandomStream stream(1, "chance");
  int taken = 0;
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_FALSE(stream.Chance(0));
    ASSERT_TRUE(stream.Chance(1));
    taken += stream.Chance(0.15) ? 1 : 0;
  }
  EXPECT_NEAR(taken, 1'500, 180);
}

TEST(RandomStream, DrawsNormalNumbersWithTheRightMoments) {
  RandomStream stream(1, "normal");
  constexpr int kDraws = 400'000;
  double sums[5] = {};
  for (int i = 0; i < kDraws; ++i) {
    const double z = stream.Normal();
    for (int power = 1; power <= 4; ++power) sums[power] += std::pow(z, power);
  }
  const double root = std::sqrt(kDraws);
  EXPECT_NEAR(sums[1] / kDraws, 0, 5 / root);
  EXPECT_NEAR(sums[2] / kDraws, 1, 5 * std::sqrt(2) / root);
  EXPECT_NEAR(sums[3] / kDraws, 0, 5 * std::sqrt(15) / root);
  EXPECT_NEAR(sums[4] / kDraws, 3, 5 * std::sqrt(96) / root);
}

TEST(RandomStream, FillsWithTheBitsThatSingleDrawsGive) {
  // Lengths around the blocks of two draws, and one that is large enough for several threads.
  for (const std::size_t count : {0U, 1U, 2U, 3U, 4U, 5U, 101'003U}) {
    for (const int before : {0, 1, 2, 3, 4}) {
      RandomStream one_by_one(5, "fill");
      RandomStream at_once(5, "fill");
      for (int i = 0; i < before; ++i) {
        one_by_one.NextBits();
        at_once.NextBits();
      }
      std::vector<float> expected(count);
      for (float& value : expected) value = static_cast<float>(0.25 * one_by_one.Normal());

      std::vector<float> filled(count);
      at_once.FillNormal(filled, 0.25);

      EXPECT_EQ(filled, expected) << count << " values after " << before << " words";
      EXPECT_EQ(at_once.NextBits(), one_by_one.NextBits()) << count << " after " << before;
    }
  }
}

double Probability(double z) { return std::erfc(-z / std::numbers::sqrt2) / 2; }

TEST(NormalQuantile, GivesPublishedQuantiles) {
  // Quantiles known from other sources than AS 241, the 97.5 % point to 17 digits.
  EXPECT_THAT(NormalQuantile(0.25), DoubleNear(-0.6744897501960817, 1e-15));
  EXPECT_THAT(NormalQuantile(0.001), DoubleNear(-3.090232306167814, 3e-15));
  EXPECT_THAT(NormalQuantile(1e-20), DoubleNear(-9.262340089798408, 1e-14));
  EXPECT_THAT(NormalQuantile(0.975), DoubleNear(1.9599639845400542, 2e-15));
  EXPECT_EQ(NormalQuantile(0.5), 0);
}

TEST(NormalQuantile, InvertsTheDistributionFunction) {
  // Over all three of the algorithm's regions and both sides of their borders.
  double largest = 0;
  for (double z = -8.2; z <= 0; z += 0.00137) {
    const double error = NormalQuantile(Probability(z)) - z;
    // What rounding the probability itself does to z: half an ulp of p over the density.
    const double density = std::exp(-z * z / 2) / std::sqrt(2 * std::numbers::pi);
    const double p = Probability(z);
    const double from_rounding = 2 * (std::nextafter(p, 1.0) - p) / density;
    largest = std::max(largest, (std::fabs(error) - from_rounding) / std::max(1.0, std::fabs(z)));
  }
  EXPECT_LT(largest, 1e-15);
}

TEST(NormalQuantile, IsOddAndIncreasing) {
  double last = -std::numeric_limits<double>::infinity();
  for (int i = 1; i < 1 << 17; ++i) {
    const double p = i * 0x1p-17;  // 1 - p is exact.
    const double z = NormalQuantile(p);
    ASSERT_GT(z, last) << p;
    ASSERT_EQ(NormalQuantile(1 - p), -z) << p;
    last = z;
  }
}

TEST(NaturalLogarithm, AgreesWithTheLibrarysWithinTwoUnitsInTheLastPlace) {
  RandomStream stream(1, "logarithm");
  for (int i = 0; i < 100'000; ++i) {
    const double x =
        std::ldexp(stream.Uniform(0.5, 2), static_cast<int>(stream.Below(2000)) - 1000);
    const double expected = std::log(x);
    const double ulp = std::nextafter(std::fabs(expected), 1e300) - std::fabs(expected);
    ASSERT_LE(std::fabs(NaturalLogarithm(x) - expected), 2 * ulp) << x;
  }
  EXPECT_EQ(NaturalLogarithm(1), 0);
}

}  // namespace
}  // namespace isoscan
