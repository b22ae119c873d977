#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "absl/status/statusor.h"

#include "client/evaluation/surface_metrics.h"
#include "client/imaging/image_file.h"

namespace isoscan {

/// Scores a segmentation in a file against a reference in another, which may be stored in another
/// orientation: per value of `values` or, without them, of every value but 0 that one of both
/// holds. Other values count as background.
///
/// Memory: 10 bytes a voxel, and that of ScoreLabels(). Threads: OpenMP's.
/// Errors: those of ReadLabelValues(); INVALID_ARGUMENT different grids, voxels that are negative
/// or
///         no whole number, or more than 255 values.
absl::StatusOr<std::map<std::int64_t, LabelScore>> ScoreMaskFiles(
    const std::filesystem::path& predicted, const std::filesystem::path& reference,
    const std::optional<std::set<std::int64_t>>& values, const SurfaceOptions& options,
    GeometrySource geometry = GeometrySource::kAgreed);

}  // namespace isoscan
