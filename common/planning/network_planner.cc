#include "common/planning/network_planner.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <utility>

#include "common/status/status_macros.h"

namespace isoscan {
namespace {

using Vector = std::array<double, 3>;

constexpr double kAnisotropy = 3;
constexpr double kMinimumEdge = 4;  // Voxels along each axis at the coarsest stage, if it pools.
constexpr std::int64_t kBaseFeatures = 32;
constexpr std::int64_t kMaximumFeatures = 320;
constexpr double kReferenceBatch = 2;
constexpr double kInitialPatchEdge = 256;
constexpr double kLowResolutionShare = 0.25;
constexpr double kLowResolutionStep = 1.03;
constexpr double kMaximumMemoryGb = 10'000;

struct Preset {
  double reference_numbers;  // Feature-map numbers of a patch that fill `reference_gb` at batch 2.
  double reference_gb;
  double maximum_share_of_cohort;  // Of all voxels, in one batch.
  bool residual;
};

Preset Of(PlanPreset preset) {
  switch (preset) {
    case PlanPreset::kPlain:
      return {560e6, 8, 0.05, false};
    case PlanPreset::kResidualM:
      return {680e6, 8, 1, true};
    case PlanPreset::kResidualL:
      break;
  }
  return {2100e6, 24, 1, true};
}

// Python's and NumPy's: to the nearest even integer.
double Round(double value) { return std::nearbyint(value); }

template <typename Triples>
double Product(const Triples& triple) {
  return static_cast<double>(triple[0]) * static_cast<double>(triple[1]) *
         static_cast<double>(triple[2]);
}

struct Topology {
  Triple patch;
  Triple divisor;  // Of the patch: the product of the strides.
  std::vector<Triple> strides;
  std::vector<Triple> kernels;
};

// Which axes are halved how often, coarse ones later, so that voxels become isotropic on the way
// down; the patch is padded to what the strides divide.
Topology TopologyOf(Vector spacing, const Vector& patch) {
  Topology topology{.patch = {}, .divisor = {1, 1, 1}, .strides = {{1, 1, 1}}, .kernels = {}};
  Vector size = patch;
  Triple kernel = {1, 1, 1};
  while (true) {
    double finest = std::numeric_limits<double>::infinity();  // Of the axes that are long enough.
    for (std::size_t axis = 0; axis < 3; ++axis) {
      if (size[axis] >= 2 * kMinimumEdge) finest = std::min(finest, spacing[axis]);
    }
    std::vector<std::size_t> halved;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      if (size[axis] >= 2 * kMinimumEdge && spacing[axis] / finest < 2) halved.push_back(axis);
    }
    if (halved.empty() || (halved.size() == 1 && size[halved.front()] < 3 * kMinimumEdge)) break;

    const double finest_of_all = *std::min_element(spacing.begin(), spacing.end());
    for (std::size_t axis = 0; axis < 3; ++axis) {
      if (spacing[axis] / finest_of_all < 2) kernel[axis] = 3;
    }
    Triple stride = {1, 1, 1};
    for (const std::size_t axis : halved) {
      stride[axis] = 2;
      topology.divisor[axis] *= 2;
      spacing[axis] *= 2;
      size[axis] = std::ceil(size[axis] / 2);
    }
    topology.strides.push_back(stride);
    topology.kernels.push_back(kernel);
  }
  topology.kernels.push_back({3, 3, 3});
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const auto divisor = static_cast<double>(topology.divisor[axis]);
    topology.patch[axis] =
        static_cast<std::int64_t>(std::ceil(patch[axis] / divisor)) * topology.divisor[axis];
  }
  return topology;
}

Topology TopologyOf(const Vector& spacing, const Triple& patch) {
  Vector size;
  std::copy(patch.begin(), patch.end(), size.begin());
  return TopologyOf(spacing, size);
}

std::int64_t Voxels(const Triple& size) { return size[0] * size[1] * size[2]; }

// Outputs of every convolution, transposed convolution and segmentation head of the finest stage,
// for one patch.
std::int64_t FeatureMapNumbers(const GridPlan& grid, const Preset& preset, std::int64_t classes) {
  const std::size_t stages = grid.features.size();
  std::vector<std::int64_t> voxels;
  Triple size = grid.patch_size;
  for (const Triple& stride : grid.strides) {
    for (std::size_t axis = 0; axis < 3; ++axis) size[axis] /= stride[axis];
    voxels.push_back(Voxels(size));
  }
  // The residual encoder begins with a convolution of its own.
  std::int64_t numbers = preset.residual ? grid.features[0] * voxels[0] : 0;
  for (std::size_t stage = 0; stage < stages; ++stage) {
    std::int64_t outputs = grid.encoder_blocks[stage];
    if (preset.residual) {
      // A block has two convolutions; where shape or channels change, a third in the shortcut.
      const bool changes = grid.strides[stage] != Triple{1, 1, 1} ||
                           (stage > 0 && grid.features[stage] != grid.features[stage - 1]);
      outputs = 2 * outputs + (changes ? 1 : 0);
    }
    numbers += outputs * grid.features[stage] * voxels[stage];
  }
  for (std::size_t stage = 0; stage + 1 < stages; ++stage) {
    numbers += (grid.decoder_convolutions[stage] + 1) * grid.features[stage] * voxels[stage];
  }
  return numbers + classes * voxels[0];
}

void SetTopology(const Topology& topology, const Preset& preset, GridPlan& grid) {
  const std::size_t stages = topology.strides.size();
  grid.patch_size = topology.patch;
  grid.strides = topology.strides;
  grid.kernels = topology.kernels;
  grid.features.clear();
  grid.encoder_blocks.clear();
  constexpr std::array<std::int64_t, 4> kResidualBlocks = {1, 3, 4, 6};
  for (std::size_t stage = 0; stage < stages; ++stage) {
    const std::int64_t doubled =
        stage == 0 ? kBaseFeatures : std::min(2 * grid.features.back(), kMaximumFeatures);
    grid.features.push_back(doubled);
    grid.encoder_blocks.push_back(preset.residual ? kResidualBlocks[std::min<std::size_t>(stage, 3)]
                                                  : 2);
  }
  grid.decoder_convolutions.assign(stages - 1, preset.residual ? 1 : 2);
}

// The patch's axis that is longest beside the median case; the last of equals.
std::size_t AxisToShorten(const Triple& patch, const Vector& median_size) {
  std::size_t longest = 0;
  const auto share = [&](std::size_t axis) {
    return static_cast<double>(patch[axis]) / median_size[axis];
  };
  for (std::size_t axis = 1; axis < 3; ++axis) {
    if (share(axis) >= share(longest)) longest = axis;
  }
  return longest;
}

absl::StatusOr<GridPlan> PlanGrid(const Vector& spacing, const Vector& median_size,
                                  double cohort_voxels, std::int64_t classes, const Preset& preset,
                                  double memory_gb) {
  GridPlan grid;
  grid.spacing_mm = spacing;
  grid.median_size = median_size;
  Vector per_mm;
  std::transform(spacing.begin(), spacing.end(), per_mm.begin(), [](double mm) { return 1 / mm; });
  const double scale = std::pow(std::pow(kInitialPatchEdge, 3) / Product(per_mm), 1.0 / 3);
  Vector patch;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    patch[axis] = std::clamp(Round(per_mm[axis] * scale), 1.0, median_size[axis]);
  }

  Topology topology = TopologyOf(spacing, patch);
  SetTopology(topology, preset, grid);
  grid.feature_map_numbers = FeatureMapNumbers(grid, preset, classes);
  const double allowed = preset.reference_numbers * (memory_gb / preset.reference_gb);
  bool fits = true;
  while (static_cast<double>(grid.feature_map_numbers) > allowed) {
    const std::size_t axis = AxisToShorten(grid.patch_size, median_size);
    // By what divides the patch once it is shorter: 256 goes to 224, not to 192.
    Triple shorter = grid.patch_size;
    shorter[axis] -= topology.divisor[axis];
    shorter[axis] = grid.patch_size[axis] - TopologyOf(spacing, shorter).divisor[axis];
    fits = shorter[axis] > 0;
    if (!fits) break;
    topology = TopologyOf(spacing, shorter);
    SetTopology(topology, preset, grid);
    grid.feature_map_numbers = FeatureMapNumbers(grid, preset, classes);
  }
  if (!fits || grid.features.size() < 2) {
    return absl::FailedPreconditionError(
        fmt::format("no network of two stages fits {} GB and median volumes of {} voxels; a patch "
                    "of {} is left",
                    memory_gb, fmt::join(median_size, " x "), fmt::join(grid.patch_size, " x ")));
  }

  const double fitting =
      Round(allowed / static_cast<double>(grid.feature_map_numbers) * kReferenceBatch);
  const double share_of_cohort =
      Round(cohort_voxels * preset.maximum_share_of_cohort / Product(grid.patch_size));
  grid.batch_size =
      static_cast<std::int64_t>(std::max(std::min(fitting, share_of_cohort), kReferenceBatch));
  return grid;
}

// The median spacing; where one axis is much coarser and shorter than the others, one of the finer
// spacings of that axis, so that few cases lose slices.
Vector TargetSpacing(const Fingerprint& fingerprint) {
  Vector target;
  Vector size;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    target[axis] = fingerprint.spacing_mm[axis].Percentile(50);
    size[axis] = fingerprint.size[axis].Percentile(50);
  }
  const auto coarsest =
      static_cast<std::size_t>(std::max_element(target.begin(), target.end()) - target.begin());
  const std::size_t a = (coarsest + 1) % 3;
  const std::size_t b = (coarsest + 2) % 3;
  const double others = std::max(target[a], target[b]);
  if (target[coarsest] > kAnisotropy * others &&
      size[coarsest] * kAnisotropy < std::min(size[a], size[b])) {
    const double finer = fingerprint.spacing_mm[coarsest].Percentile(10);
    target[coarsest] = finer < others ? others + 1e-5 : finer;
  }
  return target;
}

// Voxels of the median case on a grid, axis by axis. Rounding keeps the order of the cases, so the
// middle ones stay in the middle.
Vector MedianSize(const Fingerprint& fingerprint, const Vector& spacing) {
  Vector size;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const auto [low, high] = fingerprint.extent_mm[axis].Middle();
    size[axis] = (Round(low / spacing[axis]) + Round(high / spacing[axis])) / 2;
  }
  return size;
}

template <typename Value>
std::array<Value, 3> Forward(const std::array<Value, 3>& values, const Triple& transpose) {
  std::array<Value, 3> permuted;
  for (std::size_t i = 0; i < 3; ++i) permuted[i] = values[static_cast<std::size_t>(transpose[i])];
  return permuted;
}

template <typename Value>
void TurnBack(const Triple& transpose, std::array<Value, 3>& values) {
  const std::array<Value, 3> permuted = values;
  for (std::size_t i = 0; i < 3; ++i) values[static_cast<std::size_t>(transpose[i])] = permuted[i];
}

void TurnBack(const Triple& transpose, GridPlan& grid) {
  TurnBack(transpose, grid.spacing_mm);
  TurnBack(transpose, grid.median_size);
  TurnBack(transpose, grid.patch_size);
  for (Triple& stride : grid.strides) TurnBack(transpose, stride);
  for (Triple& kernel : grid.kernels) TurnBack(transpose, kernel);
}

// Coarser and coarser, the finer axes first, until the patch sees a quarter of the median case;
// nothing where that is so at full resolution, or where the grids would hardly differ.
absl::StatusOr<std::optional<GridPlan>> PlanLowResolution(
    const GridPlan& full, std::int64_t cases,
    const std::function<absl::StatusOr<GridPlan>(const Vector&, const Vector&, double)>& plan) {
  const double full_voxels = Product(full.median_size);
  double voxels = full_voxels;
  GridPlan low = full;
  while (Product(low.patch_size) / voxels < kLowResolutionShare) {
    Vector spacing = low.spacing_mm;
    const double coarsest = *std::max_element(spacing.begin(), spacing.end());
    const bool finer_axes =
        std::any_of(spacing.begin(), spacing.end(), [&](double mm) { return coarsest / mm > 2; });
    Vector size;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      if (!finer_axes || coarsest / spacing[axis] > 2) spacing[axis] *= kLowResolutionStep;
      size[axis] = full.spacing_mm[axis] / spacing[axis] * full.median_size[axis];
    }
    voxels = Product(size);
    std::transform(size.begin(), size.end(), size.begin(),
                   [](double voxels_on_axis) { return std::max(1.0, Round(voxels_on_axis)); });
    ASSIGN_OR_RETURN(low, plan(spacing, size, voxels * static_cast<double>(cases)));
  }
  if (full_voxels / voxels < 2) return std::nullopt;
  return low;
}

}  // namespace

absl::StatusOr<CohortPlan> PlanNetwork(const Fingerprint& fingerprint, PlanPreset preset,
                                       double memory_gb) {
  if (!(memory_gb > 0 && memory_gb <= kMaximumMemoryGb)) {
    return absl::InvalidArgumentError(
        fmt::format("a memory of {} GB to plan for, allowed are "
                    "numbers above 0 up to {}",
                    memory_gb, kMaximumMemoryGb));
  }
  if (fingerprint.described_cases() == 0) {
    return absl::FailedPreconditionError("no case to plan from");
  }
  CohortPlan plan;
  plan.preset = preset;
  plan.memory_gb = memory_gb;
  const Vector target = TargetSpacing(fingerprint);
  const auto coarsest = std::max_element(target.begin(), target.end()) - target.begin();
  plan.transpose_forward = {coarsest, coarsest == 0 ? 1 : 0, coarsest == 2 ? 1 : 2};
  plan.normalize_nonzero = fingerprint.relative_size.Percentile(50) < 0.75;

  // In nnU-Net's order of axes, since it decides between equals.
  const Vector spacing = Forward(target, plan.transpose_forward);
  const Vector median_size = Forward(MedianSize(fingerprint, target), plan.transpose_forward);
  if (*std::min_element(median_size.begin(), median_size.end()) <= 1) {
    return absl::FailedPreconditionError(fmt::format(
        "the median case has {} x {} x {} voxels at {} x {} x {} mm: there is no plan "
        "for single slices",
        median_size[0], median_size[1], median_size[2], spacing[0], spacing[1], spacing[2]));
  }
  const auto plan_grid = [&](const Vector& grid_spacing, const Vector& size, double voxels) {
    return PlanGrid(grid_spacing, size, voxels, fingerprint.classes, Of(preset), memory_gb);
  };
  const double cohort_voxels = Product(median_size) * static_cast<double>(fingerprint.cases);
  ASSIGN_OR_RETURN(plan.full_resolution, plan_grid(spacing, median_size, cohort_voxels));
  ASSIGN_OR_RETURN(plan.low_resolution,
                   PlanLowResolution(plan.full_resolution, fingerprint.cases, plan_grid));
  plan.full_resolution.batch_dice = plan.low_resolution.has_value();

  TurnBack(plan.transpose_forward, plan.full_resolution);
  if (plan.low_resolution) TurnBack(plan.transpose_forward, *plan.low_resolution);
  return plan;
}

}  // namespace isoscan
