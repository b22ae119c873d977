#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "client/network/plain_conv_unet.h"
#include "common/study/study.h"

namespace isoscan {

/// Two convolutions, the first with the stride, and beside them the input, averaged over the stride
/// and brought to as many features; then leaky ReLU.
/// Source: dynamic-network-architectures' BasicBlockD, after docs/references.md#he2019.
class ResidualBlockImpl : public torch::nn::Module {
 public:
  ResidualBlockImpl(std::int64_t in, std::int64_t out, const Triple& kernel, const Triple& stride,
                    NetworkPlan::Norm norm);
  torch::Tensor forward(const torch::Tensor& input);

 private:
  Triple stride_;
  ConvolutionBlock conv1_;
  ConvolutionBlock conv2_;
  Convolution projection_{nullptr};  ///< Empty where the features stay.
  FeatureNorm projection_norm_{nullptr};
};
TORCH_MODULE(ResidualBlock);

/// nnU-Net's ResidualEncoderUNet, with its parameter names (common/study/initial_weights.h): a
/// convolution at full resolution, stages of residual blocks, and the decoder of PlainConvUNet.
/// Source: docs/references.md#isensee2024; dynamic-network-architectures' ResidualEncoderUNet.
class ResidualEncoderUNetImpl : public SegmentationNetwork {
 public:
  ResidualEncoderUNetImpl(std::int64_t channels, std::int64_t classes, const NetworkPlan& plan);
  std::vector<torch::Tensor> forward(const torch::Tensor& input, std::int64_t heads = 1) override;

 private:
  ConvolutionStack stem_{nullptr};
  std::vector<std::vector<ResidualBlock>> stages_;
  UNetDecoder decoder_{nullptr};
};
TORCH_MODULE(ResidualEncoderUNet);

/// The network that the study declares; its parameters are empty.
std::shared_ptr<SegmentationNetwork> MakeNetwork(const Study& study);

}  // namespace isoscan
