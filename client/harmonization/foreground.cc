#include "client/harmonization/foreground.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstring>
#include <numeric>

#include "client/imaging/byte_bits.h"

namespace isoscan {
namespace {

/// Slices that one thread joins before the slabs are joined to each other.
constexpr std::int64_t kSlab = 16;

/// A mask of fewer voxels is done before another thread wakes up.
constexpr std::int64_t kLargeMask = 1 << 18;

/// Voxels that are looked at together, one bit each.
constexpr std::int64_t kWord = 64;

/// Bit i is set where voxel i is foreground, or background; 0 beyond `count` voxels.
std::uint64_t MembersOf(const std::uint8_t* voxels, std::int64_t count, bool foreground) {
  std::array<std::uint64_t, kWord / 8> bytes{};
  std::memcpy(bytes.data(), voxels, static_cast<std::size_t>(count));
  const std::uint64_t members = NonzeroBytes(bytes);
  return foreground ? members : ~members & (~std::uint64_t{0} >> (kWord - count));
}

/// Calls change(x) wherever a run of voxels of one value begins, and one past where it ends.
template <typename Change>
void ForEachChange(const std::uint8_t* row, std::int64_t size, bool foreground, Change change) {
  std::uint64_t before = 0;  // Whether the voxel before this word is in a run.
  for (std::int64_t x = 0; x < size; x += kWord) {
    const std::uint64_t members = MembersOf(row + x, std::min(kWord, size - x), foreground);
    for (std::uint64_t changes = members ^ (members << 1 | before); changes != 0;
         changes &= changes - 1) {
      change(x + std::countr_zero(changes));
    }
    before = members >> (kWord - 1);
  }
  if (before != 0) change(size);
}

/// Neighbouring voxels of equal value along x: what components are built of, since there are far
/// fewer runs than voxels.
struct Run {
  std::int64_t first = 0;  ///< x of its first voxel.
  std::int64_t end = 0;    ///< One past its last.
};

/// The runs of one value, each with the number of the component that it belongs to.
struct Components {
  std::vector<Run> runs;
  std::vector<std::size_t> first_of_row;  ///< Row z * size_y + y has the runs up to the next row's.
  std::vector<std::size_t> component;     ///< Per run: the index of the component's first run.
};

std::size_t RootOf(std::vector<std::size_t>& parent, std::size_t run) {
  while (parent[run] != run) {
    parent[run] = parent[parent[run]];
    run = parent[run];
  }
  return run;
}

/// Joins the runs of two neighbouring rows that share an x. The lower root stays a root, so that
/// the order of the joins does not show.
void JoinRows(Components& found, std::int64_t here, std::int64_t there) {
  std::size_t left = found.first_of_row[static_cast<std::size_t>(here)];
  std::size_t right = found.first_of_row[static_cast<std::size_t>(there)];
  const std::size_t left_end = found.first_of_row[static_cast<std::size_t>(here) + 1];
  const std::size_t right_end = found.first_of_row[static_cast<std::size_t>(there) + 1];
  while (left < left_end && right < right_end) {
    const Run& a = found.runs[left];
    const Run& b = found.runs[right];
    if (a.first < b.end && b.first < a.end) {
      const std::size_t root = RootOf(found.component, left);
      const std::size_t other = RootOf(found.component, right);
      found.component[std::max(root, other)] = std::min(root, other);
    }
    if (a.end < b.end) {
      ++left;
    } else {
      ++right;
    }
  }
}

Components FindRuns(const std::vector<std::uint8_t>& mask, const std::array<std::int64_t, 3>& size,
                    bool foreground) {
  const std::int64_t rows = size[1] * size[2];
  Components result;
  result.first_of_row.resize(static_cast<std::size_t>(rows) + 1);
#pragma omp parallel for if (rows * size[0] > kLargeMask)
  for (std::int64_t row = 0; row < rows; ++row) {
    std::size_t changes = 0;
    ForEachChange(mask.data() + row * size[0], size[0], foreground,
                  [&changes](std::int64_t) { ++changes; });
    result.first_of_row[static_cast<std::size_t>(row) + 1] = changes / 2;
  }
  std::partial_sum(result.first_of_row.begin(), result.first_of_row.end(),
                   result.first_of_row.begin());
  result.runs.resize(result.first_of_row.back());
#pragma omp parallel for if (rows * size[0] > kLargeMask)
  for (std::int64_t row = 0; row < rows; ++row) {
    Run* run = result.runs.data() + result.first_of_row[static_cast<std::size_t>(row)];
    bool inside = false;
    ForEachChange(mask.data() + row * size[0], size[0], foreground, [&](std::int64_t x) {
      if (!inside) run->first = x;
      if (inside) (run++)->end = x;
      inside = !inside;
    });
  }
  return result;
}

Components FindComponents(const std::vector<std::uint8_t>& mask,
                          const std::array<std::int64_t, 3>& size, bool foreground) {
  Components result = FindRuns(mask, size, foreground);
  result.component.resize(result.runs.size());
  std::iota(result.component.begin(), result.component.end(), std::size_t{0});
#pragma omp parallel for if (size[0] * size[1] * size[2] > kLargeMask)
  for (std::int64_t slab = 0; slab < size[2]; slab += kSlab) {
    const std::int64_t first = slab * size[1];
    const std::int64_t end = std::min(slab + kSlab, size[2]) * size[1];
    for (std::int64_t row = first; row < end; ++row) {
      if (row % size[1] > 0) JoinRows(result, row, row - 1);
      if (row - size[1] >= first) JoinRows(result, row, row - size[1]);
    }
  }
  for (std::int64_t slab = kSlab; slab < size[2]; slab += kSlab) {
    for (std::int64_t row = slab * size[1]; row < (slab + 1) * size[1]; ++row) {
      JoinRows(result, row, row - size[1]);
    }
  }
  for (std::size_t& component : result.component) component = result.component[component];
  return result;
}

/// Calls visit(row, run) for every run, the rows of a slice on one thread.
template <typename Visit>
void ForEachRun(const Components& found, const std::array<std::int64_t, 3>& size, Visit visit) {
#pragma omp parallel for if (size[0] * size[1] * size[2] > kLargeMask)
  for (std::int64_t z = 0; z < size[2]; ++z) {
    for (std::int64_t row = z * size[1]; row < (z + 1) * size[1]; ++row) {
      const std::size_t end = found.first_of_row[static_cast<std::size_t>(row) + 1];
      for (std::size_t run = found.first_of_row[static_cast<std::size_t>(row)]; run < end; ++run) {
        visit(row, run);
      }
    }
  }
}

void Set(std::vector<std::uint8_t>& mask, const std::array<std::int64_t, 3>& size, std::int64_t row,
         const Run& run, std::uint8_t value) {
  std::fill(mask.data() + row * size[0] + run.first, mask.data() + row * size[0] + run.end, value);
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
  ForEachRun(found, size, [&](std::int64_t row, std::size_t i) {
    if (found.component[i] != largest) Set(mask, size, row, found.runs[i], 0);
  });
}

void FillHoles(std::vector<std::uint8_t>& mask, const std::array<std::int64_t, 3>& size) {
  const Components found = FindComponents(mask, size, /*foreground=*/false);
  std::vector<std::uint8_t> reaches_border(found.runs.size(), 0);
  ForEachRun(found, size, [&](std::int64_t row, std::size_t i) {
    const Run& run = found.runs[i];
    const std::int64_t y = row % size[1];
    const std::int64_t z = row / size[1];
    if (run.first == 0 || run.end == size[0] || y == 0 || y == size[1] - 1 || z == 0 ||
        z == size[2] - 1) {
#pragma omp atomic write
      reaches_border[found.component[i]] = 1;
    }
  });
  ForEachRun(found, size, [&](std::int64_t row, std::size_t i) {
    if (reaches_border[found.component[i]] == 0) Set(mask, size, row, found.runs[i], 1);
  });
}

}  // namespace isoscan
