#include "client/kernels/convolution.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "common/random/philox.h"

namespace isoscan {
namespace {

template <typename Number>
Number Rounded(float value);
template <>
float Rounded<float>(float value) {
  return value;
}
template <>
Bfloat16 Rounded<Bfloat16>(float value) {
  return ToBfloat16(value);
}

template <typename Number>
std::vector<Number> Noise(std::int64_t count, const std::string& stream) {
  RandomStream random(1, stream);
  std::vector<Number> noise;
  for (std::int64_t i = 0; i < count; ++i) {
    noise.push_back(Rounded<Number>(static_cast<float>(random.Normal())));
  }
  return noise;
}

/// Threads of its own, taking items as they come.
Parallel Threads(int threads) {
  return {.threads = threads,
          .run = [threads](std::int64_t items, const std::function<void(std::int64_t)>& work) {
            std::atomic<std::int64_t> next{0};
            std::vector<std::jthread> pool;
            for (int i = 0; i < threads; ++i) {
              pool.emplace_back([&] {
                for (std::int64_t item = next++; item < items; item = next++) work(item);
              });
            }
          }};
}

/// One convolution, with its operands and what the definition of a convolution makes of them.
template <typename Number>
struct Example {
  explicit Example(const Convolution3d& convolution)
      : shape(convolution),
        input(Noise<Number>(shape.samples * shape.in * shape.voxels(), "input")),
        outer(Noise<Number>(shape.samples * shape.out * shape.voxels(), "outer")) {
    // As the tensor of bfloat16 weights would be: Convolve() rounds them itself.
    for (const Number weight : Noise<Number>(shape.out * shape.in * shape.taps(), "weights")) {
      weights.push_back(ToFloat(weight));
    }
    output.assign(outer.size(), 0);
    input_gradient.assign(input.size(), 0);
    weight_gradient.assign(weights.size(), 0);
    ForProducts([&](std::size_t in, std::size_t out, std::size_t weight) {
      const auto x = static_cast<double>(ToFloat(input[in]));
      const auto w = static_cast<double>(weights[weight]);
      const auto g = static_cast<double>(ToFloat(outer[out]));
      output[out] += x * w;
      input_gradient[in] += g * w;
      weight_gradient[weight] += g * x;
    });
  }

  /// Calls visit(index of input, of output, of weight) for every product inside the volume.
  template <typename Visit>
  void ForProducts(Visit visit) const {
    const auto [depth, height, width] = shape.size;
    const auto [kz, ky, kx] = shape.kernel;
    for (std::int64_t sample = 0; sample < shape.samples; ++sample) {
      for (std::int64_t out = 0; out < shape.out; ++out) {
        for (std::int64_t voxel = 0; voxel < shape.voxels(); ++voxel) {
          const std::int64_t z = voxel / (height * width);
          const std::int64_t y = voxel / width % height;
          const std::int64_t x = voxel % width;
          for (std::int64_t in = 0; in < shape.in; ++in) {
            for (std::int64_t tap = 0; tap < shape.taps(); ++tap) {
              const std::int64_t a = z + tap / (ky * kx) - kz / 2;
              const std::int64_t b = y + tap / kx % ky - ky / 2;
              const std::int64_t c = x + tap % kx - kx / 2;
              if (a < 0 || a >= depth || b < 0 || b >= height || c < 0 || c >= width) continue;
              visit(static_cast<std::size_t>((sample * shape.in + in) * shape.voxels() +
                                             (a * height + b) * width + c),
                    static_cast<std::size_t>((sample * shape.out + out) * shape.voxels() + voxel),
                    static_cast<std::size_t>((out * shape.in + in) * shape.taps() + tap));
            }
          }
        }
      }
    }
  }

  Convolution3d shape;
  std::vector<Number> input;
  std::vector<Number> outer;  ///< The output's gradient.
  std::vector<float> weights;
  std::vector<double> output;
  std::vector<double> input_gradient;
  std::vector<double> weight_gradient;
};

template <typename Number>
struct Results {
  explicit Results(const Example<Number>& example, const Parallel& parallel = {})
      : output(example.output.size()),
        input_gradient(example.input.size()),
        weight_gradient(example.weights.size()) {
    const Convolution3d& shape = example.shape;
    Convolve(shape, example.input.data(), example.weights.data(), output.data(), parallel);
    ConvolutionWeightGradient(shape, example.input.data(), example.outer.data(),
                              weight_gradient.data(), parallel);
    if (shape.in % 16 != 0) return;
    ConvolutionInputGradient(shape, example.outer.data(), example.weights.data(),
                             input_gradient.data(), parallel);
  }

  std::vector<Number> output;
  std::vector<Number> input_gradient;
  std::vector<float> weight_gradient;
};

/// Every value within `share` of the largest.
template <typename Number>
void ExpectNear(const std::vector<Number>& values, const std::vector<double>& expected,
                double share) {
  ASSERT_EQ(values.size(), expected.size());
  double largest = 0;
  for (const double value : expected) largest = std::max(largest, std::abs(value));
  for (std::size_t i = 0; i < values.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(ToFloat(values[i])), expected[i], share * largest) << i;
  }
}

std::vector<Convolution3d> Shapes() {
  std::vector<Convolution3d> shapes;
  const std::vector<std::array<std::int64_t, 3>> kernels{
      {3, 3, 3}, {1, 3, 3}, {1, 1, 1}, {5, 3, 1}};
  // One voxel wide, narrow (two rows to a tile), odd, and wider than a tile.
  const std::vector<std::array<std::int64_t, 3>> sizes{{3, 2, 1},  {2, 7, 5},  {4, 4, 6},
                                                       {1, 5, 13}, {2, 3, 25}, {5, 2, 12}};
  const std::vector<std::array<std::int64_t, 2>> features{
      {16, 16}, {1, 32}, {3, 48}, {32, 16}, {48, 80}};
  for (std::size_t i = 0; i < kernels.size() * sizes.size(); ++i) {
    const auto& [in, out] = features[i % features.size()];
    shapes.push_back({.samples = 2,
                      .in = in,
                      .out = out,
                      .size = sizes[i % sizes.size()],
                      .kernel = kernels[i / sizes.size()]});
  }
  return shapes;
}

template <typename Number>
class Convolution : public testing::Test {
 protected:
  void SetUp() override {
    if (!HasDirectConvolution<Number>({.in = 16, .out = 16, .size = {1, 1, 1}})) {
      GTEST_SKIP() << "this processor has no "
                   << (sizeof(Number) == 2 ? "AVX-512 with bfloat16" : "AVX-512");
    }
  }
};
using Types = testing::Types<float, Bfloat16>;
TYPED_TEST_SUITE(Convolution, Types);

TYPED_TEST(Convolution, IsTheSumOfProductsThatItsDefinitionSays) {
  constexpr bool kHalf = sizeof(TypeParam) == 2;
  for (const Convolution3d& shape : Shapes()) {
    SCOPED_TRACE(testing::PrintToString(shape.size) + testing::PrintToString(shape.kernel) +
                 std::to_string(shape.in) + " to " + std::to_string(shape.out));
    ASSERT_TRUE(HasDirectConvolution<TypeParam>(shape));
    const Example<TypeParam> example(shape);
    const Results<TypeParam> results(example);
    ExpectNear(results.output, example.output, kHalf ? 0.004 : 1e-5);  // the result's own rounding
    ExpectNear(results.weight_gradient, example.weight_gradient, 1e-5);
    if (shape.in % 16 != 0) continue;
    ExpectNear(results.input_gradient, example.input_gradient, kHalf ? 0.004 : 1e-5);
  }
}

TYPED_TEST(Convolution, ComputesTheSameBitsOnAnyNumberOfThreads) {
  // Several slabs, and more blocks and groups of channels than one.
  const Example<TypeParam> example({.samples = 3, .in = 32, .out = 48, .size = {9, 6, 17}});
  const Results<TypeParam> one(example);
  for (const int threads : {2, 5}) {
    const Results<TypeParam> several(example, Threads(threads));
    EXPECT_EQ(0, std::memcmp(one.output.data(), several.output.data(),
                             one.output.size() * sizeof(TypeParam)));
    EXPECT_EQ(0, std::memcmp(one.input_gradient.data(), several.input_gradient.data(),
                             one.input_gradient.size() * sizeof(TypeParam)));
    EXPECT_EQ(one.weight_gradient, several.weight_gradient);
  }
}

TYPED_TEST(Convolution, ScoresASampleTheSameWhateverItsBatchHolds) {
  const Convolution3d pair{.samples = 2, .in = 16, .out = 32, .size = {4, 5, 11}};
  const Example<TypeParam> example(pair);
  const Results<TypeParam> both(example);
  Convolution3d one = pair;
  one.samples = 1;
  std::vector<TypeParam> second(example.output.size() / 2);
  Convolve(one, example.input.data() + example.input.size() / 2, example.weights.data(),
           second.data(), {});
  EXPECT_EQ(0, std::memcmp(second.data(), both.output.data() + second.size(),
                           second.size() * sizeof(TypeParam)));
}

TYPED_TEST(Convolution, ReadsNothingBeyondItsInput) {
  // What lies around the arrays is not a number, and would show in any sum that it got into.
  const Convolution3d shape{.samples = 1, .in = 16, .out = 16, .size = {2, 3, 5}};
  const Example<TypeParam> example(shape);
  const TypeParam poison = Rounded<TypeParam>(std::nanf(""));
  const auto surrounded = [&](const std::vector<TypeParam>& values) {
    std::vector<TypeParam> wide(values.size() + 128, poison);
    for (std::size_t i = 0; i < values.size(); ++i) wide[i + 64] = values[i];
    return wide;
  };
  const std::vector<TypeParam> input = surrounded(example.input);
  const std::vector<TypeParam> outer = surrounded(example.outer);
  std::vector<TypeParam> output = surrounded(example.outer);
  std::vector<float> gradient(example.weights.size());
  Convolve(shape, input.data() + 64, example.weights.data(), output.data() + 64, {});
  ConvolutionWeightGradient(shape, input.data() + 64, outer.data() + 64, gradient.data(), {});
  ExpectNear(gradient, example.weight_gradient, 1e-5);
  for (std::size_t i = 0; i < output.size(); ++i) {
    const bool inside = i >= 64 && i < output.size() - 64;
    EXPECT_EQ(std::isnan(ToFloat(output[i])), !inside) << i;
  }
}

TEST(HasDirectConvolution, AsksForSixteensOfFeaturesAndOddKernels) {
  EXPECT_FALSE(HasDirectConvolution<float>({.in = 16, .out = 3, .size = {4, 4, 4}}));
  EXPECT_FALSE(
      HasDirectConvolution<float>({.in = 16, .out = 16, .size = {4, 4, 4}, .kernel = {3, 3, 2}}));
  EXPECT_FALSE(
      HasDirectConvolution<float>({.in = 16, .out = 16, .size = {4, 4, 4}, .kernel = {3, 3, 5}}));
}

TEST(Bfloat16, RoundsToTheNearestAndTiesToEven) {
  EXPECT_EQ(ToFloat(ToBfloat16(1.0F)), 1.0F);
  EXPECT_EQ(ToBfloat16(1.00390625F).bits, 0x3f80);  // in the middle of 1 and the next
  EXPECT_EQ(ToBfloat16(1.01171875F).bits, 0x3f82);  // in the middle of 0x3f81 and 0x3f82
  EXPECT_EQ(ToBfloat16(1.0040F).bits, 0x3f81);
  EXPECT_EQ(ToBfloat16(3.4e38F).bits, 0x7f80);  // beyond the largest: infinity
  EXPECT_TRUE(std::isnan(ToFloat(ToBfloat16(std::nanf("")))));
}

}  // namespace
}  // namespace isoscan
