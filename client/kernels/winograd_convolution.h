#pragma once

#include "client/kernels/convolution.h"

// Convolutions with kernels of 3 along x by half the products, or two thirds of them in bfloat16:
// Winograd's F(4, 3) and F(2, 3) along that axis alone, where their rounding stays near that of the
// sum itself. convolution.cc calls them. Source: docs/references.md#lavin2016.

namespace isoscan::kernels {

/// Whether the products are few enough to pay for the transforms: rows of 5 leave a tile half
/// empty, and of one channel in bfloat16 the output costs more than the products.
template <typename Number>
bool PaysByWinograd(const Convolution3d& shape);

/// Convolve().
template <typename Number>
void ConvolveByWinograd(const Convolution3d& shape, Features<const Number> input,
                        const float* weights, const float* bias, Features<Number> output,
                        const Parallel& parallel);

/// ConvolutionInputGradient().
template <typename Number>
void InputGradientByWinograd(const Convolution3d& shape, const Number* output_gradient,
                             const float* weights, const float* bias,
                             Features<Number> input_gradient, const Parallel& parallel);

/// ConvolutionWeightGradient().
template <typename Number>
void WeightGradientByWinograd(const Convolution3d& shape, Features<const Number> input,
                              const Number* output_gradient, float* weight_gradient,
                              const Parallel& parallel);

}  // namespace isoscan::kernels
