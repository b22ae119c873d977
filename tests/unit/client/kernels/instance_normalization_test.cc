#include "client/kernels/instance_normalization.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "common/random/philox.h"

namespace isoscan {
namespace {

constexpr InstanceNormalization kPlan{.samples = 2, .channels = 3, .voxels = 77};

std::vector<float> Noise(std::int64_t count, const std::string& stream, double mean = 0) {
  RandomStream random(1, stream);
  std::vector<float> noise;
  for (std::int64_t i = 0; i < count; ++i) {
    noise.push_back(static_cast<float>(random.Normal() + mean));
  }
  return noise;
}

std::vector<Bfloat16> Rounded(const std::vector<float>& values) {
  std::vector<Bfloat16> rounded;
  for (const float value : values) rounded.push_back(ToBfloat16(value));
  return rounded;
}

/// The function by its definition, in double.
std::vector<double> ByDefinition(const InstanceNormalization& plan,
                                 const std::vector<double>& input, const std::vector<double>& scale,
                                 const std::vector<double>& shift) {
  std::vector<double> output;
  const auto voxels = static_cast<std::size_t>(plan.voxels);
  for (std::size_t start = 0; start < input.size(); start += voxels) {
    const std::size_t channel = start / voxels % scale.size();
    double mean = 0;
    for (std::size_t i = 0; i < voxels; ++i) mean += input[start + i];
    mean /= static_cast<double>(voxels);
    double variance = 0;
    for (std::size_t i = 0; i < voxels; ++i) variance += std::pow(input[start + i] - mean, 2);
    variance /= static_cast<double>(voxels);
    for (std::size_t i = 0; i < voxels; ++i) {
      const double value =
          (input[start + i] - mean) / std::sqrt(variance + plan.epsilon) * scale[channel] +
          shift[channel];
      output.push_back(value > 0 ? value : static_cast<double>(plan.slope) * value);
    }
  }
  return output;
}

template <typename Number>
std::vector<double> Doubles(const std::vector<Number>& values) {
  std::vector<double> doubles;
  for (const Number value : values) {
    if constexpr (std::is_same_v<Number, double>) {
      doubles.push_back(value);
    } else {
      doubles.push_back(static_cast<double>(ToFloat(value)));
    }
  }
  return doubles;
}

struct Example {
  std::vector<float> input = Noise(2 * 3 * 77, "input", 0.5);
  std::vector<float> outer = Noise(2 * 3 * 77, "outer");
  std::vector<float> scale{1.5F, -0.5F, 0.0F};
  std::vector<float> shift{0.1F, 0.2F, -0.3F};
};

TEST(InstanceNormalization, IsItsDefinition) {
  const Example example;
  std::vector<float> output(example.input.size());
  NormalizeAndActivate<float>(kPlan, example.input.data(), example.scale.data(),
                              example.shift.data(), output.data(), nullptr, {});
  const std::vector<double> expected =
      ByDefinition(kPlan, Doubles(example.input), Doubles(example.scale), Doubles(example.shift));
  for (std::size_t i = 0; i < output.size(); ++i) {
    EXPECT_NEAR(static_cast<double>(output[i]), expected[i], 2e-6) << i;
  }

  const std::vector<Bfloat16> half = Rounded(example.input);
  std::vector<Bfloat16> half_output(half.size());
  NormalizeAndActivate<Bfloat16>(kPlan, half.data(), example.scale.data(), example.shift.data(),
                                 half_output.data(), nullptr, {});
  const std::vector<double> half_expected =
      ByDefinition(kPlan, Doubles(half), Doubles(example.scale), Doubles(example.shift));
  for (std::size_t i = 0; i < half.size(); ++i) {
    EXPECT_NEAR(static_cast<double>(ToFloat(half_output[i])), half_expected[i], 0.02) << i;
  }
}

TEST(InstanceNormalization, LosesNothingOfADeviationThatIsSmallBesideTheMean) {
  constexpr InstanceNormalization kOne{.samples = 1, .channels = 1, .voxels = 4096};
  const std::vector<float> input = Noise(kOne.voxels, "far", 30000);
  const std::vector<float> scale{1};
  const std::vector<float> shift{0};
  std::vector<float> output(input.size());
  NormalizeAndActivate<float>(kOne, input.data(), scale.data(), shift.data(), output.data(),
                              nullptr, {});
  const std::vector<double> expected =
      ByDefinition(kOne, Doubles(input), Doubles(scale), Doubles(shift));
  for (std::size_t i = 0; i < output.size(); ++i) {
    EXPECT_NEAR(static_cast<double>(output[i]), expected[i], 2e-6) << i;
  }
}

TEST(InstanceNormalization, HasTheGradientsOfItsDefinition) {
  const Example example;
  std::vector<ChannelStatistics> statistics(6);
  std::vector<float> output(example.input.size());
  NormalizeAndActivate<float>(kPlan, example.input.data(), example.scale.data(),
                              example.shift.data(), output.data(), statistics.data(), {});
  std::vector<float> input_gradient(example.input.size());
  std::vector<float> scale_gradient(3);
  std::vector<float> shift_gradient(3);
  NormalizeAndActivateGradient<float>(kPlan, example.input.data(), statistics.data(),
                                      example.scale.data(), example.shift.data(),
                                      example.outer.data(), input_gradient.data(),
                                      scale_gradient.data(), shift_gradient.data(), {});

  // Central differences of sum(outer * output), in double.
  std::vector<double> input = Doubles(example.input);
  std::vector<double> scale = Doubles(example.scale);
  std::vector<double> shift = Doubles(example.shift);
  const auto slope_at = [&](double& value) {
    constexpr double kStep = 1e-6;
    const double before = value;
    const auto sum_with = [&](double changed) {
      value = changed;
      double sum = 0;
      const std::vector<double> result = ByDefinition(kPlan, input, scale, shift);
      for (std::size_t i = 0; i < result.size(); ++i) {
        sum += result[i] * static_cast<double>(example.outer[i]);
      }
      return sum;
    };
    const double slope = (sum_with(before + kStep) - sum_with(before - kStep)) / (2 * kStep);
    value = before;
    return slope;
  };
  for (std::size_t i = 0; i < input.size(); i += 7) {
    EXPECT_NEAR(static_cast<double>(input_gradient[i]), slope_at(input[i]), 1e-5) << i;
  }
  for (std::size_t channel = 0; channel < 3; ++channel) {
    EXPECT_NEAR(static_cast<double>(scale_gradient[channel]), slope_at(scale[channel]), 1e-4);
    EXPECT_NEAR(static_cast<double>(shift_gradient[channel]), slope_at(shift[channel]), 1e-4);
  }
}

TEST(InstanceNormalization, GivesAConstantChannelItsShift) {
  constexpr InstanceNormalization kOne{.samples = 1, .channels = 1, .voxels = 9};
  const std::vector<float> input(9, 1234.5F);
  const std::vector<float> scale{2};
  const std::vector<float> shift{0.25F};
  std::vector<float> output(9);
  NormalizeAndActivate<float>(kOne, input.data(), scale.data(), shift.data(), output.data(),
                              nullptr, {});
  EXPECT_EQ(output, std::vector<float>(9, 0.25F));
}

}  // namespace
}  // namespace isoscan
