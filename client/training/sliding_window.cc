#include "client/training/sliding_window.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include <ATen/ATen.h>

namespace isoscan {
namespace {

/// The part of `volume` [channels, D, H, W] under the window that starts at `start`.
torch::Tensor Part(const torch::Tensor& volume, const Triple& start, const Triple& window) {
  return volume.narrow(1, start[0], window[0])
      .narrow(2, start[1], window[1])
      .narrow(3, start[2], window[2]);
}

/// A column of numbers along one of the three axes, which broadcasts over the others.
torch::Tensor Along(std::size_t axis, const std::vector<float>& values,
                    const torch::TensorOptions& options) {
  std::vector<std::int64_t> shape{1, 1, 1};
  shape[axis] = static_cast<std::int64_t>(values.size());
  return at::tensor(values).view(shape).to(options);
}

}  // namespace

std::vector<std::int64_t> WindowStarts(std::int64_t length, std::int64_t window, double overlap) {
  if (length <= window) return {0};
  const double room = static_cast<double>(length - window);
  const double step = std::max(1.0, static_cast<double>(window) * (1.0 - overlap));
  const auto intervals = static_cast<std::int64_t>(std::ceil(room / step));
  std::vector<std::int64_t> starts;
  for (std::int64_t i = 0; i <= intervals; ++i) {
    starts.push_back(std::llround(room * static_cast<double>(i) / static_cast<double>(intervals)));
  }
  return starts;
}

std::vector<float> GaussianWeights(std::int64_t window) {
  const double sigma = static_cast<double>(window) / 8.0;
  const double centre = static_cast<double>(window - 1) / 2.0;
  std::vector<float> weights;
  for (std::int64_t i = 0; i < window; ++i) {
    const double distance = (static_cast<double>(i) - centre) / sigma;
    weights.push_back(static_cast<float>(std::exp(-0.5 * distance * distance)));
  }
  return weights;
}

torch::Tensor SlidingWindowScores(const torch::Tensor& image, std::int64_t classes,
                                  const Triple& window, double overlap, std::int64_t batch,
                                  const WindowScorer& score) {
  const auto options = image.options().dtype(torch::kFloat32);
  Triple padded{};
  Triple before{};
  std::array<std::vector<std::int64_t>, 3> starts;
  std::array<torch::Tensor, 3> weights;  // of one window
  std::array<torch::Tensor, 3> totals;   // of all windows: their grid is regular, so it factorises
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const std::int64_t length = image.size(static_cast<std::int64_t>(axis) + 1);
    padded[axis] = std::max(length, window[axis]);
    before[axis] = (padded[axis] - length) / 2;
    starts[axis] = WindowStarts(padded[axis], window[axis], overlap);
    const std::vector<float> gaussian = GaussianWeights(window[axis]);
    std::vector<float> total(static_cast<std::size_t>(padded[axis]), 0.0F);
    for (const std::int64_t start : starts[axis]) {
      for (std::size_t i = 0; i < gaussian.size(); ++i) {
        total[static_cast<std::size_t>(start) + i] += gaussian[i];
      }
    }
    weights[axis] = Along(axis, gaussian, options);
    totals[axis] = Along(axis, total, options);
  }
  const auto after = [&](std::size_t axis) {
    return padded[axis] - before[axis] - image.size(static_cast<std::int64_t>(axis) + 1);
  };
  const torch::Tensor volume =
      at::constant_pad_nd(image, {before[2], after(2), before[1], after(1), before[0], after(0)});
  const torch::Tensor weight = weights[0] * weights[1] * weights[2];

  std::vector<Triple> corners;
  for (const std::int64_t z : starts[0]) {
    for (const std::int64_t y : starts[1]) {
      for (const std::int64_t x : starts[2]) corners.push_back({z, y, x});
    }
  }
  torch::Tensor sums = at::zeros({classes, padded[0], padded[1], padded[2]}, options);
  for (std::size_t first = 0; first < corners.size(); first += static_cast<std::size_t>(batch)) {
    const std::size_t last = std::min(corners.size(), first + static_cast<std::size_t>(batch));
    std::vector<torch::Tensor> parts;
    for (std::size_t i = first; i < last; ++i) parts.push_back(Part(volume, corners[i], window));
    const torch::Tensor scores = score(at::stack(parts));
    for (std::size_t i = first; i < last; ++i) {
      Part(sums, corners[i], window)
          .add_(scores[static_cast<std::int64_t>(i - first)].to(torch::kFloat32) * weight);
    }
  }
  sums.div_(totals[0]).div_(totals[1]).div_(totals[2]);
  return Part(sums, before, {image.size(1), image.size(2), image.size(3)});
}

}  // namespace isoscan
