#include "client/inference/windows.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace isoscan {

std::vector<std::int64_t> WindowStarts(std::int64_t length, std::int64_t window, double overlap) {
  if (length <= window) return {0};
  const double room = static_cast<double>(length - window);
  const double step = std::max(1.0, static_cast<double>(window) * (1.0 - overlap));
  const auto intervals = static_cast<std::int64_t>(std::ceil(room / step));
  std::vector<std::int64_t> starts;
  for (std::int64_t i = 0; i <= intervals; ++i) {
    // Halves to the even number, as NumPy rounds.
    starts.push_back(std::lrint(room / static_cast<double>(intervals) * static_cast<double>(i)));
  }
  return starts;
}

std::vector<float> GaussianWeights(std::int64_t window) {
  const double sigma = static_cast<double>(window) / 8.0;
  const std::int64_t centre = window / 2;
  std::vector<float> weights;
  for (std::int64_t i = 0; i < window; ++i) {
    const double distance = static_cast<double>(i - centre) / sigma;
    weights.push_back(static_cast<float>(std::exp(-0.5 * distance * distance)));
  }
  return weights;
}

Windows::Windows(const Triple& size, const Triple& window_size, double overlap)
    : volume(size), window(window_size), padded{}, before{} {
  for (std::size_t axis = 0; axis < 3; ++axis) {
    padded[axis] = std::max(volume[axis], window[axis]);
    before[axis] = (padded[axis] - volume[axis]) / 2;
    starts[axis] = WindowStarts(padded[axis], window[axis], overlap);
    weights[axis] = GaussianWeights(window[axis]);
    totals[axis].assign(static_cast<std::size_t>(padded[axis]), 0.0F);
    for (const std::int64_t start : starts[axis]) {
      for (std::size_t i = 0; i < weights[axis].size(); ++i) {
        totals[axis][static_cast<std::size_t>(start) + i] += weights[axis][i];
      }
    }
  }
}

std::int64_t Windows::count() const {
  std::size_t windows = 1;
  for (const auto& along : starts) windows *= along.size();
  return static_cast<std::int64_t>(windows);
}

std::vector<Triple> Windows::Corners() const {
  std::vector<Triple> corners;
  for (const std::int64_t z : starts[0]) {
    for (const std::int64_t y : starts[1]) {
      for (const std::int64_t x : starts[2]) corners.push_back({z, y, x});
    }
  }
  return corners;
}

}  // namespace isoscan
