#include "client/kernels/instance_normalization.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "client/kernels/instance_normalization_lanes.h"
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

/// A GPU's block of threads as a loop: the same lanes, merged in the same order.
struct LoopBlock {
  template <typename Value, typename Make>
  Value Reduce(Make make) const {
    std::vector<Value> values;
    for (int lane = 0; lane < kLanesOfBlock; ++lane) values.push_back(make(lane, kLanesOfBlock));
    for (int half = kLanesOfBlock / 2; half > 0; half /= 2) {
      for (int lane = 0; lane < half; ++lane) {
        const auto place = static_cast<std::size_t>(lane);
        values[place] = Merged(values[place], values[place + static_cast<std::size_t>(half)]);
      }
    }
    return values[0];
  }
  template <typename Work>
  void ForEach(std::int64_t count, Work work) const {
    for (std::int64_t i = 0; i < count; ++i) work(i);
  }
  bool leads() const { return true; }
};

template <typename Number>
struct OnOneChannel {
  std::vector<Number> output;
  std::vector<Number> gradient;
  LaneGradientSums sums;
};

/// What instance_normalization.cu does with one channel of one sample.
template <typename Number>
OnOneChannel<Number> WithLanes(const std::vector<Number>& input, const std::vector<Number>& outer,
                               float scale, float shift, float slope) {
  const auto voxels = static_cast<std::int64_t>(input.size());
  const std::int64_t pieces = PiecesOf(voxels);
  const LoopBlock block;
  LaneMap map{.mean = 0, .inverse_deviation = 0, .scale = scale, .shift = shift, .slope = slope};
  const auto for_pieces = [&](const auto& work) {
    for (std::int64_t piece = 0; piece < pieces; ++piece) {
      const std::int64_t first = piece * kLanePiece;
      work(piece, first, std::min(kLanePiece, voxels - first));
    }
  };
  OnOneChannel<Number> result{.output = std::vector<Number>(input.size()),
                              .gradient = std::vector<Number>(input.size()),
                              .sums = {}};
  std::vector<LaneMoments> moments(static_cast<std::size_t>(pieces));
  LaneStatistics statistics{};
  for_pieces([&](std::int64_t piece, std::int64_t first, std::int64_t count) {
    SumPiece(block, input.data() + first, count, moments.data() + piece);
  });
  for_pieces([&](std::int64_t, std::int64_t first, std::int64_t count) {
    NormalizePiece(block, moments.data(), pieces, 1e-5F, map, input.data() + first, count,
                   result.output.data() + first, &statistics);
  });
  map.mean = statistics.mean;
  map.inverse_deviation = statistics.inverse_deviation;
  std::vector<LaneGradientSums> sums(static_cast<std::size_t>(pieces));
  for_pieces([&](std::int64_t piece, std::int64_t first, std::int64_t count) {
    SumGradientPiece(block, map, input.data() + first, outer.data() + first, count,
                     sums.data() + piece);
  });
  for_pieces([&](std::int64_t, std::int64_t first, std::int64_t count) {
    GradientPiece(block, sums.data(), pieces, voxels, map, input.data() + first,
                  outer.data() + first, count, result.gradient.data() + first, &result.sums);
  });
  return result;
}

/// Against the CPU's kernel, whose statistics are double.
template <typename Number>
void ExpectTheSameWithLanes(const std::vector<Number>& input, const std::vector<Number>& outer,
                            double tolerance) {
  const InstanceNormalization plan{
      .samples = 1, .channels = 1, .voxels = static_cast<std::int64_t>(input.size())};
  constexpr float kScale = -1.5F;
  constexpr float kShift = 0.25F;
  std::vector<Number> output(input.size());
  std::vector<Number> gradient(input.size());
  ChannelStatistics statistics;
  float scale_gradient = 0;
  float shift_gradient = 0;
  NormalizeAndActivate<Number>(plan, input.data(), &kScale, &kShift, output.data(), &statistics,
                               {});
  NormalizeAndActivateGradient<Number>(plan, input.data(), &statistics, &kScale, &kShift,
                                       outer.data(), gradient.data(), &scale_gradient,
                                       &shift_gradient, {});

  const OnOneChannel<Number> lanes = WithLanes(input, outer, kScale, kShift, plan.slope);

  const double root = std::sqrt(static_cast<double>(input.size()));
  EXPECT_NEAR(lanes.sums.inner, shift_gradient, tolerance * root);
  EXPECT_NEAR(lanes.sums.product, scale_gradient, tolerance * root);
  for (std::size_t i = 0; i < input.size(); ++i) {
    ASSERT_NEAR(ToFloat(lanes.output[i]), ToFloat(output[i]), tolerance) << i;
    ASSERT_NEAR(ToFloat(lanes.gradient[i]), ToFloat(gradient[i]), tolerance) << i;
  }
}

TEST(InstanceNormalization, IsTheSameInTheLanesOfAGpu) {
  // One voxel, fewer than lanes, one piece exactly, one and a bit, several.
  for (const std::int64_t voxels :
       {std::int64_t{1}, std::int64_t{100}, kLanePiece, kLanePiece + 1, 5 * kLanePiece / 2}) {
    SCOPED_TRACE(voxels);
    const std::vector<float> input = Noise(voxels, "lanes", 3);
    const std::vector<float> outer = Noise(voxels, "outer lanes");
    ExpectTheSameWithLanes(input, outer, 1e-5);
    ExpectTheSameWithLanes(Rounded(input), Rounded(outer), 0.04);
  }
}

TEST(InstanceNormalization, KeepsADeviationThatIsSmallBesideTheMeanInTheLanesOfAGpu) {
  const std::vector<float> input = Noise(3 * kLanePiece, "far lanes", 3000);
  ExpectTheSameWithLanes(input, Noise(3 * kLanePiece, "outer lanes"), 2e-3);
}

}  // namespace
}  // namespace isoscan
