#pragma once

#include <torch/nn/module.h>

#include <string>

#include "absl/status/status.h"

#include "common/weights/named_tensors.h"

namespace isoscan {

/// Names and shapes of a network's parameters and buffers.
TensorShapes ShapesOf(const torch::nn::Module& network);

/// Copies `weights` into `network`, on whatever device it is. Nothing is copied on an error.
///
/// Errors: INVALID_ARGUMENT naming `source` ("the global model") and the first tensor that is
///         missing, superfluous or of another shape.
absl::Status LoadWeights(const std::string& source, const NamedTensors& weights,
                         torch::nn::Module& network);

/// The network's parameters and buffers, in float32.
NamedTensors WeightsOf(const torch::nn::Module& network);

}  // namespace isoscan
