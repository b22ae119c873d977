#pragma once

#include <string>

#include "client/kernels/instance_normalization.h"
#include "client/kernels/instance_normalization_lanes.h"

namespace isoscan {

// instance_normalization.h on a GPU, with statistics in float32; of builds with ISOSCAN_CUDA alone.
// All pointers are to the GPU's memory, `stream` is a cudaStream_t; the work is queued there. Empty
// when it was, otherwise CUDA's words for what went wrong.

/// Shapes: as NormalizeAndActivate(); statistics [samples, channels]; scratch [samples, channels,
///         PiecesOf(voxels)].
template <typename Number>
std::string NormalizeAndActivateOnGpu(const InstanceNormalization& plan, const Number* input,
                                      const float* scale, const float* shift, Number* output,
                                      LaneStatistics* statistics, LaneMoments* scratch,
                                      void* stream);

/// Writes the input's gradient, and of each sample those of shift and scale.
///
/// Shapes: as NormalizeAndActivateGradient(); channel_sums [samples, channels]; scratch [samples,
///         channels, PiecesOf(voxels)].
template <typename Number>
std::string NormalizeAndActivateGradientOnGpu(const InstanceNormalization& plan,
                                              const Number* input, const LaneStatistics* statistics,
                                              const float* scale, const float* shift,
                                              const Number* output_gradient, Number* input_gradient,
                                              LaneGradientSums* channel_sums,
                                              LaneGradientSums* scratch, void* stream);

}  // namespace isoscan
