#include "common/study/exchanged_tensors.h"

#include <algorithm>
#include <string>

#include "common/study/initial_weights.h"

namespace isoscan {
namespace {

constexpr std::string_view kNorm = "norm";

bool Covers(std::string_view layer, std::string_view tensor) {
  if (layer == kNorm) return tensor.find(".norm.") != tensor.npos;
  return tensor.starts_with(layer) &&
         (tensor.size() == layer.size() || tensor[layer.size()] == '.');
}

}  // namespace

bool StaysAtSite(const NetworkPlan& network, std::string_view tensor) {
  return std::any_of(network.local_layers.begin(), network.local_layers.end(),
                     [&](const std::string& layer) { return Covers(layer, tensor); });
}

bool IsRunningStatistic(std::string_view tensor) {
  return tensor.ends_with(".running_mean") || tensor.ends_with(".running_var");
}

TensorShapes ExchangedShapes(const Study& study) {
  TensorShapes shapes = NetworkShapes(study);
  std::erase_if(shapes,
                [&](const auto& tensor) { return StaysAtSite(study.network, tensor.first); });
  if (study.rounds.strategy.kind != StrategyPlan::Kind::kScaffold) return shapes;
  TensorShapes controls;
  for (const auto& [name, shape] : shapes) {
    if (!IsRunningStatistic(name)) controls[std::string(kControl) + name] = shape;
  }
  shapes.merge(controls);
  return shapes;
}

NamedTensors TakeLocal(const NetworkPlan& network, NamedTensors& weights) {
  NamedTensors local;
  for (auto tensor = weights.begin(); tensor != weights.end();) {
    const auto next = std::next(tensor);
    if (StaysAtSite(network, tensor->first)) local.insert(weights.extract(tensor));
    tensor = next;
  }
  return local;
}

}  // namespace isoscan
