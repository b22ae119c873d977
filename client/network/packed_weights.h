#pragma once

#include <torch/types.h>

#include <variant>

#include "client/kernels/packed_convolution.h"

namespace isoscan {

/// PackedConvolution as LibTorch sees it: a convolution's weights for prediction alone, without
/// gradients, in the type that is computed in.
class PackedWeights {
 public:
  /// Whether it can do a convolution of stride 1 with "same" padding and without bias of these
  /// inputs, one, or two whose features follow each other: on the CPU, and what
  /// PackedConvolution::Suits() says.
  static bool Suits(at::TensorList inputs, const torch::Tensor& weight);

  /// `weight`: [out, in, kz, ky, kx] in float32; `type`: that of the inputs, float32 or bfloat16.
  PackedWeights(const torch::Tensor& weight, torch::ScalarType type);

  /// Shapes: inputs [N, in of each, D, H, W]; result [N, out, D, H, W].
  torch::Tensor Convolve(at::TensorList inputs) const;

 private:
  Convolution3d shape_;  ///< Without samples and size.
  std::variant<PackedConvolution<float>, PackedConvolution<Bfloat16>> weights_;
};

}  // namespace isoscan
