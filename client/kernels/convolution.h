#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "client/kernels/bfloat16.h"
#include "client/kernels/parallel.h"

namespace isoscan {

/// A convolution in three dimensions. Output voxel v sees the input's voxels from
/// v * stride - (kernel - 1) / 2 on, zeros where there are none, and there are ceil(size / stride)
/// of them along an axis: "same" padding. Or its kernels lie side by side: then they are as large
/// as the stride, and begin at v * stride.
///
/// Axes: z, y, x. Tensors are contiguous: input [samples, in, z, y, x], output [samples, out, z, y,
/// x], weights [out, in, kernel z, y, x]. Products are summed in float32, whatever is stored.
struct Convolution3d {
  std::int64_t samples = 1;
  std::int64_t in = 1;
  std::int64_t out = 1;
  std::array<std::int64_t, 3> size{};  ///< The input's.
  std::array<std::int64_t, 3> kernel{3, 3, 3};
  std::array<std::int64_t, 3> stride{1, 1, 1};
  bool side_by_side = false;

  /// How many voxels before v * stride output voxel v sees.
  std::int64_t Before(std::size_t axis) const { return side_by_side ? 0 : (kernel[axis] - 1) / 2; }
  std::int64_t OutputLength(std::size_t axis) const {
    return (size[axis] + stride[axis] - 1) / stride[axis];
  }
  std::int64_t voxels() const { return size[0] * size[1] * size[2]; }
  std::int64_t output_voxels() const { return OutputLength(0) * OutputLength(1) * OutputLength(2); }
  std::int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
};

/// The features of a tensor [samples, features, voxels] that lies in one array, or in two: its
/// first features in one, the others in another. A decoder's stage reads the way up and the
/// encoder's features so, without a copy that holds both.
template <typename Number>
struct Features {
  // NOLINTNEXTLINE(google-explicit-constructor): one array is the usual case.
  Features(Number* all) : first(all) {}
  Features(Number* first_array, std::int64_t count_in_first, Number* second_array)
      : first(first_array), in_first(count_in_first), second(second_array) {}

  /// The voxels of one feature, of `count` features in all.
  Number* At(std::int64_t sample, std::int64_t feature, std::int64_t count,
             std::int64_t voxels) const {
    if (second == nullptr) return first + (sample * count + feature) * voxels;
    if (feature < in_first) return first + (sample * in_first + feature) * voxels;
    return second + (sample * (count - in_first) + feature - in_first) * voxels;
  }

  Number* first;
  std::int64_t in_first = std::numeric_limits<std::int64_t>::max();
  Number* second = nullptr;
};

/// Whether this processor can do the functions below: AVX-512, with bfloat16 where `Number` is
/// that.
///
/// They compute at 90 to 95 % of the processor's peak, in float32 with half the products
/// (docs/performance.md). Their bits do not depend on the number of threads.
template <typename Number>
bool HasDirectConvolution();

/// output = input * weights + bias [out]; null: without.
///
/// Method: a tile of up to 12 voxels x 32 features stays in registers while all products are added
/// to it; inputs are broadcast, weights are vectors over output features. Taps that see nothing but
/// the zeros around the volume are left out. Source: docs/references.md#georganas2018.
/// In float32, kernels of 3 along x of stride 1 need half the products by Winograd's F(4, 3) along
/// that axis alone, which the gradients share: rounding errors stay within 1e-5 of the largest
/// value (the plain sum: 4e-6). Source: docs/references.md#lavin2016.
template <typename Number>
void Convolve(const Convolution3d& shape, std::type_identity_t<Features<const Number>> input,
              const float* weights, const float* bias, Number* output, const Parallel& parallel);

/// The gradient with respect to the input: each of the stride's phases is a convolution of the
/// output's gradient with the weights that meet it, turned round.
///
/// With `bias` [in] added it is also the transposed convolution of the same weights.
template <typename Number>
void ConvolutionInputGradient(const Convolution3d& shape, const Number* output_gradient,
                              const float* weights, const float* bias,
                              std::type_identity_t<Features<Number>> input_gradient,
                              const Parallel& parallel);

/// The gradient with respect to the weights, in float32; overwrites `weight_gradient`. Every weight
/// is summed by one thread, sample by sample.
template <typename Number>
void ConvolutionWeightGradient(const Convolution3d& shape,
                               std::type_identity_t<Features<const Number>> input,
                               const Number* output_gradient, float* weight_gradient,
                               const Parallel& parallel);

/// sums[feature] over samples and voxels, in double: a bias's gradient.
template <typename Number>
void SumFeatures(std::int64_t samples, std::int64_t features, std::int64_t voxels,
                 const Number* values, float* sums, const Parallel& parallel);

}  // namespace isoscan
