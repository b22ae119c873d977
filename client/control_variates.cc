#include "client/control_variates.h"

#include <cstddef>

namespace isoscan {

NamedTensors GradientCorrection(const NamedTensors& global, const NamedTensors& own) {
  NamedTensors correction = global;
  for (const auto& [name, tensor] : own) {
    std::vector<float>& values = correction.at(name).values;
    for (std::size_t i = 0; i < values.size(); ++i) values[i] -= tensor.values[i];
  }
  return correction;
}

NamedTensors ControlChange(const NamedTensors& global, const NamedTensors& before,
                           const NamedTensors& after, double learning_rate_sum) {
  NamedTensors change = global;
  for (auto& [name, tensor] : change) {
    const std::vector<float>& x = before.at(name).values;
    const std::vector<float>& y = after.at(name).values;
    for (std::size_t i = 0; i < tensor.values.size(); ++i) {
      const double gradient = (double{x[i]} - double{y[i]}) / learning_rate_sum;
      tensor.values[i] = static_cast<float>(gradient - double{tensor.values[i]});
    }
  }
  return change;
}

void AddTo(NamedTensors& own, const NamedTensors& change) {
  for (const auto& [name, tensor] : change) {
    const auto [kept, missing] = own.try_emplace(name, tensor);
    if (missing) continue;
    std::vector<float>& values = kept->second.values;
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += tensor.values[i];
  }
}

}  // namespace isoscan
