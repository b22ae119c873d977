#include "client/training/resolution_augmentation.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace isoscan {
namespace {

/// A value along one axis made of some of the values there.
struct Tap {
  std::int64_t index = 0;
  float weight = 0;
};

/// For each place along an axis, what it is made of; the same number of taps for all.
using AxisFilter = std::vector<std::vector<Tap>>;

std::int64_t Reflected(std::int64_t index, std::int64_t length) {
  if (length == 1) return 0;
  const std::int64_t period = 2 * (length - 1);
  index = (index % period + period) % period;
  return std::min(index, period - index);
}

AxisFilter GaussianFilter(std::int64_t length, double deviation) {
  const auto radius = static_cast<std::int64_t>(3 * deviation + 0.25);
  std::vector<double> kernel;
  double sum = 0;
  for (std::int64_t k = -radius; k <= radius; ++k) {
    const double distance = static_cast<double>(k) / deviation;
    kernel.push_back(std::exp(-0.5 * distance * distance));
    sum += kernel.back();
  }
  AxisFilter filter(static_cast<std::size_t>(length));
  for (std::int64_t place = 0; place < length; ++place) {
    for (std::int64_t k = -radius; k <= radius; ++k) {
      filter[static_cast<std::size_t>(place)].push_back(
          {.index = Reflected(place + k, length),
           .weight = static_cast<float>(kernel[static_cast<std::size_t>(k + radius)] / sum)});
    }
  }
  return filter;
}

AxisFilter LowResolutionFilter(std::int64_t length, double zoom) {
  const std::int64_t coarse =
      std::max<std::int64_t>(1, std::llround(static_cast<double>(length) * zoom));
  const double step = static_cast<double>(length) / static_cast<double>(coarse);
  // The voxel that the centre of coarse voxel `number` lies in.
  const auto kept = [&](std::int64_t number) {
    const double centre = (static_cast<double>(number) + 0.5) * step;
    return std::min(length - 1, static_cast<std::int64_t>(centre));
  };
  AxisFilter filter;
  for (std::int64_t place = 0; place < length; ++place) {
    const double among_coarse = std::max(0.0, (static_cast<double>(place) + 0.5) / step - 0.5);
    const std::int64_t lower = std::min(coarse - 1, static_cast<std::int64_t>(among_coarse));
    const std::int64_t upper = std::min(coarse - 1, lower + 1);
    const auto weight = static_cast<float>(among_coarse - static_cast<double>(lower));
    filter.push_back({{kept(lower), 1 - weight}, {kept(upper), weight}});
  }
  return filter;
}

/// Along z or y: `outer` blocks of filter.size() rows of `length` values each.
void FilterRows(std::span<float> channel, std::int64_t outer, std::int64_t length,
                const AxisFilter& filter) {
  const auto rows = static_cast<std::int64_t>(filter.size());
  std::vector<float> block(static_cast<std::size_t>(rows * length));
  for (std::int64_t o = 0; o < outer; ++o) {
    float* const values = channel.data() + o * rows * length;
    std::copy(values, values + rows * length, block.begin());
    for (std::int64_t row = 0; row < rows; ++row) {
      float* const to = values + row * length;
      std::fill(to, to + length, 0.0F);
      for (const Tap& tap : filter[static_cast<std::size_t>(row)]) {
        const float* const from = block.data() + tap.index * length;
        for (std::int64_t i = 0; i < length; ++i) to[i] += tap.weight * from[i];
      }
    }
  }
}

/// Along x: the same for rows of single values, tap after tap, so that neighbours go together.
void FilterWithinRows(std::span<float> channel, const AxisFilter& filter) {
  const std::size_t length = filter.size();
  const std::size_t taps = filter.front().size();
  std::vector<std::int64_t> indices;
  std::vector<float> weights;
  for (std::size_t tap = 0; tap < taps; ++tap) {
    for (const std::vector<Tap>& place : filter) {
      indices.push_back(place[tap].index);
      weights.push_back(place[tap].weight);
    }
  }
  std::vector<float> row(length);
  for (std::size_t start = 0; start < channel.size(); start += length) {
    float* const to = channel.data() + start;
    std::copy(to, to + length, row.begin());
    std::fill(to, to + length, 0.0F);
    for (std::size_t tap = 0; tap < taps; ++tap) {
      const std::int64_t* const index = indices.data() + tap * length;
      const float* const weight = weights.data() + tap * length;
      for (std::size_t i = 0; i < length; ++i) {
        to[i] += weight[i] * row[static_cast<std::size_t>(index[i])];
      }
    }
  }
}

void FilterAlong(std::size_t axis, std::span<float> channel, const Triple& size,
                 const AxisFilter& filter) {
  if (axis == 0) FilterRows(channel, 1, size[1] * size[2], filter);
  if (axis == 1) FilterRows(channel, size[0], size[2], filter);
  if (axis == 2) FilterWithinRows(channel, filter);
}

}  // namespace

void Blur(std::span<float> channel, const Triple& size, const std::array<double, 3>& deviations) {
  for (std::size_t axis = 0; axis < 3; ++axis) {
    FilterAlong(axis, channel, size, GaussianFilter(size[axis], deviations[axis]));
  }
}

void LowerResolution(std::span<float> channel, const Triple& size,
                     const std::array<double, 3>& zoom) {
  for (std::size_t axis = 0; axis < 3; ++axis) {
    if (zoom[axis] == 1) continue;
    FilterAlong(axis, channel, size, LowResolutionFilter(size[axis], zoom[axis]));
  }
}

}  // namespace isoscan
