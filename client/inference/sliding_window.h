#pragma once

#include <torch/types.h>

#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <vector>

#include "absl/status/status.h"

#include "client/inference/window_sums.h"
#include "client/inference/windows.h"

namespace isoscan {

/// Scores of a batch of windows: [n, channels, d, h, w] in the device's type -> [n, classes, d, h,
/// w] in float32 or bfloat16.
using WindowScorer = std::function<torch::Tensor(const torch::Tensor& windows)>;

/// How a volume's windows are scored.
struct WindowWork {
  torch::Device device{torch::kCPU};
  torch::ScalarType type = torch::kFloat32;  ///< What the scorer is given.
  std::int64_t batch = 1;                    ///< Windows that the scorer is given at once.
  /// So many threads score a batch each, which leaves nobody waiting between the layers of a
  /// network. More than one: the scorer is called from several threads, where LibTorch has one.
  int workers = 1;
  /// 0 = z, 1 = y, 2 = x: a window's scores become the mean over all of its mirror images.
  std::vector<std::int64_t> mirror_axes = {};
  std::stop_token stop = {};
  /// Called now and then, from the calling thread.
  std::function<void(std::int64_t done, std::int64_t windows)> observe = {};
};

/// Scores a volume [channels, D, H, W] window by window and hands out its slices (WindowSums). Of
/// windows that hold one value and nothing else, such as the air around a skull-stripped brain,
/// only the first is given to `score`: the others' scores are the same.
///
/// Memory: that of WindowSums, and of `batch` windows for each worker, whose inputs and scores it
/// holds
///         twice. Neither of the two shows in the scores, if it does not in the scorer's.
/// Errors: those of WindowSums; CANCELLED. Throws what `score` throws.
absl::Status SlideWindow(std::span<const float> image, std::int64_t channels, std::int64_t classes,
                         const Windows& windows, const WindowWork& work, const WindowScorer& score,
                         const SliceTaker& take);

}  // namespace isoscan
