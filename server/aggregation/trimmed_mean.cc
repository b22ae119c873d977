#include "server/aggregation/trimmed_mean.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <span>

namespace isoscan {
namespace {

using Network = std::vector<std::pair<std::size_t, std::size_t>>;

// The values of a tile, row after row in ascending order at each place.
struct SortedTile {
  std::size_t columns;
  std::span<const float> values;

  std::span<const float> Row(std::size_t row) const {
    return values.subspan(row * columns, columns);
  }
};

// Small enough that all rows lie in the first cache; sorting takes minimum and maximum of whole
// rows, which has no branch and runs in vectors.
constexpr std::size_t kTileValues = 6 * 1024;
constexpr std::size_t kLeastColumns = 32;

template <typename Combine>
void ForEachSortedTile(std::span<const std::span<const float>> updates, const Network& network,
                       const Combine& combine) {
  const std::size_t count = updates.front().size();
  const std::size_t columns = std::max(kTileValues / updates.size(), kLeastColumns);
  std::vector<float> buffer(columns * updates.size());
  for (std::size_t first = 0; first < count; first += columns) {
    const std::size_t width = std::min(columns, count - first);
    for (std::size_t k = 0; k < updates.size(); ++k) {
      const std::span<const float> row = updates[k].subspan(first, width);
      std::copy(row.begin(), row.end(), buffer.data() + k * width);
    }
    for (const auto& [upper, lower] : network) {
      float* const smaller = buffer.data() + upper * width;
      float* const larger = buffer.data() + lower * width;
      for (std::size_t i = 0; i < width; ++i) {
        const float a = smaller[i];
        const float b = larger[i];
        smaller[i] = std::min(a, b);
        larger[i] = std::max(a, b);
      }
    }
    combine(SortedTile{width, std::span(buffer).first(width * updates.size())}, first);
  }
}

}  // namespace

Network SortingNetwork(std::size_t values) {
  Network network;
  if (values < 2) return network;
  const std::size_t highest = std::bit_ceil(values) / 2;
  for (std::size_t p = highest; p > 0; p /= 2) {
    std::size_t r = 0;
    std::size_t d = p;
    for (std::size_t q = highest;; q /= 2) {
      for (std::size_t i = 0; i + d < values; ++i) {
        if ((i & p) == r) network.emplace_back(i, i + d);
      }
      if (q == p) break;
      d = q - p;
      r = p;
    }
  }
  return network;
}

void TrimmedMean::Reduce(const BlockInput& input, const BlockOutput& output) const {
  const std::size_t rows = input.updates.size();
  const auto kept = static_cast<double>(rows - 2 * trimmed_);
  ForEachSortedTile(input.updates, network_, [&](const SortedTile& tile, std::size_t first) {
    const std::span<double> mean = output.model.subspan(first, tile.columns);
    std::copy(tile.Row(trimmed_).begin(), tile.Row(trimmed_).end(), mean.begin());
    for (std::size_t row = trimmed_ + 1; row < rows - trimmed_; ++row) {
      const std::span<const float> values = tile.Row(row);
      for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += double{values[i]};
    }
    for (double& value : mean) value /= kept;
  });
}

std::size_t TrimmedOf(double fraction, std::size_t updates) {
  // 0.29 times 100 is 28.999999999999996 in double.
  const auto whole =
      static_cast<std::size_t>(std::floor(fraction * static_cast<double>(updates) + 1e-9));
  return std::min(whole, (updates - 1) / 2);
}

void MeanAroundMedian::Reduce(const BlockInput& input, const BlockOutput& output) const {
  const std::size_t rows = input.updates.size();
  ForEachSortedTile(input.updates, network_, [&](const SortedTile& tile, std::size_t first) {
    for (std::size_t i = 0; i < tile.columns; ++i) {
      const auto at = [&](std::size_t row) { return double{tile.values[row * tile.columns + i]}; };
      const double median = (at((rows - 1) / 2) + at(rows / 2)) / 2;
      // The nearest lie side by side.
      std::size_t begin = 0;
      while (begin + nearest_ < rows && at(begin + nearest_) - median < median - at(begin)) ++begin;
      double sum = at(begin);
      for (std::size_t row = begin + 1; row < begin + nearest_; ++row) sum += at(row);
      output.model[first + i] = sum / static_cast<double>(nearest_);
    }
  });
}

}  // namespace isoscan
