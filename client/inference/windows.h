#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "common/study/study.h"

namespace isoscan {

/// Where windows of length `window` start on an axis of `length` voxels: evenly spread, the first
/// at 0, the last at the end, neighbours overlapping by at least `overlap` of their length. {0}
/// when one window covers the axis.
std::vector<std::int64_t> WindowStarts(std::int64_t length, std::int64_t window, double overlap);

/// Gaussian weights along one axis of a window: 1 at voxel window / 2, sigma an eighth of the
/// length. Of an even window that is half a voxel behind the middle, as in nnU-Net: where windows
/// disagree, half a voxel decides for many (docs/interop.md).
std::vector<float> GaussianWeights(std::int64_t window);

/// The windows that cover a volume, and what each voxel of a window weighs. A volume smaller than
/// the window is surrounded by zeros; no window lies in those alone. Windows and weights form a
/// regular grid, so everything is a product of three axes.
///
/// Source: docs/references.md#isensee2021; nnU-Net's sliding_window_prediction.py.
struct Windows {
  Windows(const Triple& size, const Triple& window_size, double overlap);

  Triple volume;  ///< D, H, W, as all triples here.
  Triple window;
  Triple padded;                                    ///< The greater of both.
  Triple before;                                    ///< Zeros before the volume.
  std::array<std::vector<std::int64_t>, 3> starts;  ///< In the padded volume.
  std::array<std::vector<float>, 3> weights;        ///< Within a window.
  std::array<std::vector<float>, 3> totals;         ///< Of all windows, at each place of `padded`.

  std::int64_t count() const;
  /// Where they start, z slowest.
  std::vector<Triple> Corners() const;
};

}  // namespace isoscan
