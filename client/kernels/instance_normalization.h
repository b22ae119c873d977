#pragma once

#include <cstdint>

#include "client/kernels/bfloat16.h"
#include "client/kernels/parallel.h"

namespace isoscan {

/// Instance normalisation with scale and shift, and the leaky ReLU behind it, as one:
///
///   y = activate(scale_c (x - mean_nc) / sqrt(variance_nc + epsilon) + shift_c)
///   activate(t) = t > 0 ? t : slope t
///
/// Mean and variance are over the voxels of channel c of sample n, summed in double. Each channel
/// of a sample is read from memory once, to be normalised out of the cache, and written once. The
/// bits do not depend on the number of threads or the width of the processor's vectors.
/// Source: docs/references.md#ulyanov2016.
struct InstanceNormalization {
  std::int64_t samples = 1;
  std::int64_t channels = 1;
  std::int64_t voxels = 1;
  double epsilon = 1e-5;
  float slope = 0.01F;
};

/// What the backward pass needs of a channel of a sample.
struct ChannelStatistics {
  double mean = 0;
  double inverse_deviation = 0;  ///< 1 / sqrt(variance + epsilon).
};

/// Shapes: input and output [samples, channels, voxels]; scale and shift [channels]; statistics
/// [samples, channels], which may be null.
template <typename Number>
void NormalizeAndActivate(const InstanceNormalization& plan, const Number* input,
                          const float* scale, const float* shift, Number* output,
                          ChannelStatistics* statistics, const Parallel& parallel);

/// Gradients with respect to input, scale and shift; overwrites all three.
template <typename Number>
void NormalizeAndActivateGradient(const InstanceNormalization& plan, const Number* input,
                                  const ChannelStatistics* statistics, const float* scale,
                                  const float* shift, const Number* output_gradient,
                                  Number* input_gradient, float* scale_gradient,
                                  float* shift_gradient, const Parallel& parallel);

}  // namespace isoscan
