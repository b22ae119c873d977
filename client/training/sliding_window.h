#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "common/study/study.h"

namespace isoscan {

/// Where windows of length `window` start on an axis of `length` voxels: evenly spread, the first
/// at 0, the last at the end, neighbours overlapping by at least `overlap` of their length. {0}
/// when one window covers the axis.
std::vector<std::int64_t> WindowStarts(std::int64_t length, std::int64_t window, double overlap);

/// Gaussian weights along one axis of a window: 1 in the middle, sigma an eighth of the length.
std::vector<float> GaussianWeights(std::int64_t window);

/// Scores of a batch of windows: [n, channels, D, H, W] -> [n, classes, D, H, W].
using WindowScorer = std::function<torch::Tensor(const torch::Tensor& windows)>;

/// Scores of a whole volume: the Gaussian-weighted mean over the windows that see a voxel, in
/// float32. A volume smaller than the window is surrounded by zeros, which are cut off again.
///
/// Shapes: image [channels, D, H, W]; result [classes, D, H, W] on the image's device.
/// Memory: O(classes x volume) besides `batch` windows.
/// Source: docs/references.md#isensee2021; nnU-Net's sliding_window_prediction.py.
torch::Tensor SlidingWindowScores(const torch::Tensor& image, std::int64_t classes,
                                  const Triple& window, double overlap, std::int64_t batch,
                                  const WindowScorer& score);

}  // namespace isoscan
