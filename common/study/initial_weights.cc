#include "common/study/initial_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <string>
#include <utility>

#include "common/random/philox.h"
#include "common/status/status_macros.h"
#include "common/weights/safetensors.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

// Shape of a convolution's weight, or of a transposed one's where `in` comes first.
Shape KernelShape(std::int64_t first, std::int64_t second, const Triple& kernel) {
  return {first, second, kernel[0], kernel[1], kernel[2]};
}

class ShapeList {
 public:
  explicit ShapeList(const Study& study) : network_(study.network) {}

  // Convolution, norm and activation, `convolutions` times.
  void AddStack(const std::string& prefix, std::int64_t convolutions, std::int64_t in,
                std::int64_t out, const Triple& kernel) {
    for (std::int64_t j = 0; j < convolutions; ++j) {
      AddConvolution(fmt::format("{}.convs.{}", prefix, j), j == 0 ? in : out, out, kernel);
    }
  }

  // Blocks of two convolutions; where the first changes the features, a projection beside it.
  void AddResidualStage(std::size_t stage, std::int64_t in) {
    const std::int64_t out = network_.features[stage];
    const Triple& kernel = network_.kernels[stage];
    for (std::int64_t b = 0; b < network_.blocks_per_stage[stage]; ++b) {
      const std::string block = fmt::format("encoder.stages.{}.blocks.{}", stage, b);
      AddConvolution(block + ".conv1", b == 0 ? in : out, out, kernel);
      AddConvolution(block + ".conv2", out, out, kernel);
      if (b > 0 || in == out) continue;
      // What averages over the stride, where there is one, is number 0 of the sequence.
      const bool strided = network_.strides[stage] != Triple{1, 1, 1};
      const std::string projection = block + (strided ? ".skip.1" : ".skip.0");
      shapes_[projection + ".conv.weight"] = KernelShape(out, in, {1, 1, 1});
      AddNorm(projection + ".norm", out);
    }
  }

  void AddWeightAndBias(const std::string& prefix, Shape weight, std::int64_t out) {
    shapes_[prefix + ".weight"] = std::move(weight);
    shapes_[prefix + ".bias"] = {out};
  }

  void AddConvolution(const std::string& name, std::int64_t in, std::int64_t out,
                      const Triple& kernel) {
    AddWeightAndBias(name + ".conv", KernelShape(out, in, kernel), out);
    AddNorm(name + ".norm", out);
  }

  TensorShapes Take() && { return std::move(shapes_); }

 private:
  void AddNorm(const std::string& name, std::int64_t features) {
    if (network_.norm == NetworkPlan::Norm::kNone) return;
    AddWeightAndBias(name, {features}, features);
    if (network_.norm == NetworkPlan::Norm::kBatch) {
      shapes_[name + ".running_mean"] = {features};
      shapes_[name + ".running_var"] = {features};
    }
  }

  const NetworkPlan& network_;
  TensorShapes shapes_;
};

// The normalisation that a residual block ends with: 0, so that the block begins as the identity.
bool EndsResidualBlock(const std::string& name) { return name.ends_with(".conv2.norm.weight"); }

// PyTorch's rule: the second axis and the kernel, for transposed convolutions too.
std::int64_t FanIn(const Shape& shape) {
  return std::accumulate(shape.begin() + 1, shape.end(), std::int64_t{1}, std::multiplies<>());
}

}  // namespace

TensorShapes NetworkShapes(const Study& study) {
  const NetworkPlan& network = study.network;
  ShapeList shapes(study);

  const std::int64_t convolutions = network.convolutions_per_stage;
  auto in = static_cast<std::int64_t>(study.channels.size());
  if (network.kind == NetworkPlan::Kind::kResidual) {
    shapes.AddStack("encoder.stem", /*convolutions=*/1, in, network.features[0],
                    network.kernels[0]);
    in = network.features[0];
  }
  for (std::size_t s = 0; s < network.stages(); ++s) {
    if (network.kind == NetworkPlan::Kind::kResidual) {
      shapes.AddResidualStage(s, in);
    } else {
      shapes.AddStack(fmt::format("encoder.stages.{}.0", s), convolutions, in, network.features[s],
                      network.kernels[s]);
    }
    in = network.features[s];
  }

  for (std::size_t d = 0; d + 1 < network.stages(); ++d) {
    const std::size_t below = network.stages() - 1 - d;
    const std::size_t skip = below - 1;
    const std::int64_t features = network.features[skip];
    shapes.AddWeightAndBias(fmt::format("decoder.transpconvs.{}", d),
                            KernelShape(network.features[below], features, network.strides[below]),
                            features);
    shapes.AddStack(fmt::format("decoder.stages.{}", d), convolutions, 2 * features, features,
                    network.kernels[skip]);
    shapes.AddWeightAndBias(fmt::format("decoder.seg_layers.{}", d),
                            KernelShape(study.classes(), features, {1, 1, 1}), study.classes());
  }
  return std::move(shapes).Take();
}

NamedTensors InitialWeights(const Study& study) {
  constexpr double kNegativeSlope = 0.01;  // Of the leaky ReLU that follows.
  TensorShapes shapes = NetworkShapes(study);
  NamedTensors weights;
  for (auto& [name, shape] : shapes) {
    Tensor& tensor = weights[name];
    tensor.values.resize(static_cast<std::size_t>(ElementCount(shape)));
    if (shape.size() > 1) {
      const double sd = std::sqrt(
          2 / ((1 + kNegativeSlope * kNegativeSlope) * static_cast<double>(FanIn(shape))));
      RandomStream(study.seed, name).FillNormal(tensor.values, sd);
    } else if ((name.ends_with(".norm.weight") && !EndsResidualBlock(name)) ||
               name.ends_with(".running_var")) {
      std::fill(tensor.values.begin(), tensor.values.end(), 1.0F);
    }
    tensor.shape = std::move(shape);
  }
  return weights;
}

std::string WeightsDigest(const NamedTensors& weights) {
  return Sha256Of(EncodeSafetensors(weights, {}));
}

absl::Status CheckStartingWeights(const Study& study, const std::string& source,
                                  const NamedTensors& weights) {
  RETURN_IF_ERROR(CheckShapes(source, ShapesOf(weights), NetworkShapes(study)));
  for (const auto& [name, tensor] : weights) {
    const auto wrong = std::find_if(tensor.values.begin(), tensor.values.end(),
                                    [](float value) { return !std::isfinite(value); });
    if (wrong == tensor.values.end()) continue;
    return absl::InvalidArgumentError(fmt::format("{}: {} has the value {} at index {}", source,
                                                  name, *wrong, wrong - tensor.values.begin()));
  }
  const std::string& declared = study.network.initial_weights;
  if (declared.empty()) return absl::OkStatus();
  const std::string digest = WeightsDigest(weights);
  if (digest == declared) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{} has weights {}, study {} starts from initial_weights = \"{}\"", source,
                  digest, study.name, declared));
}

}  // namespace isoscan
