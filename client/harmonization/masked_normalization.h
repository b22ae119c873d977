#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/imaging/volume.h"
#include "common/study/harmonization_plan.h"

namespace isoscan {

/// One byte per voxel: 1 where statistics are taken.
using Mask = std::vector<std::uint8_t>;

/// The mask that the plan asks for. All kinds but kGiven follow the volume under x' = s x + b, s >
/// 0: the same voxels are chosen.
///   kWhole      every voxel
///   kOtsu       above Otsu's threshold on the volume's own range; largest component, holes filled
///   kThreshold  above min + threshold * (max - min)
///   kGiven      `given`, which must have the volume's size
/// Errors: INVALID_ARGUMENT when a given mask is missing, of another size or empty.
/// Source: docs/references.md#otsu1979.
absl::StatusOr<Mask> MakeMask(const Volume& volume, const HarmonizationPlan& plan,
                              const std::optional<Mask>& given = std::nullopt);

/// Mean and standard deviation (population) over a mask, in double, exact but for its rounding.
struct IntensityStatistics {
  double mean = 0;
  double standard_deviation = 0;
  std::int64_t voxels = 0;
};
IntensityStatistics StatisticsOf(const Volume& volume, const Mask& mask);

/// y = (x - mean) / sd with statistics over `mask`, applied to every voxel (Outside::kZero: 0
/// outside the mask). Removes x' = s x + b, s > 0, exactly but for float32 rounding of the input.
/// No additive epsilon: a volume whose standard deviation is below 1e-6 of |mean| + range is
/// refused. Answers with the statistics that it went by.
///
/// Errors: INVALID_ARGUMENT naming the reason: empty mask, constant volume, NaN or infinite voxels
///         (with their number).
absl::StatusOr<IntensityStatistics> NormalizeOverMask(Volume& volume, const Mask& mask,
                                                      HarmonizationPlan::Outside outside);

/// The same over every voxel, for which no mask need be made.
absl::StatusOr<IntensityStatistics> NormalizeWhole(Volume& volume);

/// Errors: INVALID_ARGUMENT no voxel, or NaN and infinite ones (with their number).
absl::Status CheckVoxels(const Volume& volume);

}  // namespace isoscan
