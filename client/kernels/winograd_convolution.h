#pragma once

#include "client/kernels/convolution.h"

// Convolutions of float32 with kernels of 3 along x by half the products: Winograd's F(4, 3) along
// that axis alone, where its rounding stays near that of the sum itself. convolution.cc calls them.
// Source: docs/references.md#lavin2016.

namespace isoscan::kernels {

/// Whether the products are few enough to pay for the transforms: rows of 5 leave a tile half
/// empty.
bool PaysByWinograd(const Convolution3d& shape);

/// Convolve().
void ConvolveByWinograd(const Convolution3d& shape, Features<const float> input,
                        const float* weights, const float* bias, float* output,
                        const Parallel& parallel);

/// ConvolutionInputGradient().
void InputGradientByWinograd(const Convolution3d& shape, const float* output_gradient,
                             const float* weights, const float* bias,
                             Features<float> input_gradient, const Parallel& parallel);

/// ConvolutionWeightGradient().
void WeightGradientByWinograd(const Convolution3d& shape, Features<const float> input,
                              const float* output_gradient, float* weight_gradient,
                              const Parallel& parallel);

}  // namespace isoscan::kernels
