#pragma once

#include <array>
#include <cstdint>

#include "client/kernels/bfloat16.h"
#include "client/kernels/parallel.h"

namespace isoscan {

/// A convolution in three dimensions of stride 1, whose output is as large as its input: zeros
/// surround it ("same" padding).
///
/// Axes: z, y, x. Tensors are contiguous: input [samples, in, z, y, x], output [samples, out, z, y,
/// x], weights [out, in, kernel z, y, x]. Products are summed in float32, whatever is stored.
struct Convolution3d {
  std::int64_t samples = 1;
  std::int64_t in = 1;
  std::int64_t out = 1;
  std::array<std::int64_t, 3> size{};
  std::array<std::int64_t, 3> kernel{3, 3, 3};

  std::int64_t voxels() const { return size[0] * size[1] * size[2]; }
  std::int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
};

/// Whether the three functions below can do this convolution on this processor: AVX-512 (with
/// bfloat16 where `Number` is that), odd kernels, a kernel of 1 or 3 along x, features in sixteens.
/// `in` may be any number for the output and the weights' gradient.
///
/// They compute at 90 to 95 % of the processor's peak, in float32 with half the products
/// (docs/performance.md).
template <typename Number>
bool HasDirectConvolution(const Convolution3d& shape);

/// output = input * weights, without bias. The bits do not depend on the number of threads.
///
/// Method: a tile of up to 12 voxels x 32 features stays in registers while all products are added
/// to it; inputs are broadcast, weights are vectors over output features. Taps that see nothing but
/// the zeros around the volume are left out. Source: docs/references.md#georganas2018.
/// In float32, kernels of 3 along x need half the products by Winograd's F(4, 3) along that axis
/// alone, which the gradients share: rounding errors stay within 1e-5 of the largest value (the
/// plain sum: 4e-6). Source: docs/references.md#lavin2016.
template <typename Number>
void Convolve(const Convolution3d& shape, const Number* input, const float* weights, Number* output,
              const Parallel& parallel);

/// The gradient with respect to the input, `in` features in sixteens: the convolution of the
/// output's gradient with the weights turned round.
template <typename Number>
void ConvolutionInputGradient(const Convolution3d& shape, const Number* output_gradient,
                              const float* weights, Number* input_gradient,
                              const Parallel& parallel);

/// The gradient with respect to the weights, in float32; overwrites `weight_gradient`. The bits do
/// not depend on the number of threads: every weight is summed by one thread, sample by sample.
template <typename Number>
void ConvolutionWeightGradient(const Convolution3d& shape, const Number* input,
                               const Number* output_gradient, float* weight_gradient,
                               const Parallel& parallel);

}  // namespace isoscan
