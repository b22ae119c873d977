#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"

#include "common/planning/fingerprint.h"
#include "common/study/plan_preset.h"
#include "common/study/study.h"

namespace isoscan {

/// One grid and the network that is trained on it. Every triple is in tensor order (z, y, x), also
/// where nnU-Net would transpose.
struct GridPlan {
  std::array<double, 3> spacing_mm{};
  std::array<double, 3> median_size{};  ///< Voxels of the median case on this grid; may end in .5.
  Triple patch_size{};
  std::int64_t batch_size = 0;
  std::vector<std::int64_t> features;  ///< Channels per stage; stage 0 is the finest.
  std::vector<Triple> strides;         ///< Per stage.
  std::vector<Triple> kernels;         ///< Per stage.
  /// Per stage: convolutions, or with a residual encoder blocks of two.
  std::vector<std::int64_t> encoder_blocks;
  std::vector<std::int64_t> decoder_convolutions;  ///< Per stage but the coarsest.
  /// Numbers in the outputs of all convolutions of one patch: nnU-Net's measure of memory.
  std::int64_t feature_map_numbers = 0;
  bool batch_dice = false;  ///< Dice over a batch as if it were one volume.

  bool operator==(const GridPlan&) const = default;
};

/// nnU-Net's plan of a cohort (its 3d_fullres and 3d_lowres; there is no 2-D plan).
struct CohortPlan {
  PlanPreset preset = PlanPreset::kPlain;
  double memory_gb = 0;
  /// How nnU-Net permutes the axes before training: the coarsest comes first.
  Triple transpose_forward{};
  /// nnU-Net would take its z-score over the nonzero voxels, since cropping removes much.
  bool normalize_nonzero = false;
  GridPlan full_resolution;
  /// For a cascade, where the patch sees less than a quarter of the median case.
  std::optional<GridPlan> low_resolution;

  bool operator==(const CohortPlan&) const = default;
};

/// nnU-Net's rules (docs/planning.md) on a federation's fingerprint: a pure function of the
/// sketches and counts, so of the set of cases alone.
///
/// `memory_gb` is that of a GPU as nnU-Net counts it, at 8 GB for a batch of two patches of 128^3.
///
/// Errors: INVALID_ARGUMENT memory_gb not in (0, 10000];
///         FAILED_PRECONDITION no case is described, the median case has one slice, or volumes or
///         memory are too small for a network of two stages.
absl::StatusOr<CohortPlan> PlanNetwork(const Fingerprint& fingerprint, PlanPreset preset,
                                       double memory_gb);

}  // namespace isoscan
