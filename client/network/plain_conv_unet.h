#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "common/study/study.h"

namespace isoscan {

class PackedWeights;

/// nnU-Net's leaky ReLU.
constexpr double kLeakySlope = 0.01;

/// A convolution with "same" padding and, unless HasBias::kNo, a bias. Its parameters are made
/// empty: weights always come from a model (weights_bridge.h), never from LibTorch's own generator.
///
/// Shapes: inputs [N, in, D, H, W], one, or two whose features follow each other; output [N, out,
///         ceil(D / stride), ...]. Computes in the input's type; parameters stay float32.
class ConvolutionImpl : public torch::nn::Module {
 public:
  enum class HasBias { kNo, kYes };
  ConvolutionImpl(std::int64_t in, std::int64_t out, const Triple& kernel, const Triple& stride,
                  HasBias has_bias = HasBias::kYes);

  enum class Bias { kApply, kSkip };
  torch::Tensor forward(at::TensorList inputs, Bias use = Bias::kApply);

  /// From now on weights are kept for inputs of `type` as PackedWeights has them, where it suits,
  /// which the first call sees to; calls may run at a time. They must not change any more.
  void KeepPackedWeights(torch::ScalarType type) { packed_type_ = type; }

 private:
  torch::Tensor weight_;
  torch::Tensor bias_;
  Triple stride_;
  Triple padding_;
  torch::ScalarType packed_type_ = torch::ScalarType::Undefined;
  std::once_flag packed_once_;
  std::shared_ptr<const PackedWeights> packed_;
};
TORCH_MODULE(Convolution);

/// A transposed convolution whose kernel is its stride: each voxel becomes a block of its own.
///
/// On a CPU without AVX-512 it is a 1x1x1 convolution and a rearrangement: 1.5 to 2 times as fast
/// as at::conv_transpose3d in LibTorch 1.13, which refuses bfloat16 there (docs/performance.md).
/// Shapes: input [N, in, D, H, W]; output [N, out, D * stride, ...].
class UpConvolutionImpl : public torch::nn::Module {
 public:
  UpConvolutionImpl(std::int64_t in, std::int64_t out, const Triple& stride);
  torch::Tensor forward(const torch::Tensor& input);

 private:
  torch::Tensor weight_;
  torch::Tensor bias_;
  Triple stride_;
};
TORCH_MODULE(UpConvolution);

/// Instance, batch or group normalisation with scale and shift, eps = 1e-5, statistics in float32
/// or double whatever the input's type, or none, which has no parameters; then a leaky ReLU of
/// `slope`, 1 for none. Batch normalisation keeps running statistics (momentum 0.1) as buffers.
/// Group normalisation: docs/references.md#wu2018.
class FeatureNormImpl : public torch::nn::Module {
 public:
  FeatureNormImpl(std::int64_t features, NetworkPlan::Norm norm);
  torch::Tensor forward(const torch::Tensor& input, double slope = 1);

 private:
  torch::Tensor Normalized(const torch::Tensor& input);

  NetworkPlan::Norm norm_;
  std::int64_t groups_;  ///< For kGroup.
  torch::Tensor weight_;
  torch::Tensor bias_;
  torch::Tensor running_mean_;
  torch::Tensor running_var_;
};
TORCH_MODULE(FeatureNorm);

/// Convolution, normalisation, leaky ReLU of `slope`, 1 for none.
///
/// Under instance normalisation the convolution's bias cancels exactly, so it is not computed: it
/// has no gradient and stays as it came, where rounding noise would otherwise make it drift (under
/// Adam by a whole learning rate per step) and sites of equal content differ.
class ConvolutionBlockImpl : public torch::nn::Module {
 public:
  ConvolutionBlockImpl(std::int64_t in, std::int64_t out, const Triple& kernel,
                       const Triple& stride, NetworkPlan::Norm norm, double slope = kLeakySlope);
  torch::Tensor forward(at::TensorList inputs);

 private:
  double slope_;
  Convolution::Impl::Bias bias_use_;
  Convolution conv_;
  FeatureNorm norm_;
};
TORCH_MODULE(ConvolutionBlock);

/// Convolution blocks in a row; the first has the stride.
class ConvolutionStackImpl : public torch::nn::Module {
 public:
  ConvolutionStackImpl(std::int64_t blocks, std::int64_t in, std::int64_t out, const Triple& kernel,
                       const Triple& stride, NetworkPlan::Norm norm);
  /// As Convolution's; each block's inputs are let go of when it is done.
  torch::Tensor forward(std::vector<torch::Tensor> inputs);

 private:
  torch::nn::ModuleList convs_;
};
TORCH_MODULE(ConvolutionStack);

/// A module that only gives its children a name.
class ModuleScope : public torch::nn::Module {
 public:
  using torch::nn::Module::register_module;
};

/// The way back up of nnU-Net's U-Nets. Source: dynamic-network-architectures' UNetDecoder.
class UNetDecoderImpl : public torch::nn::Module {
 public:
  UNetDecoderImpl(std::int64_t classes, const NetworkPlan& plan);

  /// `skips`: what each stage of the encoder has made, finest first. As SegmentationNetwork's
  /// forward().
  std::vector<torch::Tensor> forward(std::vector<torch::Tensor> skips, std::int64_t heads);

 private:
  std::vector<UpConvolution> up_convolutions_;  ///< Coarsest first, as the two below.
  std::vector<ConvolutionStack> stages_;
  std::vector<Convolution> heads_;
};
TORCH_MODULE(UNetDecoder);

/// A network of a study's plan. Computes in the type of its input (float32 or bfloat16); parameters
/// stay float32.
class SegmentationNetwork : public torch::nn::Module {
 public:
  /// Scores before the softmax of the `heads` finest resolutions, finest first.
  ///
  /// Shapes: input [N, channels, D, H, W], each of D, H, W a multiple of the product of its
  ///         strides; output i [N, classes, ...] at the resolution of stage i.
  /// Throws: c10::Error when the input's shape does not fit.
  virtual std::vector<torch::Tensor> forward(const torch::Tensor& input,
                                             std::int64_t heads = 1) = 0;

  /// Makes it ready to predict on `device` with inputs of `type`, and for nothing else: what is
  /// done to the weights of its convolutions at each call (on a GPU their type, on the CPU their
  /// order and transforms) is done once. Load the weights before; then several threads may call
  /// forward().
  void PrepareInference(const torch::Device& device, torch::ScalarType type);
};

/// nnU-Net's PlainConvUNet, with its parameter names (common/study/initial_weights.h).
///
///   image ─ stage 0 ───────────── cat ─ stage ─ head     finest
///              └ stage 1 ─── cat ─ stage ┘ ─ (head)      deep supervision
///                   └ stage 2 ┘ up
///
/// Source: docs/references.md#isensee2021; dynamic-network-architectures' PlainConvUNet.
class PlainConvUNetImpl : public SegmentationNetwork {
 public:
  PlainConvUNetImpl(std::int64_t channels, std::int64_t classes, const NetworkPlan& plan);
  std::vector<torch::Tensor> forward(const torch::Tensor& input, std::int64_t heads = 1) override;

 private:
  std::vector<ConvolutionStack> encoder_stages_;
  UNetDecoder decoder_{nullptr};
};
TORCH_MODULE(PlainConvUNet);

}  // namespace isoscan
