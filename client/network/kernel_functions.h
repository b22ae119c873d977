#pragma once

#include <torch/types.h>

#include <array>
#include <cstdint>

#include "client/kernels/parallel.h"

namespace isoscan {

// client/kernels as LibTorch sees it: functions of tensors that autograd can differentiate, on the
// threads that LibTorch has.

/// LibTorch's pool. Its threads take one item after the other, since items differ in size.
Parallel LibTorchThreads();

/// Whether the two convolutions below can compute with `input`: on the CPU, in float32 or bfloat16,
/// AVX-512.
bool HasDirectConvolution(const torch::Tensor& input);

/// Convolution with "same" padding. The weights stay float32; what is computed of bfloat16 is
/// bfloat16.
///
/// Shapes: inputs, one or two, [N, in of each, D, H, W]: as if they were one, concatenated along
///         features; weight [out, in, kz, ky, kx], odd kernels; bias [out] or undefined; result
///         [N, out, ceil(D / stride), ...].
torch::Tensor DirectConvolution(at::TensorList inputs, const torch::Tensor& weight,
                                const torch::Tensor& bias,
                                const std::array<std::int64_t, 3>& stride);

/// Transposed convolution whose kernel is its stride.
///
/// Shapes: input [N, in, D, H, W]; weight [in, out, sz, sy, sx]; bias [out]; result [N, out, D sz,
///         H sy, W sx].
torch::Tensor DirectUpConvolution(const torch::Tensor& input, const torch::Tensor& weight,
                                  const torch::Tensor& bias);

/// Instance normalisation with scale and shift and the leaky ReLU behind it, in one; slope 1 is the
/// normalisation alone. Statistics in double, on a GPU (of builds with ISOSCAN_CUDA) in float32;
/// scale and shift in float32.
///
/// Shapes: input [N, C, D, H, W], float32 or bfloat16; scale, shift [C].
torch::Tensor NormalizeAndActivate(const torch::Tensor& input, const torch::Tensor& scale,
                                   const torch::Tensor& shift, double epsilon, double slope);

}  // namespace isoscan
