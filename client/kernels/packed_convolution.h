#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

#include "client/kernels/convolution.h"

namespace isoscan {

/// Convolve() for prediction, of stride 1 and without bias: the weights are brought into the order
/// and form that it reads once, not at every call.
///
/// Method: Winograd's algorithm along rows and columns at once, a quarter of the products in
/// float32 (F(4 x 4, 3 x 3); within 2e-5 of the largest value) and 4 / 9 in bfloat16
/// (F(2 x 2, 3 x 3), whose errors are twice those of bfloat16's plain products: its sums of inputs
/// are rounded once more). Source: docs/references.md#lavin2016.
///
/// Memory:  4 times the weights, in bfloat16 16 / 9 of them.
/// Threads: convolutions may run at a time; the bits do not depend on the number of threads.
template <typename Number>
class PackedConvolution {
 public:
  /// Whether it can do this on this processor and is faster than Convolve():
  /// HasDirectConvolution(), stride 1, a kernel of 3 along y and x, 16 channels and more, rows of 8
  /// and more; in bfloat16 an even number of channels.
  static bool Suits(const Convolution3d& shape);

  /// Of `shape`, samples and size do not count. Weights as those of Convolve().
  PackedConvolution(const Convolution3d& shape, const float* weights);

  /// As Convolve(); `shape` must suit and be of the weights' in, out and kernel.
  void Convolve(const Convolution3d& shape, std::type_identity_t<Features<const Number>> input,
                Number* output, const Parallel& parallel) const;

 private:
  /// [block][products][in, in bfloat16 pairs][kernel z][lanes of the block]
  std::unique_ptr<std::uint32_t[]> weights_;
};

}  // namespace isoscan
