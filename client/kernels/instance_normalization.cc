#include "client/kernels/instance_normalization.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "client/kernels/vector_clones.h"

namespace isoscan {
namespace {

/// Sums run over so many lanes, whatever the processor has.
constexpr std::int64_t kLanes = 16;

template <typename Number>
Number To(float value) {
  if constexpr (std::is_same_v<Number, Bfloat16>) {
    return ToBfloat16(value);
  } else {
    return value;
  }
}

struct Sums {
  double first = 0;
  double second = 0;
};

Sums Total(const double* first, const double* second) {
  Sums sums;
  for (std::int64_t lane = 0; lane < kLanes; ++lane) {
    sums.first += first[lane];
    sums.second += second[lane];
  }
  return sums;
}

/// Sums of x - about and of its square. In double, `about` may be any of the values.
template <typename Number>
[[gnu::always_inline]] inline Sums MomentsOf(const Number* values, std::int64_t count,
                                             float about) {
  double first[kLanes] = {};
  double second[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const double value =
          static_cast<double>(ToFloat(values[i + lane])) - static_cast<double>(about);
      first[lane] += value;
      second[lane] += value * value;
    }
  }
  for (; i < count; ++i) {
    const double value = static_cast<double>(ToFloat(values[i])) - static_cast<double>(about);
    first[i % kLanes] += value;
    second[i % kLanes] += value * value;
  }
  return Total(first, second);
}

/// The map of one channel of one sample. The mean is two floats: one would leave as much of a mean
/// that is large beside the deviation as it has digits.
struct ChannelMap {
  ChannelMap(const ChannelStatistics& statistics, float scale_of_channel, float shift_of_channel)
      : mean(static_cast<float>(statistics.mean)),
        mean_rest(static_cast<float>(statistics.mean - static_cast<double>(mean))),
        inverse(static_cast<float>(statistics.inverse_deviation)),
        scale(scale_of_channel),
        shift(shift_of_channel) {}

  float Normalized(float value) const { return ((value - mean) - mean_rest) * inverse; }

  float mean;
  float mean_rest;
  float inverse;
  float scale;
  float shift;
};

template <typename Number>
[[gnu::always_inline]] inline void MapChannel(ChannelMap map, float slope, const Number* input,
                                              std::int64_t count, Number* output) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float value = map.Normalized(ToFloat(input[i])) * map.scale + map.shift;
    output[i] = To<Number>(value > 0 ? value : slope * value);
  }
}

// The maps are taken by value: what is stored could otherwise change them, and no loop be
// vectorised.

/// The gradient in front of the activation.
[[gnu::always_inline]] inline float Inner(const ChannelMap& map, float slope, float normalized,
                                          float outer) {
  return normalized * map.scale + map.shift > 0 ? outer : slope * outer;
}

/// Sums of the inner gradient and of its product with the normalised value.
template <typename Number>
[[gnu::always_inline]] inline Sums GradientSums(ChannelMap map, float slope, const Number* input,
                                                const Number* outer, std::int64_t count) {
  double first[kLanes] = {};
  double second[kLanes] = {};
  const auto add = [&](std::int64_t i, std::int64_t lane) {
    const float normalized = map.Normalized(ToFloat(input[i]));
    const float inner = Inner(map, slope, normalized, ToFloat(outer[i]));
    first[lane] += static_cast<double>(inner);
    second[lane] += static_cast<double>(inner * normalized);
  };
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
  }
  for (; i < count; ++i) add(i, i % kLanes);
  return Total(first, second);
}

template <typename Number>
[[gnu::always_inline]] inline void MapGradient(ChannelMap map, float slope, const Sums& means,
                                               const Number* input, const Number* outer,
                                               std::int64_t count, Number* gradient) {
  const float factor = map.scale * map.inverse;
  const auto mean = static_cast<float>(means.first);
  const auto product = static_cast<float>(means.second);
  for (std::int64_t i = 0; i < count; ++i) {
    const float normalized = map.Normalized(ToFloat(input[i]));
    const float inner = Inner(map, slope, normalized, ToFloat(outer[i]));
    gradient[i] = To<Number>(factor * (inner - mean - normalized * product));
  }
}

// target_clones takes no templates: one function per type.
ISOSCAN_VECTOR_CLONES Sums Moments(const float* values, std::int64_t count, float about) {
  return MomentsOf(values, count, about);
}
ISOSCAN_VECTOR_CLONES Sums Moments(const Bfloat16* values, std::int64_t count, float about) {
  return MomentsOf(values, count, about);
}
ISOSCAN_VECTOR_CLONES void Map(const ChannelMap& map, float slope, const float* input,
                               std::int64_t count, float* output) {
  MapChannel(map, slope, input, count, output);
}
ISOSCAN_VECTOR_CLONES void Map(const ChannelMap& map, float slope, const Bfloat16* input,
                               std::int64_t count, Bfloat16* output) {
  MapChannel(map, slope, input, count, output);
}
ISOSCAN_VECTOR_CLONES Sums SumGradient(const ChannelMap& map, float slope, const float* input,
                                       const float* outer, std::int64_t count) {
  return GradientSums(map, slope, input, outer, count);
}
ISOSCAN_VECTOR_CLONES Sums SumGradient(const ChannelMap& map, float slope, const Bfloat16* input,
                                       const Bfloat16* outer, std::int64_t count) {
  return GradientSums(map, slope, input, outer, count);
}
ISOSCAN_VECTOR_CLONES void Gradient(const ChannelMap& map, float slope, const Sums& means,
                                    const float* input, const float* outer, std::int64_t count,
                                    float* gradient) {
  MapGradient(map, slope, means, input, outer, count, gradient);
}
ISOSCAN_VECTOR_CLONES void Gradient(const ChannelMap& map, float slope, const Sums& means,
                                    const Bfloat16* input, const Bfloat16* outer,
                                    std::int64_t count, Bfloat16* gradient) {
  MapGradient(map, slope, means, input, outer, count, gradient);
}

}  // namespace

template <typename Number>
void NormalizeAndActivate(const InstanceNormalization& plan, const Number* input,
                          const float* scale, const float* shift, Number* output,
                          ChannelStatistics* statistics, const Parallel& parallel) {
  parallel.run(plan.samples * plan.channels, [&](std::int64_t item) {
    const std::int64_t channel = item % plan.channels;
    const Number* const from = input + item * plan.voxels;
    const float about = ToFloat(from[0]);
    const Sums sums = Moments(from, plan.voxels, about);
    const auto count = static_cast<double>(plan.voxels);
    const double mean = sums.first / count;
    const double variance = std::max(0.0, sums.second / count - mean * mean);
    const ChannelStatistics found{.mean = static_cast<double>(about) + mean,
                                  .inverse_deviation = 1 / std::sqrt(variance + plan.epsilon)};
    if (statistics != nullptr) statistics[item] = found;
    Map(ChannelMap(found, scale[channel], shift[channel]), plan.slope, from, plan.voxels,
        output + item * plan.voxels);
  });
}

template <typename Number>
void NormalizeAndActivateGradient(const InstanceNormalization& plan, const Number* input,
                                  const ChannelStatistics* statistics, const float* scale,
                                  const float* shift, const Number* output_gradient,
                                  Number* input_gradient, float* scale_gradient,
                                  float* shift_gradient, const Parallel& parallel) {
  parallel.run(plan.channels, [&](std::int64_t channel) {
    Sums total;
    for (std::int64_t sample = 0; sample < plan.samples; ++sample) {
      const std::int64_t item = sample * plan.channels + channel;
      const std::int64_t start = item * plan.voxels;
      const ChannelMap map(statistics[item], scale[channel], shift[channel]);
      Sums sums = SumGradient(map, plan.slope, input + start, output_gradient + start, plan.voxels);
      total.first += sums.first;
      total.second += sums.second;
      sums.first /= static_cast<double>(plan.voxels);
      sums.second /= static_cast<double>(plan.voxels);
      Gradient(map, plan.slope, sums, input + start, output_gradient + start, plan.voxels,
               input_gradient + start);
    }
    shift_gradient[channel] = static_cast<float>(total.first);
    scale_gradient[channel] = static_cast<float>(total.second);
  });
}

template void NormalizeAndActivate(const InstanceNormalization&, const float*, const float*,
                                   const float*, float*, ChannelStatistics*, const Parallel&);
template void NormalizeAndActivate(const InstanceNormalization&, const Bfloat16*, const float*,
                                   const float*, Bfloat16*, ChannelStatistics*, const Parallel&);
template void NormalizeAndActivateGradient(const InstanceNormalization&, const float*,
                                           const ChannelStatistics*, const float*, const float*,
                                           const float*, float*, float*, float*, const Parallel&);
template void NormalizeAndActivateGradient(const InstanceNormalization&, const Bfloat16*,
                                           const ChannelStatistics*, const float*, const float*,
                                           const Bfloat16*, Bfloat16*, float*, float*,
                                           const Parallel&);

}  // namespace isoscan
