#include "client/harmonization/foreground.h"

#include <algorithm>
#include <numeric>

namespace isoscan {
namespace {

/// Neighbouring voxels of equal value along x: what components are built of, since there are far
/// fewer runs than voxels.
struct Run {
  std::int64_t first = 0;  ///< x of its first voxel.
  std::int64_t end = 0;    ///< One past its last.
  std::int64_t row = 0;    ///< z * size_y + y.
};

/// The runs of one value, each with the number of the component that it belongs to.
struct Components {
  std::vector<Run> runs;
  std::vector<std::size_t> component;  ///< Per run: the index of the component's first run.
};

std::size_t RootOf(std::vector<std::size_t>& parent, std::size_t run) {
  while (parent[run] != run) {
    parent[run] = parent[parent[run]];
    run = parent[run];
  }
  return run;
}

/// Joins the runs of two neighbouring rows that share an x. The lower root stays a root.
void JoinRows(const std::vector<Run>& runs, std::vector<std::size_t>& parent, std::size_t left,
              std::size_t left_end, std::size_t right, std::size_t right_end) {
  while (left < left_end && right < right_end) {
    if (runs[left].first < runs[right].end && runs[right].first < runs[left].end) {
      const std::size_t a = RootOf(parent, left);
      const std::size_t b = RootOf(parent, right);
      parent[std::max(a, b)] = std::min(a, b);
    }
    if (runs[left].end < runs[right].end) {
      ++left;
    } else {
      ++right;
    }
  }
}

Components FindComponents(const std::vector<std::uint8_t>& mask,
                          const std::array<std::int64_t, 3>& size, bool foreground) {
  const std::int64_t rows = size[1] * size[2];
  Components result;
  std::vector<std::size_t> first_of_row(static_cast<std::size_t>(rows) + 1);
  for (std::int64_t row = 0; row < rows; ++row) {
    first_of_row[static_cast<std::size_t>(row)] = result.runs.size();
    const std::uint8_t* voxels = mask.data() + row * size[0];
    for (std::int64_t x = 0; x < size[0];) {
      if ((voxels[x] != 0) != foreground) {
        ++x;
        continue;
      }
      const std::int64_t first = x;
      while (x < size[0] && (voxels[x] != 0) == foreground) ++x;
      result.runs.push_back({.first = first, .end = x, .row = row});
    }
  }
  first_of_row.back() = result.runs.size();

  std::vector<std::size_t>& parent = result.component;
  parent.resize(result.runs.size());
  std::iota(parent.begin(), parent.end(), std::size_t{0});
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto join = [&](std::int64_t other) {
      const auto here = static_cast<std::size_t>(row);
      const auto there = static_cast<std::size_t>(other);
      JoinRows(result.runs, parent, first_of_row[here], first_of_row[here + 1], first_of_row[there],
               first_of_row[there + 1]);
    };
    if (row % size[1] > 0) join(row - 1);
    if (row >= size[1]) join(row - size[1]);
  }
  for (std::size_t run = 0; run < parent.size(); ++run) parent[run] = RootOf(parent, run);
  return result;
}

void Set(std::vector<std::uint8_t>& mask, const std::array<std::int64_t, 3>& size, const Run& run,
         std::uint8_t value) {
  const auto row = mask.begin() + run.row * size[0];
  std::fill(row + run.first, row + run.end, value);
}

}  // namespace

std::size_t OtsuThreshold(const std::array<std::int64_t, kOtsuBins>& histogram) {
  double total = 0;
  double moment = 0;
  for (std::size_t bin = 0; bin < kOtsuBins; ++bin) {
    total += static_cast<double>(histogram[bin]);
    moment += static_cast<double>(histogram[bin]) * static_cast<double>(bin);
  }
  double below = 0;
  double moment_below = 0;
  double greatest = -1;
  std::size_t threshold = 0;
  for (std::size_t bin = 0; bin + 1 < kOtsuBins; ++bin) {
    below += static_cast<double>(histogram[bin]);
    moment_below += static_cast<double>(histogram[bin]) * static_cast<double>(bin);
    if (below == 0 || below == total) continue;
    const double difference = moment * below - moment_below * total;
    const double between = difference / below * difference / (total - below);
    if (between > greatest) {
      greatest = between;
      threshold = bin;
    }
  }
  return threshold;
}

void KeepLargestComponent(std::vector<std::uint8_t>& mask,
                          const std::array<std::int64_t, 3>& size) {
  const Components found = FindComponents(mask, size, /*foreground=*/true);
  std::vector<std::int64_t> voxels(found.runs.size(), 0);
  for (std::size_t i = 0; i < found.runs.size(); ++i) {
    voxels[found.component[i]] += found.runs[i].end - found.runs[i].first;
  }
  const auto largest = static_cast<std::size_t>(
      std::distance(voxels.begin(), std::max_element(voxels.begin(), voxels.end())));
  for (std::size_t i = 0; i < found.runs.size(); ++i) {
    if (found.component[i] != largest) Set(mask, size, found.runs[i], 0);
  }
}

void FillHoles(std::vector<std::uint8_t>& mask, const std::array<std::int64_t, 3>& size) {
  const Components found = FindComponents(mask, size, /*foreground=*/false);
  std::vector<bool> reaches_border(found.runs.size(), false);
  for (std::size_t i = 0; i < found.runs.size(); ++i) {
    const Run& run = found.runs[i];
    const std::int64_t y = run.row % size[1];
    const std::int64_t z = run.row / size[1];
    if (run.first == 0 || run.end == size[0] || y == 0 || y == size[1] - 1 || z == 0 ||
        z == size[2] - 1) {
      reaches_border[found.component[i]] = true;
    }
  }
  for (std::size_t i = 0; i < found.runs.size(); ++i) {
    if (!reaches_border[found.component[i]]) Set(mask, size, found.runs[i], 1);
  }
}

}  // namespace isoscan
