#include "client/imaging/grid_check.h"

#include <fmt/format.h>

#include <string>

namespace isoscan {
namespace {

std::string GridText(const Geometry& grid) {
  return fmt::format(
      "size {}x{}x{}, spacing {:.4g}x{:.4g}x{:.4g} mm, origin ({:.4g}, {:.4g}, {:.4g})",
      grid.size[0], grid.size[1], grid.size[2], grid.spacing_mm[0], grid.spacing_mm[1],
      grid.spacing_mm[2], grid.origin_mm[0], grid.origin_mm[1], grid.origin_mm[2]);
}

}  // namespace

absl::Status CheckSameGrid(const std::filesystem::path& image_path, const Geometry& image,
                           const std::filesystem::path& other_path, const Geometry& other) {
  const double tolerance_mm = GridToleranceOf(image);
  if (SameGrid(image, other, tolerance_mm)) return absl::OkStatus();
  const std::string distance =
      image.size == other.size
          ? fmt::format("; their corners lie up to {:.4g} mm apart, {:.3g} mm are allowed",
                        GreatestCornerDistance(image, other), tolerance_mm)
          : "";
  return absl::InvalidArgumentError(fmt::format(
      "{} does not lie on the grid of {} (in canonical orientation): {} against {}{}",
      other_path.string(), image_path.string(), GridText(other), GridText(image), distance));
}

}  // namespace isoscan
