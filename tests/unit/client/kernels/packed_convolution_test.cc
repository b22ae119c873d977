#include "client/kernels/packed_convolution.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "tests/unit/client/kernels/noise.h"
#include "tests/unit/client/kernels/own_threads.h"

namespace isoscan {
namespace {

template <typename Number>
struct Example {
  explicit Example(const Convolution3d& convolution)
      : shape(convolution),
        input(Noise<Number>(shape.samples * shape.in * shape.voxels(), "input")),
        weights(Noise<float>(shape.out * shape.in * shape.taps(), "weights")) {}

  /// What the definition of a convolution says, in double.
  std::vector<double> Exact() const {
    const auto [depth, height, width] = shape.size;
    std::vector<double> output(
        static_cast<std::size_t>(shape.samples * shape.out * shape.voxels()));
    for (std::size_t i = 0; i < output.size(); ++i) {
      const auto place = static_cast<std::int64_t>(i);
      const std::int64_t voxel = place % shape.voxels();
      const std::int64_t out = place / shape.voxels() % shape.out;
      const std::int64_t sample = place / shape.voxels() / shape.out;
      for (std::int64_t tap = 0; tap < shape.taps(); ++tap) {
        const std::int64_t z = voxel / (height * width) + tap / 9 - shape.kernel[0] / 2;
        const std::int64_t y = voxel / width % height + tap / 3 % 3 - 1;
        const std::int64_t x = voxel % width + tap % 3 - 1;
        if (z < 0 || z >= depth || y < 0 || y >= height || x < 0 || x >= width) continue;
        for (std::int64_t in = 0; in < shape.in; ++in) {
          const std::int64_t from =
              (sample * shape.in + in) * shape.voxels() + (z * height + y) * width + x;
          const std::int64_t weight = (out * shape.in + in) * shape.taps() + tap;
          output[i] += static_cast<double>(ToFloat(input[static_cast<std::size_t>(from)])) *
                       static_cast<double>(weights[static_cast<std::size_t>(weight)]);
        }
      }
    }
    return output;
  }

  std::vector<Number> Packed(const Parallel& parallel = {}) const {
    std::vector<Number> output(
        static_cast<std::size_t>(shape.samples * shape.out * shape.voxels()));
    PackedConvolution<Number>(shape, weights.data())
        .Convolve(shape, input.data(), output.data(), parallel);
    return output;
  }

  Convolution3d shape;
  std::vector<Number> input;
  std::vector<float> weights;
};

/// Tiles that hang over the volume's faces, one and several groups of 16 tiles in a row, features
/// that fill a part of the last block, planes on their own.
std::vector<Convolution3d> Shapes() {
  return {{.samples = 1, .in = 16, .out = 32, .size = {3, 8, 8}},
          {.samples = 2, .in = 22, .out = 43, .size = {4, 7, 10}},
          {.samples = 1, .in = 16, .out = 16, .size = {1, 5, 9}},
          {.samples = 1, .in = 18, .out = 5, .size = {3, 3, 41}},
          {.samples = 1, .in = 16, .out = 16, .size = {2, 1, 64}},
          {.samples = 1, .in = 16, .out = 16, .size = {2, 6, 131}},
          {.samples = 1, .in = 16, .out = 16, .size = {4, 9, 12}, .kernel = {1, 3, 3}},
          {.samples = 1, .in = 16, .out = 16, .size = {4, 9, 12}, .kernel = {5, 3, 3}}};
}

template <typename Number>
double LargestError(const std::vector<Number>& values, const std::vector<double>& exact) {
  double largest = 0;
  double error = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    largest = std::max(largest, std::abs(exact[i]));
    error = std::max(error, std::abs(static_cast<double>(ToFloat(values[i])) - exact[i]));
  }
  return error / largest;
}

template <typename Number>
void ExpectWhatTheDefinitionSays(double error) {
  for (const Convolution3d& shape : Shapes()) {
    SCOPED_TRACE(testing::Message() << shape.in << " to " << shape.out << ", " << shape.size[0]
                                    << "x" << shape.size[1] << "x" << shape.size[2]);
    if (!HasDirectConvolution<Number>()) GTEST_SKIP() << "this processor lacks AVX-512";
    ASSERT_TRUE(PackedConvolution<Number>::Suits(shape));
    const Example<Number> example(shape);
    EXPECT_LT(LargestError(example.Packed(), example.Exact()), error);
  }
}

TEST(PackedConvolution, IsWhatTheDefinitionSays) { ExpectWhatTheDefinitionSays<float>(1e-5); }

TEST(PackedConvolution, IsWhatTheDefinitionSaysUpToRoundingInBfloat16) {
  ExpectWhatTheDefinitionSays<Bfloat16>(1.5e-2);
}

/// Root mean square, as a share of the output's.
double ErrorInBfloat16(const std::vector<Bfloat16>& values, const std::vector<double>& exact) {
  double error = 0;
  double square = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double difference = static_cast<double>(ToFloat(values[i])) - exact[i];
    error += difference * difference;
    square += exact[i] * exact[i];
  }
  return std::sqrt(error / square);
}

TEST(PackedConvolution, ErrsInBfloat16AtMostTwiceAsMuchAsPlainProducts) {
  const Example<Bfloat16> example({.samples = 1, .in = 32, .out = 32, .size = {4, 12, 16}});
  if (!HasDirectConvolution<Bfloat16>()) GTEST_SKIP() << "no AVX-512 with bfloat16";
  const std::vector<double> exact = example.Exact();
  std::vector<Bfloat16> plain(exact.size());
  Convolve(example.shape, example.input.data(), example.weights.data(), nullptr, plain.data(), {});

  EXPECT_LT(ErrorInBfloat16(example.Packed(), exact), 2.2 * ErrorInBfloat16(plain, exact));
}

template <typename Number>
void ExpectTheSameOfParts() {
  const Example<Number> example({.samples = 2, .in = 18, .out = 16, .size = {3, 6, 9}});
  const Convolution3d& shape = example.shape;
  if (!HasDirectConvolution<Number>()) GTEST_SKIP() << "this processor lacks AVX-512";
  constexpr std::int64_t kInFirst = 5;  // In bfloat16 a pair of channels lies in both.
  std::vector<Number> first;
  std::vector<Number> second;
  for (std::int64_t sample = 0; sample < shape.samples; ++sample) {
    const auto begin = example.input.begin() + sample * shape.in * shape.voxels();
    first.insert(first.end(), begin, begin + kInFirst * shape.voxels());
    second.insert(second.end(), begin + kInFirst * shape.voxels(),
                  begin + shape.in * shape.voxels());
  }
  const Features<const Number> parts(first.data(), kInFirst, second.data());
  std::vector<Number> output(static_cast<std::size_t>(shape.samples * shape.out * shape.voxels()));

  PackedConvolution<Number>(shape, example.weights.data())
      .Convolve(shape, parts, output.data(), {});

  const std::vector<Number> whole = example.Packed();
  EXPECT_EQ(0, std::memcmp(output.data(), whole.data(), output.size() * sizeof(Number)));
}

TEST(PackedConvolution, TakesItsInputInParts) {
  ExpectTheSameOfParts<float>();
  ExpectTheSameOfParts<Bfloat16>();
}

template <typename Number>
void ExpectTheSameBits() {
  const Example<Number> example({.samples = 2, .in = 16, .out = 48, .size = {9, 11, 13}});
  if (!HasDirectConvolution<Number>()) GTEST_SKIP() << "no AVX-512";
  const std::vector<Number> one = example.Packed();
  for (const int threads : {2, 5}) {
    const std::vector<Number> several = example.Packed(OwnThreads(threads));
    EXPECT_EQ(0, std::memcmp(one.data(), several.data(), one.size() * sizeof(Number))) << threads;
  }
}

TEST(PackedConvolution, IsTheSameBitsForEveryNumberOfThreads) {
  ExpectTheSameBits<float>();
  ExpectTheSameBits<Bfloat16>();
}

template <typename Number>
void ExpectNothingReadBeyondTheInput() {
  const Example<Number> example({.samples = 1, .in = 16, .out = 16, .size = {2, 3, 9}});
  if (!HasDirectConvolution<Number>()) GTEST_SKIP() << "no AVX-512";
  // Not a number, which would show in any sum that it got into.
  const auto poison = Rounded<Number>(std::nanf(""));
  std::vector<Number> wide(example.input.size() + 128, poison);
  std::copy(example.input.begin(), example.input.end(), wide.begin() + 64);
  std::vector<Number> output(static_cast<std::size_t>(16 * example.shape.voxels()));
  PackedConvolution<Number>(example.shape, example.weights.data())
      .Convolve(example.shape, wide.data() + 64, output.data(), {});

  const std::vector<Number> expected = example.Packed();
  EXPECT_EQ(0, std::memcmp(output.data(), expected.data(), output.size() * sizeof(Number)));
}

TEST(PackedConvolution, ReadsNothingBeyondItsInput) {
  ExpectNothingReadBeyondTheInput<float>();
  ExpectNothingReadBeyondTheInput<Bfloat16>();
}

TEST(PackedConvolution, SuitsNeitherNarrowRowsNorOtherKernels) {
  const Convolution3d good{.samples = 1, .in = 16, .out = 16, .size = {4, 9, 12}};
  if (!HasDirectConvolution<float>()) GTEST_SKIP() << "this processor lacks AVX-512";
  Convolution3d narrow = good;
  narrow.size[2] = 7;
  Convolution3d pointwise = good;
  pointwise.kernel = {1, 1, 1};
  Convolution3d odd = good;
  odd.in = 17;
  Convolution3d strided = good;
  strided.stride = {2, 2, 2};

  EXPECT_TRUE(PackedConvolution<float>::Suits(good));
  EXPECT_TRUE(PackedConvolution<float>::Suits(odd));
  EXPECT_FALSE(PackedConvolution<Bfloat16>::Suits(odd)) << "channels lie in pairs";
  EXPECT_FALSE(PackedConvolution<float>::Suits(narrow));
  EXPECT_FALSE(PackedConvolution<float>::Suits(pointwise));
  EXPECT_FALSE(PackedConvolution<float>::Suits(strided));
}

}  // namespace
}  // namespace isoscan
