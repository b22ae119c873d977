#include "client/network/weights_bridge.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <cstddef>
#include <map>

#include "common/status/status_macros.h"
#include <ATen/ATen.h>

namespace isoscan {
namespace {

/// Parameters and buffers share their storage with the network.
std::map<std::string, torch::Tensor> TensorsOf(const torch::nn::Module& network) {
  std::map<std::string, torch::Tensor> tensors;
  for (const auto& parameter : network.named_parameters()) {
    tensors.emplace(parameter.key(), parameter.value());
  }
  for (const auto& buffer : network.named_buffers()) tensors.emplace(buffer.key(), buffer.value());
  return tensors;
}

}  // namespace

TensorShapes ShapesOf(const torch::nn::Module& network) {
  TensorShapes shapes;
  for (const auto& [name, tensor] : TensorsOf(network)) shapes[name] = tensor.sizes().vec();
  return shapes;
}

absl::Status LoadWeights(const std::string& source, const NamedTensors& weights,
                         torch::nn::Module& network) {
  RETURN_IF_ERROR(CheckShapes(source, ShapesOf(weights), ShapesOf(network)));
  const torch::NoGradGuard no_gradient;
  for (auto& [name, tensor] : TensorsOf(network)) {
    const Tensor& given = weights.at(name);
    // from_blob takes no const pointer; the tensor is only read.
    tensor.copy_(at::from_blob(const_cast<float*>(given.values.data()), tensor.sizes()));
  }
  return absl::OkStatus();
}

NamedTensors WeightsOf(const torch::nn::Module& network) {
  NamedTensors weights;
  for (const auto& [name, tensor] : TensorsOf(network)) {
    const torch::Tensor values = tensor.detach().to(torch::kCPU).contiguous();
    const auto* first = values.data_ptr<float>();
    weights[name] = {tensor.sizes().vec(), {first, first + values.numel()}};
  }
  return weights;
}

}  // namespace isoscan
