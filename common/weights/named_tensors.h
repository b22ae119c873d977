#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace isoscan {

/// Shape of a tensor, outermost axis first, as LibTorch and NumPy print it. A scalar has no axis.
using Shape = std::vector<std::int64_t>;

/// Number of values in a tensor of this shape.
std::int64_t ElementCount(const Shape& shape);

/// "[32, 1, 3, 3, 3]".
std::string ToString(const Shape& shape);

/// float32 values in row-major order.
struct Tensor {
  Shape shape;
  std::vector<float> values;

  bool operator==(const Tensor&) const = default;
};

/// The weights of a network by nnU-Net's parameter names. The order of the names is the order on
/// disk and on the wire, so the same weights always have the same digest.
using NamedTensors = std::map<std::string, Tensor>;

/// Name and shape of each tensor that a network has; what an update is checked against.
using TensorShapes = std::map<std::string, Shape>;

TensorShapes ShapesOf(const NamedTensors& tensors);

/// OK when `given` has exactly the tensors of `expected`.
///
/// Errors: INVALID_ARGUMENT naming the sender, the first tensor that differs and both shapes or
///         counts, such as "st-marys sent 57 tensors, expected 58: decoder.seg_layers.0.bias is
///         missing".
absl::Status CheckShapes(const std::string& sender, const TensorShapes& given,
                         const TensorShapes& expected);

}  // namespace isoscan
