#include "client/network/kernel_functions.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "client/kernels/convolution.h"
#include "client/kernels/instance_normalization.h"
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#ifdef ISOSCAN_CUDA
#include "client/kernels/instance_normalization_gpu.h"
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAGuard.h>
#endif

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

/// Null where there is none.
const float* NumbersOrNull(const torch::Tensor& tensor) {
  return tensor.numel() == 0 ? nullptr : Numbers<float>(tensor);
}

/// One tensor or two: `second` may be empty.
template <typename Number>
Features<Number> FeaturesOf(const torch::Tensor& first, const torch::Tensor& second) {
  if (second.numel() == 0) return Numbers<Number>(first);
  return {Numbers<Number>(first), first.size(1), Numbers<Number>(second)};
}

using Stride = std::array<std::int64_t, 3>;

Convolution3d ShapeOf(const torch::Tensor& input, const torch::Tensor& weight,
                      const Stride& stride) {
  return {.samples = input.size(0),
          .in = weight.size(1),
          .out = weight.size(0),
          .size = {input.size(2), input.size(3), input.size(4)},
          .kernel = {weight.size(2), weight.size(3), weight.size(4)},
          .stride = stride};
}

/// The convolution whose gradient is the transposed convolution of `input`.
Convolution3d UpShapeOf(const torch::Tensor& input, const torch::Tensor& weight) {
  const Stride stride{weight.size(2), weight.size(3), weight.size(4)};
  Convolution3d shape = ShapeOf(input, weight, stride);
  shape.side_by_side = true;
  for (std::size_t axis = 0; axis < 3; ++axis) shape.size[axis] *= stride[axis];
  return shape;
}

/// Gradients with respect to the bias, or nothing where it is empty.
torch::Tensor BiasGradient(const torch::Tensor& bias, const torch::Tensor& output_gradient) {
  if (bias.numel() == 0) return {};
  torch::Tensor gradient = at::empty_like(bias);
  const std::int64_t voxels =
      output_gradient.size(2) * output_gradient.size(3) * output_gradient.size(4);
  WithNumberOf(output_gradient, [&](auto number) {
    using Number = decltype(number);
    SumFeatures(output_gradient.size(0), output_gradient.size(1), voxels,
                Numbers<const Number>(output_gradient), Numbers<float>(gradient),
                LibTorchThreads());
  });
  return gradient;
}

torch::Tensor Convolved(const torch::Tensor& first, const torch::Tensor& second,
                        const torch::Tensor& weight, const torch::Tensor& bias,
                        const Stride& stride) {
  const Convolution3d shape = ShapeOf(first, weight, stride);
  torch::Tensor output = at::empty({shape.samples, shape.out, shape.OutputLength(0),
                                    shape.OutputLength(1), shape.OutputLength(2)},
                                   first.options());
  WithNumberOf(first, [&](auto number) {
    using Number = decltype(number);
    Convolve(shape, FeaturesOf<const Number>(first, second), Numbers<float>(weight),
             NumbersOrNull(bias), Numbers<Number>(output), LibTorchThreads());
  });
  return output;
}

/// Tensors that are not there are empty: autograd takes no undefined ones.
class ConvolutionFunction : public torch::autograd::Function<ConvolutionFunction> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* context,
                               const torch::Tensor& first, const torch::Tensor& second,
                               const torch::Tensor& weight, const torch::Tensor& bias,
                               const Stride& stride) {
    context->save_for_backward({first, second, weight, bias});
    context->saved_data["stride"] = std::vector<std::int64_t>(stride.begin(), stride.end());
    return Convolved(first, second, weight, bias, stride);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& outer) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const torch::Tensor& first = saved[0];
    const torch::Tensor& second = saved[1];
    const torch::Tensor& weight = saved[2];
    const torch::Tensor output_gradient = outer[0].contiguous();
    const std::vector<std::int64_t> stride = context->saved_data["stride"].toIntVector();
    const Convolution3d shape = ShapeOf(first, weight, {stride[0], stride[1], stride[2]});
    torch::Tensor weight_gradient = at::empty_like(weight);
    torch::Tensor first_gradient;
    torch::Tensor second_gradient;
    WithNumberOf(first, [&](auto number) {
      using Number = decltype(number);
      ConvolutionWeightGradient(shape, FeaturesOf<const Number>(first, second),
                                Numbers<const Number>(output_gradient),
                                Numbers<float>(weight_gradient), LibTorchThreads());
      if (!first.requires_grad() && !second.requires_grad()) return;
      first_gradient = at::empty_like(first);
      second_gradient = at::empty_like(second);
      ConvolutionInputGradient(
          shape, Numbers<const Number>(output_gradient), Numbers<float>(weight), nullptr,
          FeaturesOf<Number>(first_gradient, second_gradient), LibTorchThreads());
    });
    return {first_gradient, second_gradient, weight_gradient,
            BiasGradient(saved[3], output_gradient), torch::Tensor()};
  }
};

torch::Tensor UpConvolved(const torch::Tensor& input, const torch::Tensor& weight,
                          const torch::Tensor& bias) {
  const Convolution3d shape = UpShapeOf(input, weight);
  torch::Tensor output = at::empty(
      {shape.samples, shape.in, shape.size[0], shape.size[1], shape.size[2]}, input.options());
  WithNumberOf(input, [&](auto number) {
    using Number = decltype(number);
    ConvolutionInputGradient(shape, Numbers<const Number>(input), Numbers<float>(weight),
                             Numbers<float>(bias), Numbers<Number>(output), LibTorchThreads());
  });
  return output;
}

/// The transpose of a convolution: its gradients are that convolution's output and weights'
/// gradient.
class UpConvolutionFunction : public torch::autograd::Function<UpConvolutionFunction> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* context,
                               const torch::Tensor& input, const torch::Tensor& weight,
                               const torch::Tensor& bias) {
    context->save_for_backward({input, weight, bias});
    return UpConvolved(input, weight, bias);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& outer) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const torch::Tensor& input = saved[0];
    const torch::Tensor& weight = saved[1];
    const torch::Tensor output_gradient = outer[0].contiguous();
    const Convolution3d shape = UpShapeOf(input, weight);
    torch::Tensor weight_gradient = at::empty_like(weight);
    torch::Tensor input_gradient;
    WithNumberOf(input, [&](auto number) {
      using Number = decltype(number);
      ConvolutionWeightGradient(shape, Numbers<const Number>(output_gradient),
                                Numbers<const Number>(input), Numbers<float>(weight_gradient),
                                LibTorchThreads());
      if (!input.requires_grad()) return;
      input_gradient = at::empty_like(input);
      Convolve(shape, Numbers<const Number>(output_gradient), Numbers<float>(weight), nullptr,
               Numbers<Number>(input_gradient), LibTorchThreads());
    });
    return {input_gradient, weight_gradient, BiasGradient(saved[2], output_gradient)};
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

#ifdef ISOSCAN_CUDA
/// The same on a GPU, by client/kernels/instance_normalization.cu.
class GpuNormalizationFunction : public torch::autograd::Function<GpuNormalizationFunction> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* context,
                               const torch::Tensor& input, const torch::Tensor& scale,
                               const torch::Tensor& shift, double epsilon, double slope) {
    const c10::cuda::CUDAGuard guard(input.device());
    const InstanceNormalization plan = PlanOf(input, epsilon, slope);
    torch::Tensor output = at::empty_like(input);
    const torch::Tensor statistics = Floats<LaneStatistics>({plan.samples, plan.channels}, input);
    const torch::Tensor scratch =
        Floats<LaneMoments>({plan.samples, plan.channels, PiecesOf(plan.voxels)}, input);
    WithNumberOf(input, [&](auto number) {
      using Number = decltype(number);
      Check(NormalizeAndActivateOnGpu(
          plan, Numbers<const Number>(input), Numbers<const float>(scale),
          Numbers<const float>(shift), Numbers<Number>(output), Numbers<LaneStatistics>(statistics),
          Numbers<LaneMoments>(scratch), at::cuda::getCurrentCUDAStream().stream()));
    });
    context->save_for_backward({input, scale, shift, statistics});
    context->saved_data["epsilon"] = epsilon;
    context->saved_data["slope"] = slope;
    return output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& outer) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const torch::Tensor& input = saved[0];
    const c10::cuda::CUDAGuard guard(input.device());
    const torch::Tensor output_gradient = outer[0].contiguous();
    const InstanceNormalization plan = PlanOf(input, context->saved_data["epsilon"].toDouble(),
                                              context->saved_data["slope"].toDouble());
    torch::Tensor input_gradient = at::empty_like(input);
    const torch::Tensor sums = Floats<LaneGradientSums>({plan.samples, plan.channels}, input);
    const torch::Tensor scratch =
        Floats<LaneGradientSums>({plan.samples, plan.channels, PiecesOf(plan.voxels)}, input);
    WithNumberOf(input, [&](auto number) {
      using Number = decltype(number);
      Check(NormalizeAndActivateGradientOnGpu(
          plan, Numbers<const Number>(input), Numbers<const LaneStatistics>(saved[3]),
          Numbers<const float>(saved[1]), Numbers<const float>(saved[2]),
          Numbers<const Number>(output_gradient), Numbers<Number>(input_gradient),
          Numbers<LaneGradientSums>(sums), Numbers<LaneGradientSums>(scratch),
          at::cuda::getCurrentCUDAStream().stream()));
    });
    // The shift's gradient comes first in LaneGradientSums.
    const torch::Tensor of_channels = sums.sum(0);
    return {input_gradient, of_channels.select(1, 1).contiguous(),
            of_channels.select(1, 0).contiguous(), torch::Tensor(), torch::Tensor()};
  }

 private:
  /// Memory for such structs of floats on the GPU of `like`.
  template <typename Struct>
  static torch::Tensor Floats(std::vector<std::int64_t> shape, const torch::Tensor& like) {
    shape.push_back(sizeof(Struct) / sizeof(float));
    return at::empty(shape, like.options().dtype(torch::kFloat32));
  }
  static void Check(const std::string& error) {
    TORCH_CHECK(error.empty(), "instance normalisation on the GPU: ", error);
  }
};
#endif

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

bool HasDirectConvolution(const torch::Tensor& input) {
  if (!input.is_cpu()) return false;
  const torch::ScalarType type = input.scalar_type();
  return (type == torch::kFloat32 && HasDirectConvolution<float>()) ||
         (type == torch::kBFloat16 && HasDirectConvolution<Bfloat16>());
}

torch::Tensor DirectConvolution(at::TensorList inputs, const torch::Tensor& weight,
                                const torch::Tensor& bias, const Stride& stride) {
  const torch::Tensor none = at::empty({0}, inputs[0].options());
  const torch::Tensor first = inputs[0].contiguous();
  const torch::Tensor second = inputs.size() > 1 ? inputs[1].contiguous() : none;
  const torch::Tensor& added = bias.defined() ? bias : none;
  TORCH_CHECK(first.size(1) + (inputs.size() > 1 ? second.size(1) : 0) == weight.size(1),
              "a convolution of ", weight.size(1), " channels was given an input of ",
              first.sizes());
  if (!at::GradMode::is_enabled()) return Convolved(first, second, weight, added, stride);
  return ConvolutionFunction::apply(first, second, weight, added, stride);
}

torch::Tensor DirectUpConvolution(const torch::Tensor& input, const torch::Tensor& weight,
                                  const torch::Tensor& bias) {
  if (!at::GradMode::is_enabled()) return UpConvolved(input.contiguous(), weight, bias);
  return UpConvolutionFunction::apply(input.contiguous(), weight, bias);
}

torch::Tensor NormalizeAndActivate(const torch::Tensor& input, const torch::Tensor& scale,
                                   const torch::Tensor& shift, double epsilon, double slope) {
#ifdef ISOSCAN_CUDA
  if (input.is_cuda()) {
    return GpuNormalizationFunction::apply(input.contiguous(), scale, shift, epsilon, slope);
  }
#endif
  if (!at::GradMode::is_enabled()) {
    const torch::Tensor contiguous = input.contiguous();
    return Normalized(PlanOf(contiguous, epsilon, slope), contiguous, scale, shift, nullptr);
  }
  return NormalizationFunction::apply(input.contiguous(), scale, shift, epsilon, slope);
}

}  // namespace isoscan
