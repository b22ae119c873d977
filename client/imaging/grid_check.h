#pragma once

#include <filesystem>

#include "absl/status/status.h"

#include "client/imaging/volume.h"

namespace isoscan {

/// OK when `other` is the grid of `image` within GridToleranceOf(image).
/// Errors: INVALID_ARGUMENT with both files, both grids and how far apart they lie.
absl::Status CheckSameGrid(const std::filesystem::path& image_path, const Geometry& image,
                           const std::filesystem::path& other_path, const Geometry& other);

}  // namespace isoscan
