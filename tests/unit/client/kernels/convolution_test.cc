#include "client/kernels/convolution.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "tests/unit/client/kernels/noise.h"
#include "tests/unit/client/kernels/own_threads.h"

namespace isoscan {
namespace {

/// One convolution, with its operands and what the definition of a convolution makes of them.
template <typename Number>
struct Example {
  explicit Example(const Convolution3d& convolution)
      : shape(convolution),
        input(Noise<Number>(shape.samples * shape.in * shape.voxels(), "input")),
        outer(Noise<Number>(shape.samples * shape.out * shape.output_voxels(), "outer")),
        bias(Noise<float>(shape.out, "bias")),
        input_bias(Noise<float>(shape.in, "input bias")) {
    // As the tensor of bfloat16 weights would be: Convolve() rounds them itself.
    for (const Number weight : Noise<Number>(shape.out * shape.in * shape.taps(), "weights")) {
      weights.push_back(ToFloat(weight));
    }
    for (std::size_t i = 0; i < outer.size(); ++i) {
      const auto feature = static_cast<std::int64_t>(i) / shape.output_voxels() % shape.out;
      output.push_back(static_cast<double>(bias[static_cast<std::size_t>(feature)]));
    }
    for (std::size_t i = 0; i < input.size(); ++i) {
      const auto feature = static_cast<std::int64_t>(i) / shape.voxels() % shape.in;
      input_gradient.push_back(static_cast<double>(input_bias[static_cast<std::size_t>(feature)]));
    }
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
    const std::int64_t rows = shape.OutputLength(1);
    const std::int64_t columns = shape.OutputLength(2);
    for (std::int64_t sample = 0; sample < shape.samples; ++sample) {
      for (std::int64_t out = 0; out < shape.out; ++out) {
        for (std::int64_t voxel = 0; voxel < shape.output_voxels(); ++voxel) {
          const std::int64_t z = voxel / (rows * columns) * shape.stride[0] - shape.Before(0);
          const std::int64_t y = voxel / columns % rows * shape.stride[1] - shape.Before(1);
          const std::int64_t x = voxel % columns * shape.stride[2] - shape.Before(2);
          for (std::int64_t in = 0; in < shape.in; ++in) {
            for (std::int64_t tap = 0; tap < shape.taps(); ++tap) {
              const std::int64_t a = z + tap / (ky * kx);
              const std::int64_t b = y + tap / kx % ky;
              const std::int64_t c = x + tap % kx;
              if (a < 0 || a >= depth || b < 0 || b >= height || c < 0 || c >= width) continue;
              visit(static_cast<std::size_t>((sample * shape.in + in) * shape.voxels() +
                                             (a * height + b) * width + c),
                    static_cast<std::size_t>((sample * shape.out + out) * shape.output_voxels() +
                                             voxel),
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
  std::vector<float> bias;
  std::vector<float> input_bias;  ///< What the transposed convolution adds.
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
    Convolve(shape, example.input.data(), example.weights.data(), example.bias.data(),
             output.data(), parallel);
    ConvolutionWeightGradient(shape, example.input.data(), example.outer.data(),
                              weight_gradient.data(), parallel);
    ConvolutionInputGradient(shape, example.outer.data(), example.weights.data(),
                             example.input_bias.data(), input_gradient.data(), parallel);
  }

  std::vector<Number> output;
  std::vector<Number> input_gradient;
  std::vector<float> weight_gradient;
};

template <typename Number>
bool SameBits(const std::vector<Number>& one, const std::vector<Number>& other) {
  return one.size() == other.size() &&
         std::memcmp(one.data(), other.data(), one.size() * sizeof(Number)) == 0;
}

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
  using Triple = std::array<std::int64_t, 3>;
  const std::vector<Triple> kernels{{3, 3, 3}, {1, 3, 3}, {1, 1, 1}, {5, 3, 1}, {3, 1, 7}};
  // One voxel wide, narrow (two rows to a tile), odd, and wider than a tile.
  const std::vector<Triple> sizes{{3, 2, 1},  {2, 7, 5},  {4, 4, 6},
                                  {1, 5, 13}, {2, 3, 25}, {5, 2, 12}};
  // Of which some fill no vector of 16.
  const std::vector<std::array<std::int64_t, 2>> features{{16, 16}, {1, 32}, {3, 48}, {32, 16},
                                                          {48, 80}, {19, 3}, {33, 17}};
  std::size_t turn = 0;
  const auto add = [&](const Triple& size, const Triple& kernel, const Triple& stride) {
    const auto& [in, out] = features[turn++ % features.size()];
    shapes.push_back(
        {.samples = 2, .in = in, .out = out, .size = size, .kernel = kernel, .stride = stride});
  };
  for (const Triple& kernel : kernels) {
    for (const Triple& size : sizes) add(size, kernel, {1, 1, 1});
  }
  for (const Triple& stride : {Triple{2, 2, 2}, Triple{1, 2, 2}, Triple{2, 1, 3}}) {
    for (const Triple& kernel : {Triple{3, 3, 3}, Triple{1, 3, 3}, Triple{1, 1, 1}}) {
      for (const Triple& size : sizes) add(size, kernel, stride);
    }
    for (const Triple& size : {Triple{4, 6, 12}, Triple{2, 2, 42}}) {
      add(size, stride, stride);
      shapes.back().side_by_side = true;
    }
  }
  return shapes;
}

template <typename Number>
class Convolution : public testing::Test {
 protected:
  void SetUp() override {
    if (!HasDirectConvolution<Number>()) {
      GTEST_SKIP() << "this processor has no "
                   << (sizeof(Number) == 2 ? "AVX-512 with bfloat16" : "AVX-512");
    }
  }
};
using Types = testing::Types<float, Bfloat16>;
TYPED_TEST_SUITE(Convolution, Types);

TYPED_TEST(Convolution, IsTheSumOfProductsThatItsDefinitionSays) {
  // In bfloat16 the results' own rounding and that of the transforms.
  constexpr double kShare = sizeof(TypeParam) == 2 ? 0.006 : 1e-5;
  constexpr double kWeightShare = sizeof(TypeParam) == 2 ? 0.004 : 1e-5;
  for (const Convolution3d& shape : Shapes()) {
    SCOPED_TRACE(testing::PrintToString(shape.size) + testing::PrintToString(shape.kernel) +
                 testing::PrintToString(shape.stride) + std::to_string(shape.in) + " to " +
                 std::to_string(shape.out));
    const Example<TypeParam> example(shape);
    const Results<TypeParam> results(example);
    ExpectNear(results.output, example.output, kShare);
    ExpectNear(results.weight_gradient, example.weight_gradient, kWeightShare);
    ExpectNear(results.input_gradient, example.input_gradient, kShare);
  }
}

TYPED_TEST(Convolution, ReadsAndWritesFeaturesThatLieInTwoArrays) {
  for (const std::array<std::int64_t, 3>& stride :
       {std::array<std::int64_t, 3>{1, 1, 1}, {2, 2, 2}}) {
    // 21 of 48 features: no block of lanes ends there.
    const Convolution3d shape{
        .samples = 2, .in = 48, .out = 32, .size = {3, 4, 14}, .stride = stride};
    constexpr std::int64_t kFirst = 21;
    const Example<TypeParam> example(shape);
    const Results<TypeParam> together(example);
    const auto half = [&](const std::vector<TypeParam>& all, std::int64_t from, std::int64_t to) {
      std::vector<TypeParam> values;
      for (std::int64_t sample = 0; sample < shape.samples; ++sample) {
        const auto start = all.begin() + sample * shape.in * shape.voxels();
        values.insert(values.end(), start + from * shape.voxels(), start + to * shape.voxels());
      }
      return values;
    };
    const std::vector<TypeParam> first = half(example.input, 0, kFirst);
    const std::vector<TypeParam> second = half(example.input, kFirst, shape.in);
    const Features<const TypeParam> input(first.data(), kFirst, second.data());

    std::vector<TypeParam> output(example.output.size());
    Convolve(shape, input, example.weights.data(), example.bias.data(), output.data(), {});
    std::vector<float> weight_gradient(example.weights.size());
    ConvolutionWeightGradient(shape, input, example.outer.data(), weight_gradient.data(), {});
    std::vector<TypeParam> first_gradient(first.size());
    std::vector<TypeParam> second_gradient(second.size());
    ConvolutionInputGradient(
        shape, example.outer.data(), example.weights.data(), example.input_bias.data(),
        Features<TypeParam>(first_gradient.data(), kFirst, second_gradient.data()), {});

    EXPECT_TRUE(SameBits(output, together.output));
    EXPECT_TRUE(SameBits(weight_gradient, together.weight_gradient));
    EXPECT_TRUE(SameBits(first_gradient, half(together.input_gradient, 0, kFirst)));
    EXPECT_TRUE(SameBits(second_gradient, half(together.input_gradient, kFirst, shape.in)));
  }
}

TYPED_TEST(Convolution, ComputesTheSameBitsOnAnyNumberOfThreads) {
  // Several slabs, and more blocks and groups of channels than one.
  const Convolution3d same{.samples = 2, .in = 16, .out = 48, .size = {5, 4, 17}};
  Convolution3d strided = same;
  strided.stride = {2, 1, 2};
  for (const Convolution3d& shape : {same, strided}) {
    const Example<TypeParam> example(shape);
    const Results<TypeParam> one(example);
    for (const int threads : {2, 5}) {
      const Results<TypeParam> several(example, OwnThreads(threads));
      EXPECT_TRUE(SameBits(one.output, several.output));
      EXPECT_TRUE(SameBits(one.input_gradient, several.input_gradient));
      EXPECT_TRUE(SameBits(one.weight_gradient, several.weight_gradient));
    }
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
           example.bias.data(), second.data(), {});
  EXPECT_EQ(0, std::memcmp(second.data(), both.output.data() + second.size(),
                           second.size() * sizeof(TypeParam)));
}

TYPED_TEST(Convolution, ReadsAndWritesNothingBeyondItsArrays) {
  // What lies around the arrays is not a number, and would show in any sum that it got into.
  for (const std::array<std::int64_t, 3>& stride :
       {std::array<std::int64_t, 3>{1, 1, 1}, {2, 2, 2}}) {
    const Convolution3d shape{
        .samples = 1, .in = 17, .out = 16, .size = {2, 3, 5}, .stride = stride};
    const Example<TypeParam> example(shape);
    const TypeParam poison = Rounded<TypeParam>(std::nanf(""));
    const auto surrounded = [&](const std::vector<TypeParam>& values) {
      std::vector<TypeParam> wide(values.size() + 128, poison);
      for (std::size_t i = 0; i < values.size(); ++i) wide[i + 64] = values[i];
      return wide;
    };
    const std::vector<TypeParam> input = surrounded(example.input);
    const std::vector<TypeParam> outer = surrounded(example.outer);
    std::vector<TypeParam> output(outer.size(), poison);
    std::vector<TypeParam> input_gradient(input.size(), poison);
    std::vector<float> gradient(example.weights.size());
    Convolve(shape, input.data() + 64, example.weights.data(), nullptr, output.data() + 64, {});
    ConvolutionInputGradient(shape, outer.data() + 64, example.weights.data(), nullptr,
                             input_gradient.data() + 64, {});
    ConvolutionWeightGradient(shape, input.data() + 64, outer.data() + 64, gradient.data(), {});
    ExpectNear(gradient, example.weight_gradient, 1e-5);
    for (const std::vector<TypeParam>& written : {output, input_gradient}) {
      for (std::size_t i = 0; i < written.size(); ++i) {
        const bool inside = i >= 64 && i < written.size() - 64;
        ASSERT_EQ(std::isnan(ToFloat(written[i])), !inside) << i;
      }
    }
  }
}

TYPED_TEST(Convolution, SumsFeaturesInDouble) {
  constexpr std::int64_t kVoxels = 45;
  std::vector<TypeParam> values = Noise<TypeParam>(2 * 3 * kVoxels, "values");
  values[0] = Rounded<TypeParam>(16777216.0F);  // behind which a float loses what follows
  std::vector<double> expected(3);
  for (std::size_t i = 0; i < values.size(); ++i) {
    expected[i / kVoxels % 3] += static_cast<double>(ToFloat(values[i]));
  }
  std::vector<float> sums(3);
  SumFeatures(2, 3, kVoxels, values.data(), sums.data(), {});
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_FLOAT_EQ(sums[i], static_cast<float>(expected[i]));
  }
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
