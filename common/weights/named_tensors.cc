#include "common/weights/named_tensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <numeric>

namespace isoscan {

std::int64_t ElementCount(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::string ToString(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

TensorShapes ShapesOf(const NamedTensors& tensors) {
  TensorShapes shapes;
  for (const auto& [name, tensor] : tensors) shapes.emplace_hint(shapes.end(), name, tensor.shape);
  return shapes;
}

absl::Status CheckShapes(const std::string& sender, const TensorShapes& given,
                         const TensorShapes& expected) {
  const auto missing = std::find_if(expected.begin(), expected.end(), [&](const auto& tensor) {
    return given.count(tensor.first) == 0;
  });
  if (missing != expected.end()) {
    return absl::InvalidArgumentError(fmt::format("{} sent {} tensors, expected {}: {} is missing",
                                                  sender, given.size(), expected.size(),
                                                  missing->first));
  }
  const auto unknown = std::find_if(given.begin(), given.end(), [&](const auto& tensor) {
    return expected.count(tensor.first) == 0;
  });
  if (unknown != given.end()) {
    return absl::InvalidArgumentError(
        fmt::format("{} sent {} tensors, expected {}: {} is not part of this network", sender,
                    given.size(), expected.size(), unknown->first));
  }
  for (const auto& [name, shape] : expected) {
    const Shape& sent = given.at(name);
    if (sent != shape) {
      return absl::InvalidArgumentError(fmt::format("{} sent {} of shape {}, expected {}", sender,
                                                    name, ToString(sent), ToString(shape)));
    }
  }
  return absl::OkStatus();
}

}  // namespace isoscan
