#include "common/study/initial_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <string>
#include <utility>

#include "common/random/philox.h"

namespace isoscan {
namespace {

// Shape of a convolution's weight, or of a transposed one's where `in` comes first.
Shape KernelShape(std::int64_t first, std::int64_t second, const Triple& kernel) {
  return {first, second, kernel[0], kernel[1], kernel[2]};
}

class ShapeList {
 public:
  explicit ShapeList(const Study& study) : network_(study.network) {}

  // Convolution, norm and activation, `convolutions_per_stage` times.
  void AddStage(const std::string& prefix, std::int64_t in, std::int64_t out,
                const Triple& kernel) {
    for (std::int64_t j = 0; j < network_.convolutions_per_stage; ++j) {
      const std::string convolution = fmt::format("{}.convs.{}", prefix, j);
      shapes_[convolution + ".conv.weight"] = KernelShape(out, j == 0 ? in : out, kernel);
      shapes_[convolution + ".conv.bias"] = {out};
      shapes_[convolution + ".norm.weight"] = {out};
      shapes_[convolution + ".norm.bias"] = {out};
      if (network_.norm == NetworkPlan::Norm::kBatch) {
        shapes_[convolution + ".norm.running_mean"] = {out};
        shapes_[convolution + ".norm.running_var"] = {out};
      }
    }
  }

  void AddWeightAndBias(const std::string& prefix, Shape weight, std::int64_t out) {
    shapes_[prefix + ".weight"] = std::move(weight);
    shapes_[prefix + ".bias"] = {out};
  }

  TensorShapes Take() && { return std::move(shapes_); }

 private:
  const NetworkPlan& network_;
  TensorShapes shapes_;
};

// PyTorch's rule: the second axis and the kernel, for transposed convolutions too.
std::int64_t FanIn(const Shape& shape) {
  return std::accumulate(shape.begin() + 1, shape.end(), std::int64_t{1}, std::multiplies<>());
}

}  // namespace

TensorShapes NetworkShapes(const Study& study) {
  const NetworkPlan& network = study.network;
  ShapeList shapes(study);

  auto in = static_cast<std::int64_t>(study.channels.size());
  for (std::size_t s = 0; s < network.stages(); ++s) {
    shapes.AddStage(fmt::format("encoder.stages.{}.0", s), in, network.features[s],
                    network.kernels[s]);
    in = network.features[s];
  }

  for (std::size_t d = 0; d + 1 < network.stages(); ++d) {
    const std::size_t below = network.stages() - 1 - d;
    const std::size_t skip = below - 1;
    const std::int64_t features = network.features[skip];
    shapes.AddWeightAndBias(fmt::format("decoder.transpconvs.{}", d),
                            KernelShape(network.features[below], features, network.strides[below]),
                            features);
    shapes.AddStage(fmt::format("decoder.stages.{}", d), 2 * features, features,
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
    } else if (name.ends_with(".norm.weight") || name.ends_with(".running_var")) {
      std::fill(tensor.values.begin(), tensor.values.end(), 1.0F);
    }
    tensor.shape = std::move(shape);
  }
  return weights;
}

}  // namespace isoscan
