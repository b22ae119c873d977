#include "client/network/plain_conv_unet.h"

#include <torch/utils.h>

#include <memory>
#include <numeric>
#include <utility>

#include "client/network/kernel_functions.h"
#include "client/network/packed_weights.h"
#include <ATen/ATen.h>

namespace isoscan {
namespace {

constexpr double kNormEpsilon = 1e-5;
constexpr double kNormMomentum = 0.1;
constexpr std::int64_t kMostGroups = 8;
constexpr Triple kOnes{1, 1, 1};

}  // namespace

ConvolutionImpl::ConvolutionImpl(std::int64_t in, std::int64_t out, const Triple& kernel,
                                 const Triple& stride, HasBias has_bias)
    : stride_(stride), padding_{(kernel[0] - 1) / 2, (kernel[1] - 1) / 2, (kernel[2] - 1) / 2} {
  weight_ = register_parameter("weight", torch::zeros({out, in, kernel[0], kernel[1], kernel[2]}));
  if (has_bias == HasBias::kYes) bias_ = register_parameter("bias", torch::zeros({out}));
}

torch::Tensor ConvolutionImpl::forward(at::TensorList inputs, Bias use) {
  torch::Tensor bias = use == Bias::kApply ? bias_ : torch::Tensor();
  if (packed_type_ == inputs[0].scalar_type() && !bias.defined() && stride_ == kOnes &&
      PackedWeights::Suits(inputs, weight_)) {
    std::call_once(packed_once_,
                   [&] { packed_ = std::make_shared<PackedWeights>(weight_, packed_type_); });
    return packed_->Convolve(inputs);
  }
  if (HasDirectConvolution(inputs[0])) return DirectConvolution(inputs, weight_, bias, stride_);
  const torch::Tensor input = inputs.size() == 1 ? inputs[0] : at::cat(inputs, 1);
  const torch::ScalarType type = input.scalar_type();
  if (bias.defined()) bias = bias.to(type);
  return at::conv3d(input, weight_.to(type), bias, stride_, padding_);
}

UpConvolutionImpl::UpConvolutionImpl(std::int64_t in, std::int64_t out, const Triple& stride)
    : stride_(stride) {
  weight_ = register_parameter("weight", torch::zeros({in, out, stride[0], stride[1], stride[2]}));
  bias_ = register_parameter("bias", torch::zeros({out}));
}

torch::Tensor UpConvolutionImpl::forward(const torch::Tensor& input) {
  if (HasDirectConvolution(input)) return DirectUpConvolution(input, weight_, bias_);
  const auto type = input.scalar_type();
  if (input.is_cuda()) {
    return at::conv_transpose3d(input, weight_.to(type), bias_.to(type), stride_);
  }
  const auto [z, y, x] = stride_;
  const std::int64_t in = weight_.size(0);
  const std::int64_t out = weight_.size(1);
  const std::int64_t block = z * y * x;
  const torch::Tensor weight = weight_.view({in, out * block}).t().reshape({-1, in, 1, 1, 1});
  const torch::Tensor bias = bias_.unsqueeze(1).expand({out, block}).reshape({-1});
  const torch::Tensor blocks = at::conv3d(input, weight.to(type), bias.to(type));

  const std::int64_t samples = input.size(0);
  const std::int64_t depth = input.size(2);
  const std::int64_t height = input.size(3);
  const std::int64_t width = input.size(4);
  return blocks.view({samples, out, z, y, x, depth, height, width})
      .permute({0, 1, 5, 2, 6, 3, 7, 4})
      .reshape({samples, out, depth * z, height * y, width * x});
}

FeatureNormImpl::FeatureNormImpl(std::int64_t features, NetworkPlan::Norm norm)
    : norm_(norm), groups_(std::gcd(features, kMostGroups)) {
  if (norm == NetworkPlan::Norm::kNone) return;
  weight_ = register_parameter("weight", torch::ones({features}));
  bias_ = register_parameter("bias", torch::zeros({features}));
  if (norm == NetworkPlan::Norm::kBatch) {
    running_mean_ = register_buffer("running_mean", torch::zeros({features}));
    running_var_ = register_buffer("running_var", torch::ones({features}));
  }
}

torch::Tensor FeatureNormImpl::forward(const torch::Tensor& input, double slope) {
  if (norm_ == NetworkPlan::Norm::kInstance) {
    return NormalizeAndActivate(input, weight_, bias_, kNormEpsilon, slope);
  }
  torch::Tensor normalized = Normalized(input);
  return slope == 1 ? normalized : at::leaky_relu_(normalized, slope);
}

torch::Tensor FeatureNormImpl::Normalized(const torch::Tensor& input) {
  if (norm_ == NetworkPlan::Norm::kNone) return input;
  if (norm_ == NetworkPlan::Norm::kBatch) {
    return at::batch_norm(input, weight_, bias_, running_mean_, running_var_, is_training(),
                          kNormMomentum, kNormEpsilon, /*cudnn_enabled=*/true);
  }
  const torch::ScalarType type = input.scalar_type();
  return at::group_norm(input.to(torch::kFloat32), groups_, weight_, bias_, kNormEpsilon).to(type);
}

ConvolutionBlockImpl::ConvolutionBlockImpl(std::int64_t in, std::int64_t out, const Triple& kernel,
                                           const Triple& stride, NetworkPlan::Norm norm,
                                           double slope)
    : slope_(slope),
      bias_use_(norm == NetworkPlan::Norm::kInstance ? ConvolutionImpl::Bias::kSkip
                                                     : ConvolutionImpl::Bias::kApply),
      conv_(register_module("conv", Convolution(in, out, kernel, stride))),
      norm_(register_module("norm", FeatureNorm(out, norm))) {}

torch::Tensor ConvolutionBlockImpl::forward(at::TensorList inputs) {
  return norm_(conv_(inputs, bias_use_), slope_);
}

ConvolutionStackImpl::ConvolutionStackImpl(std::int64_t blocks, std::int64_t in, std::int64_t out,
                                           const Triple& kernel, const Triple& stride,
                                           NetworkPlan::Norm norm)
    : convs_(register_module("convs", torch::nn::ModuleList())) {
  for (std::int64_t j = 0; j < blocks; ++j) {
    convs_->push_back(
        ConvolutionBlock(j == 0 ? in : out, out, kernel, j == 0 ? stride : kOnes, norm));
  }
}

torch::Tensor ConvolutionStackImpl::forward(std::vector<torch::Tensor> inputs) {
  for (const auto& block : *convs_) inputs = {block->as<ConvolutionBlock>()->forward(inputs)};
  return inputs.front();
}

UNetDecoderImpl::UNetDecoderImpl(std::int64_t classes, const NetworkPlan& plan) {
  torch::nn::ModuleList stage_list;
  torch::nn::ModuleList up_list;
  torch::nn::ModuleList head_list;
  for (std::size_t below = plan.stages() - 1; below > 0; --below) {
    const std::size_t level = below - 1;
    const std::int64_t features = plan.features[level];
    up_convolutions_.emplace_back(plan.features[below], features, plan.strides[below]);
    stages_.emplace_back(plan.convolutions_per_stage, 2 * features, features, plan.kernels[level],
                         kOnes, plan.norm);
    heads_.emplace_back(features, classes, kOnes, kOnes);
    up_list->push_back(up_convolutions_.back());
    stage_list->push_back(stages_.back());
    head_list->push_back(heads_.back());
  }
  register_module("stages", stage_list);
  register_module("transpconvs", up_list);
  register_module("seg_layers", head_list);
}

std::vector<torch::Tensor> UNetDecoderImpl::forward(std::vector<torch::Tensor> skips,
                                                    std::int64_t heads) {
  torch::Tensor features = std::move(skips.back());
  skips.pop_back();

  std::vector<torch::Tensor> scores;
  const std::size_t levels = stages_.size();
  for (std::size_t d = 0; d < levels; ++d) {
    torch::Tensor skip = std::move(skips.back());
    skips.pop_back();
    features = stages_[d]->forward({up_convolutions_[d](features), std::move(skip)});
    if (levels - d <= static_cast<std::size_t>(heads)) {
      scores.insert(scores.begin(), heads_[d](features));
    }
  }
  return scores;
}

PlainConvUNetImpl::PlainConvUNetImpl(std::int64_t channels, std::int64_t classes,
                                     const NetworkPlan& plan) {
  torch::nn::ModuleList encoder_list;
  for (std::size_t s = 0; s < plan.stages(); ++s) {
    const std::int64_t in = s == 0 ? channels : plan.features[s - 1];
    encoder_stages_.emplace_back(plan.convolutions_per_stage, in, plan.features[s], plan.kernels[s],
                                 plan.strides[s], plan.norm);
    torch::nn::ModuleList numbered;  // nnU-Net's stage is a sequence of one
    numbered->push_back(encoder_stages_.back());
    encoder_list->push_back(numbered);
  }
  auto encoder = std::make_shared<ModuleScope>();
  encoder->register_module("stages", encoder_list);
  register_module("encoder", encoder);
  decoder_ = register_module("decoder", UNetDecoder(classes, plan));
}

void SegmentationNetwork::PrepareInference(const torch::Device& device, torch::ScalarType type) {
  const torch::NoGradGuard no_gradient;
  eval();
  for (torch::Tensor& parameter : parameters()) {
    // On the CPU the kernels of our own take float32.
    const bool half = device.is_cuda() && parameter.dim() == 5;
    parameter.set_requires_grad(false);
    parameter.set_data(parameter.to(device, half ? type : torch::kFloat32));
  }
  for (torch::Tensor& buffer : buffers()) buffer.set_data(buffer.to(device));
  if (!device.is_cpu()) return;
  apply([type](torch::nn::Module& module) {
    if (auto* convolution = module.as<Convolution>()) convolution->KeepPackedWeights(type);
  });
}

std::vector<torch::Tensor> PlainConvUNetImpl::forward(const torch::Tensor& input,
                                                      std::int64_t heads) {
  std::vector<torch::Tensor> skips;
  torch::Tensor features = input;
  for (ConvolutionStack& stage : encoder_stages_) {
    features = stage->forward({features});
    skips.push_back(features);
  }
  features.reset();
  return decoder_(std::move(skips), heads);
}

}  // namespace isoscan
