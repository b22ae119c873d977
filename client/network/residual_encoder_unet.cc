#include "client/network/residual_encoder_unet.h"

#include <cstddef>
#include <utility>

#include <ATen/ATen.h>

namespace isoscan {
namespace {

constexpr Triple kOnes{1, 1, 1};

/// The mean of each block of `stride` voxels. LibTorch 1.13 has it on the CPU in float32 alone.
torch::Tensor Averaged(const torch::Tensor& input, const Triple& stride) {
  const torch::ScalarType type = input.scalar_type();
  const torch::ScalarType sums = input.is_cuda() ? type : torch::kFloat32;
  return at::avg_pool3d(input.to(sums), stride, stride).to(type);
}

}  // namespace

ResidualBlockImpl::ResidualBlockImpl(std::int64_t in, std::int64_t out, const Triple& kernel,
                                     const Triple& stride, NetworkPlan::Norm norm)
    : stride_(stride),
      conv1_(register_module("conv1", ConvolutionBlock(in, out, kernel, stride, norm))),
      conv2_(
          register_module("conv2", ConvolutionBlock(out, out, kernel, kOnes, norm, /*slope=*/1))) {
  if (in == out) return;
  auto skip = std::make_shared<ModuleScope>();
  auto projection = std::make_shared<ModuleScope>();
  projection_ = projection->register_module(
      "conv", Convolution(in, out, kOnes, kOnes, ConvolutionImpl::HasBias::kNo));
  projection_norm_ = projection->register_module("norm", FeatureNorm(out, norm));
  skip->register_module(stride == kOnes ? "0" : "1", projection);
  register_module("skip", skip);
}

torch::Tensor ResidualBlockImpl::forward(const torch::Tensor& input) {
  torch::Tensor beside = input;
  if (stride_ != kOnes) beside = Averaged(beside, stride_);
  if (!projection_.is_empty()) beside = projection_norm_(projection_(beside));
  torch::Tensor sum = conv2_(conv1_(input)).add_(beside);
  return at::leaky_relu_(sum, kLeakySlope);
}

ResidualEncoderUNetImpl::ResidualEncoderUNetImpl(std::int64_t channels, std::int64_t classes,
                                                 const NetworkPlan& plan) {
  auto encoder = std::make_shared<ModuleScope>();
  stem_ =
      encoder->register_module("stem", ConvolutionStack(/*blocks=*/1, channels, plan.features[0],
                                                        plan.kernels[0], kOnes, plan.norm));
  torch::nn::ModuleList stage_list;
  std::int64_t in = plan.features[0];
  for (std::size_t s = 0; s < plan.stages(); ++s) {
    std::vector<ResidualBlock>& blocks = stages_.emplace_back();
    torch::nn::ModuleList block_list;
    for (std::int64_t b = 0; b < plan.blocks_per_stage[s]; ++b) {
      blocks.emplace_back(in, plan.features[s], plan.kernels[s], b == 0 ? plan.strides[s] : kOnes,
                          plan.norm);
      block_list->push_back(blocks.back());
      in = plan.features[s];
    }
    auto stage = std::make_shared<ModuleScope>();
    stage->register_module("blocks", block_list);
    stage_list->push_back(stage);
  }
  encoder->register_module("stages", stage_list);
  register_module("encoder", encoder);
  decoder_ = register_module("decoder", UNetDecoder(classes, plan));
}

std::vector<torch::Tensor> ResidualEncoderUNetImpl::forward(const torch::Tensor& input,
                                                            std::int64_t heads) {
  std::vector<torch::Tensor> skips;
  torch::Tensor features = stem_->forward({input});
  for (std::vector<ResidualBlock>& blocks : stages_) {
    for (ResidualBlock& block : blocks) features = block(features);
    skips.push_back(features);
  }
  features.reset();
  return decoder_(std::move(skips), heads);
}

std::shared_ptr<SegmentationNetwork> MakeNetwork(const Study& study) {
  const auto channels = static_cast<std::int64_t>(study.channels.size());
  switch (study.network.kind) {
    case NetworkPlan::Kind::kPlain:
      return PlainConvUNet(channels, study.classes(), study.network).ptr();
    case NetworkPlan::Kind::kResidual:
      return ResidualEncoderUNet(channels, study.classes(), study.network).ptr();
  }
  return nullptr;
}

}  // namespace isoscan
