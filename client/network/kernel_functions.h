#pragma once

#include <torch/types.h>

#include "client/kernels/parallel.h"

namespace isoscan {

// client/kernels as LibTorch sees it: functions of tensors that autograd can differentiate, on the
// threads that LibTorch has.

/// LibTorch's pool. Its threads take one item after the other, since items differ in size.
Parallel LibTorchThreads();

/// Whether DirectConvolution() can do it, with its gradients: on the CPU, in float32 or bfloat16,
/// features in sixteens, AVX-512.
bool HasDirectConvolution(const torch::Tensor& input, const torch::Tensor& weight);

/// Convolution of stride 1 with "same" padding and without bias. The weights stay float32; what is
/// computed of bfloat16 is bfloat16.
///
/// Shapes: input [N, in, D, H, W]; weight [out, in, kz, ky, kx]; result [N, out, D, H, W].
torch::Tensor DirectConvolution(const torch::Tensor& input, const torch::Tensor& weight);

/// Instance normalisation with scale and shift and the leaky ReLU behind it, on the CPU; slope 1 is
/// the normalisation alone. Statistics in double, scale and shift in float32.
///
/// Shapes: input [N, C, D, H, W], float32 or bfloat16; scale, shift [C].
torch::Tensor NormalizeAndActivate(const torch::Tensor& input, const torch::Tensor& scale,
                                   const torch::Tensor& shift, double epsilon, double slope);

}  // namespace isoscan
