#include "client/network/kernel_functions.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <type_traits>

#include "client/kernels/convolution.h"
#include "client/kernels/instance_normalization.h"
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

namespace isoscan {
namespace {

template <typename Number>
auto* Numbers(const torch::Tensor& tensor) {
  return static_cast<Number*>(tensor.data_ptr());
}

/// Calls work(Number{}) with the type of `tensor`.
template <typename Work>
auto WithNumberOf(const torch::Tensor& tensor, Work work) {
  return tensor.scalar_type() == torch::kBFloat16 ? work(Bfloat16{}) : work(float{});
}

Convolution3d ShapeOf(const torch::Tensor& input, const torch::Tensor& weight) {
  return {.samples = input.size(0),
          .in = input.size(1),
          .out = weight.size(0),
          .size = {input.size(2), input.size(3), input.size(4)},
          .kernel = {weight.size(2), weight.size(3), weight.size(4)}};
}

torch::Tensor Convolved(const torch::Tensor& input, const torch::Tensor& weight) {
  const Convolution3d shape = ShapeOf(input, weight);
  torch::Tensor output = at::empty(
      {shape.samples, shape.out, shape.size[0], shape.size[1], shape.size[2]}, input.options());
  WithNumberOf(input, [&](auto number) {
    using Number = decltype(number);
    Convolve(shape, Numbers<Number>(input), Numbers<float>(weight), Numbers<Number>(output),
             LibTorchThreads());
  });
  return output;
}

class ConvolutionFunction : public torch::autograd::Function<ConvolutionFunction> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* context,
                               const torch::Tensor& input, const torch::Tensor& weight) {
    context->save_for_backward({input, weight});
    return Convolved(input, weight);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& outer) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const torch::Tensor& input = saved[0];
    const torch::Tensor& weight = saved[1];
    const torch::Tensor output_gradient = outer[0].contiguous();
    const Convolution3d shape = ShapeOf(input, weight);
    torch::Tensor weight_gradient = at::empty_like(weight);
    torch::Tensor input_gradient;
    WithNumberOf(input, [&](auto number) {
      using Number = decltype(number);
      ConvolutionWeightGradient(shape, Numbers<Number>(input), Numbers<Number>(output_gradient),
                                Numbers<float>(weight_gradient), LibTorchThreads());
      if (!input.requires_grad()) return;
      input_gradient = at::empty_like(input);
      ConvolutionInputGradient(shape, Numbers<Number>(output_gradient), Numbers<float>(weight),
                               Numbers<Number>(input_gradient), LibTorchThreads());
    });
    return {input_gradient, weight_gradient};
  }
};

InstanceNormalization PlanOf(const torch::Tensor& input, double epsilon, double slope) {
  return {.samples = input.size(0),
          .channels = input.size(1),
          .voxels = input.size(2) * input.size(3) * input.size(4),
          .epsilon = epsilon,
          .slope = static_cast<float>(slope)};
}

torch::Tensor Normalized(const InstanceNormalization& plan, const torch::Tensor& input,
                         const torch::Tensor& scale, const torch::Tensor& shift,
                         ChannelStatistics* statistics) {
  torch::Tensor output = at::empty_like(input);
  WithNumberOf(input, [&](auto number) {
    using Number = decltype(number);
    NormalizeAndActivate(plan, Numbers<Number>(input), Numbers<float>(scale), Numbers<float>(shift),
                         Numbers<Number>(output), statistics, LibTorchThreads());
  });
  return output;
}

class NormalizationFunction : public torch::autograd::Function<NormalizationFunction> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* context,
                               const torch::Tensor& input, const torch::Tensor& scale,
                               const torch::Tensor& shift, double epsilon, double slope) {
    const InstanceNormalization plan = PlanOf(input, epsilon, slope);
    static_assert(sizeof(ChannelStatistics) == 2 * sizeof(double));
    const torch::Tensor statistics =
        at::empty({plan.samples, plan.channels, 2}, input.options().dtype(torch::kFloat64));
    torch::Tensor output =
        Normalized(plan, input, scale, shift, Numbers<ChannelStatistics>(statistics));
    context->save_for_backward({input, scale, shift, statistics});
    context->saved_data["epsilon"] = epsilon;
    context->saved_data["slope"] = slope;
    return output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& outer) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const torch::Tensor& input = saved[0];
    const torch::Tensor& scale = saved[1];
    const torch::Tensor& shift = saved[2];
    const torch::Tensor output_gradient = outer[0].contiguous();
    const InstanceNormalization plan = PlanOf(input, context->saved_data["epsilon"].toDouble(),
                                              context->saved_data["slope"].toDouble());
    torch::Tensor input_gradient = at::empty_like(input);
    torch::Tensor scale_gradient = at::empty_like(scale);
    torch::Tensor shift_gradient = at::empty_like(shift);
    WithNumberOf(input, [&](auto number) {
      using Number = decltype(number);
      NormalizeAndActivateGradient(
          plan, Numbers<Number>(input), Numbers<ChannelStatistics>(saved[3]), Numbers<float>(scale),
          Numbers<float>(shift), Numbers<Number>(output_gradient), Numbers<Number>(input_gradient),
          Numbers<float>(scale_gradient), Numbers<float>(shift_gradient), LibTorchThreads());
    });
    return {input_gradient, scale_gradient, shift_gradient, torch::Tensor(), torch::Tensor()};
  }
};

}  // namespace

Parallel LibTorchThreads() {
  return {.threads = at::get_num_threads(),
          .run = [](std::int64_t items, const std::function<void(std::int64_t)>& work) {
            std::atomic<std::int64_t> next{0};
            const std::int64_t threads = std::min<std::int64_t>(items, at::get_num_threads());
            at::parallel_for(0, threads, 1, [&](std::int64_t, std::int64_t) {
              for (std::int64_t item = next++; item < items; item = next++) work(item);
            });
          }};
}

bool HasDirectConvolution(const torch::Tensor& input, const torch::Tensor& weight) {
  const torch::ScalarType type = input.scalar_type();
  if (!input.is_cpu() || (type != torch::kFloat32 && type != torch::kBFloat16)) return false;
  const Convolution3d shape = ShapeOf(input, weight);
  if (input.requires_grad() && shape.in % 16 != 0) return false;
  return type == torch::kFloat32 ? HasDirectConvolution<float>(shape)
                                 : HasDirectConvolution<Bfloat16>(shape);
}

torch::Tensor DirectConvolution(const torch::Tensor& input, const torch::Tensor& weight) {
  if (!at::GradMode::is_enabled()) return Convolved(input.contiguous(), weight);
  return ConvolutionFunction::apply(input.contiguous(), weight);
}

torch::Tensor NormalizeAndActivate(const torch::Tensor& input, const torch::Tensor& scale,
                                   const torch::Tensor& shift, double epsilon, double slope) {
  if (!at::GradMode::is_enabled()) {
    const torch::Tensor contiguous = input.contiguous();
    return Normalized(PlanOf(contiguous, epsilon, slope), contiguous, scale, shift, nullptr);
  }
  return NormalizationFunction::apply(input.contiguous(), scale, shift, epsilon, slope);
}

}  // namespace isoscan
