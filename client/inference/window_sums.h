#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"

#include "client/inference/windows.h"

namespace isoscan {

/// Takes the scores [classes, H, W] of slice z of a volume; z = 0, 1, ... in turn.
using SliceTaker = std::function<void(std::int64_t z, std::span<const float> scores)>;

/// The Gaussian-weighted mean of windows' scores over the windows that see a voxel, in float32. A
/// slice is handed out as soon as no later window reaches it, and forgotten: what is kept is as
/// deep as a window, however deep the volume.
///
/// Memory:  4 x classes x (window depth + 1) x H x W bytes.
/// Threads: OpenMP inside; their number does not show in the scores.
class WindowSums {
 public:
  /// `windows` and `take` must outlive it.
  WindowSums(const Windows& windows, std::int64_t classes, const SliceTaker& take);

  /// Scores [classes, d, h, w] of the window at `corner`, as float32 or bfloat16's bits. Windows
  /// come in the order of Windows::Corners(), each once.
  /// Errors: DATA_LOSS a slice whose scores are not all finite.
  absl::Status Add(const Triple& corner, const float* scores);
  absl::Status Add(const Triple& corner, const std::uint16_t* scores);

  /// After the last window: hands out what is left.
  absl::Status Finish();

 private:
  template <typename Score>
  absl::Status AddScores(const Triple& corner, const Score* scores);
  /// Hands out the slices before `end`, of the padded volume.
  absl::Status TakeUpTo(std::int64_t end);

  const Windows& windows_;
  const std::int64_t classes_;
  const SliceTaker& take_;
  const std::int64_t slice_;  ///< Values of a slice: classes x H x W, padded.
  std::vector<float> sums_;   ///< [window depth, classes, H, W]; slice z lies at z % depth.
  std::vector<float> mean_;   ///< [classes, H, W] of the volume.
  std::int64_t taken_ = 0;    ///< Slices of the padded volume.
};

}  // namespace isoscan
