#include "client/network/packed_weights.h"

#include "client/network/kernel_functions.h"
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

namespace isoscan {
namespace {

Convolution3d ShapeOf(const torch::Tensor& weight) {
  return {.in = weight.size(1),
          .out = weight.size(0),
          .kernel = {weight.size(2), weight.size(3), weight.size(4)}};
}

Convolution3d WithSizeOf(const torch::Tensor& input, Convolution3d shape) {
  shape.samples = input.size(0);
  shape.size = {input.size(2), input.size(3), input.size(4)};
  return shape;
}

template <typename Number>
PackedConvolution<Number> Pack(const Convolution3d& shape, const torch::Tensor& weight) {
  const torch::Tensor contiguous = weight.contiguous();
  return PackedConvolution<Number>(shape, static_cast<const float*>(contiguous.data_ptr()));
}

}  // namespace

bool PackedWeights::Suits(at::TensorList inputs, const torch::Tensor& weight) {
  if (!HasDirectConvolution(inputs[0]) || weight.scalar_type() != torch::kFloat32) return false;
  const Convolution3d shape = WithSizeOf(inputs[0], ShapeOf(weight));
  return inputs[0].scalar_type() == torch::kFloat32 ? PackedConvolution<float>::Suits(shape)
                                                    : PackedConvolution<Bfloat16>::Suits(shape);
}

PackedWeights::PackedWeights(const torch::Tensor& weight, torch::ScalarType type)
    : shape_(ShapeOf(weight)),
      weights_(type == torch::kBFloat16 ? decltype(weights_)(Pack<Bfloat16>(shape_, weight))
                                        : decltype(weights_)(Pack<float>(shape_, weight))) {}

torch::Tensor PackedWeights::Convolve(at::TensorList inputs) const {
  const torch::Tensor first = inputs[0].contiguous();
  const torch::Tensor second = inputs.size() > 1 ? inputs[1].contiguous() : torch::Tensor();
  const Convolution3d shape = WithSizeOf(first, shape_);
  torch::Tensor output = at::empty(
      {shape.samples, shape.out, shape.size[0], shape.size[1], shape.size[2]}, first.options());
  const auto convolve = [&]<typename Number>(const PackedConvolution<Number>& weights) {
    Features<const Number> input(static_cast<const Number*>(first.data_ptr()));
    if (second.defined()) {
      input = {input.first, first.size(1), static_cast<const Number*>(second.data_ptr())};
    }
    weights.Convolve(shape, input, static_cast<Number*>(output.data_ptr()),
                     at::in_parallel_region() ? Parallel{} : LibTorchThreads());
  };
  std::visit(convolve, weights_);
  return output;
}

}  // namespace isoscan
